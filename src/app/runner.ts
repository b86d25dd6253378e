/**
 * What a model is run for: text (undefined here) or numbers, and how those come about. From --runner, --pooler-config
 * and --hf-overrides (read by pooler-config.ts), and from what the GGUF's header says. Pure.
 */
import type { Settings } from "#config/settings.ts";
import { Fault } from "#core/fault.ts";
import type { PoolingInfo, PoolingType, PoolTask } from "#core/pool.ts";
import type { ModelFacts, PoolingFacts } from "#engine/gguf/facts.ts";
import { checkDimensions } from "#engine/pooling/desk.ts";
import type { Config, Overrides } from "./pooler-config.ts";
import { StartupError } from "./startup-error.ts";

const TYPES: Readonly<Record<string, PoolingType>> = { MEAN: "mean", CLS: "cls", LAST: "last", ALL: "none" };

type RunnerSettings = Pick<Settings, "runner" | "enableLora" | "speculativeConfig" | "kvSpillDir">;

/** @param said what --pooler-config and --hf-overrides say @returns undefined where it generates. @throws StartupError */
export function resolveRunner(
  settings: RunnerSettings,
  facts: ModelFacts,
  { config, overrides }: { readonly config?: Config | undefined; readonly overrides?: Overrides | undefined },
): PoolingInfo | undefined {
  const { declared, encoder } = facts.pooling;
  const auto = encoder || (declared !== undefined && declared !== "none") ? "pooling" : "generate";
  const runner = settings.runner === "auto" ? auto : settings.runner;
  if (runner === "pooling") {
    judgeCompany(settings);
    return poolingOf(facts, config ?? {}, overrides ?? {});
  }
  if (encoder) throw new StartupError(`a ${facts.architecture} model does not generate: leave --runner generate out`);
  if (config !== undefined) throw new StartupError("--pooler-config says how to pool: it goes with --runner pooling");
  return undefined;
}

/** What is for models that generate would be lost in silence. */
function judgeCompany({ enableLora, speculativeConfig, kvSpillDir }: RunnerSettings): void {
  const asked = {
    "--enable-lora": enableLora,
    "--speculative-config": speculativeConfig,
    "--kv-spill-dir": kvSpillDir,
  };
  for (const [flag, value] of Object.entries(asked))
    if (value !== undefined && value !== false) throw new StartupError(`${flag} is for models that generate`);
}

function poolingOf(facts: ModelFacts, config: Config, overrides: Overrides): PoolingInfo {
  const { pooling } = facts;
  const type = typeOf(pooling, config);
  const { dimensions } = config;
  const matryoshka = overrides.matryoshka_dimensions ?? (overrides.is_matryoshka ? "any" : undefined);
  const useActivation = config.use_activation ?? config.normalize ?? config.activation ?? config.softmax ?? true;
  const head = type === "rank" && pooling.softmaxHead ? "softmax" : "logits";
  if (head === "softmax" && !useActivation)
    throw new StartupError("--pooler-config: this model's head applies softmax itself; use_activation cannot be false");
  const info: PoolingInfo = {
    tasks: tasksFor(type, pooling, config.task),
    type,
    embeddingSize: pooling.embeddingSize,
    classes: type === "rank" ? pooling.classes : 0,
    labels: type === "rank" ? pooling.labels : [],
    head,
    matryoshka,
    defaults: { useActivation, ...(dimensions === undefined ? {} : { dimensions }) },
  };
  if (dimensions !== undefined) judgeDimensions(dimensions, info);
  return info;
}

/** What the operator says, else the header, else what vLLM takes: the first token of an encoder, a decoder's last. */
function typeOf(pooling: PoolingFacts, config: Config): PoolingType {
  const asked = config.pooling_type === undefined ? undefined : TYPES[config.pooling_type];
  const declared = pooling.declared === "none" ? undefined : pooling.declared;
  const type = asked ?? declared ?? (pooling.encoder ? "cls" : "last");
  if (type !== "rank") return type;
  if (pooling.classes === 0) throw new StartupError("the model's header promises a classifier head that is not there");
  if (pooling.softmaxHead && pooling.classes === 1)
    throw new StartupError("a softmax stands behind this model's head of one number: every score would be 1");
  return type;
}

function tasksFor(type: PoolingType, pooling: PoolingFacts, only: PoolTask | undefined): readonly PoolTask[] {
  const tasks = possible(type, pooling);
  if (only === undefined) return tasks;
  if (!tasks.includes(only))
    throw new StartupError(`--pooler-config: the model does not do ${only}; it does ${tasks.join(", ")}`);
  return [only];
}

function possible(type: PoolingType, { classes, softmaxHead, labels }: PoolingFacts): readonly PoolTask[] {
  if (type === "none") return ["token_embed"];
  if (type !== "rank") return ["embed", "token_embed"];
  // The share of "yes" is the sigmoid of the difference that other servers call the score.
  const yesNo = softmaxHead && labels.length === 2 && labels[0]?.toLowerCase() === "yes";
  return classes === 1 || yesNo ? ["classify", "score"] : ["classify"];
}

function judgeDimensions(dimensions: number, info: PoolingInfo): void {
  try {
    checkDimensions(dimensions, info);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const hint = info.matryoshka === undefined ? ` (--hf-overrides '{"is_matryoshka":true}' says that it does)` : "";
    throw new StartupError(`--pooler-config: ${error.message}${hint}`);
  }
}
