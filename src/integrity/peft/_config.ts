/**
 * adapter_config.json of a PEFT folder: what of it changes an answer is honoured or refused by its name.
 *
 * A field that we do not know is refused unless it says nothing (null, false, empty): PEFT's new ways of training change
 * what the tensors mean, and the answer would be wrong without a word. Pure.
 */
import { z } from "zod";
import { JsonError, type JsonValue, parseJson } from "#base/json.ts";
import { RootedFileError as AdapterFileError } from "#integrity/_rooted-file.ts";

export const MAX_CONFIG_BYTES = 256 * 1024;
const LIMITS = { maxDepth: 8, maxValues: 100_000 };
const MAX_PATTERNS = 4096;
const HIGHEST_RANK = 4096;
const HIGHEST_ALPHA = 1e6;

/** Module names, or their ends. PEFT takes regular expressions; those that are none are all that is written. */
const Pattern = z.string().regex(/^[A-Za-z0-9_.]{1,256}$/, "is no name of a module: regular expressions are not read");
const patterns = <T extends z.ZodType<number>>(value: T) =>
  z
    .record(Pattern, value)
    .refine((all) => Object.keys(all).length <= MAX_PATTERNS, "has too many entries")
    .nullish();
const rank = z.int().min(1).max(HIGHEST_RANK);
const alpha = z.number().positive().max(HIGHEST_ALPHA);
const names = z.union([z.string().max(4096), z.array(z.string().max(512)).max(MAX_PATTERNS)]).nullish();

const Config = z.looseObject({
  peft_type: z.literal("LORA"),
  r: rank,
  lora_alpha: alpha,
  target_modules: names,
  use_rslora: z.boolean().nullish(),
  rank_pattern: patterns(rank),
  alpha_pattern: patterns(alpha),
  bias: z.literal("none", "is not supported: an adapter's biases are not read").nullish(),
  /** What begins as a part of the base model (PiSSA, OLoRA, LoftQ …) fits a base that is not the one served. */
  init_lora_weights: z
    .union([z.boolean(), z.enum(["gaussian", "eva", "orthogonal"])], "changes the base model, which is served as it is")
    .nullish(),
});

/** They say how it was trained, or how to train on. */
const OF_TRAINING: ReadonlySet<string> = new Set([
  "auto_mapping",
  "base_model_name_or_path",
  "corda_config",
  "eva_config",
  "exclude_modules",
  "inference_mode",
  "layers_pattern",
  "layers_to_transform",
  "loftq_config",
  "lora_dropout",
  "megatron_config",
  "megatron_core",
  "peft_version",
  "qalora_group_size",
  "revision",
  "runtime_config",
  "task_type",
]);

export interface PeftConfig {
  /** What B·A is multiplied with, for a module. */
  scaleOf(module: string, rank: number): number;
  /** What a module's rank has to be. */
  rankOf(module: string): number;
}

/** @throws AdapterFileError */
export function parsePeftConfig(bytes: Uint8Array): PeftConfig {
  const value = parsed(bytes);
  const result = Config.safeParse(value);
  if (!result.success) throw refused(issueOf(result.error));
  for (const [name, held] of Object.entries(result.data))
    if (!Object.hasOwn(Config.shape, name) && !OF_TRAINING.has(name) && !isNothing(held))
      throw refused(`${name.slice(0, 64).replace(/[^\x20-\x7e]/g, "?")} is not supported`);
  const { r, lora_alpha, use_rslora, rank_pattern, alpha_pattern } = result.data;
  const [ranks, alphas] = [patternsOf(rank_pattern), patternsOf(alpha_pattern)];
  return {
    rankOf: (module) => ranks(module) ?? r,
    scaleOf: (module, of) => (alphas(module) ?? lora_alpha) / (use_rslora ? Math.sqrt(of) : of),
  };
}

function parsed(bytes: Uint8Array): JsonValue {
  try {
    return parseJson(bytes, LIMITS);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw refused(error.message);
  }
}

type Patterns = Readonly<Record<string, number>> | null | undefined;

/** As PEFT matches: the whole name, or its end behind a dot; the first that fits. By the name's ends: both are many. */
function patternsOf(entries: Patterns): (module: string) => number | undefined {
  const known = new Map(Object.entries(entries ?? {}).map(([pattern, value], at) => [pattern, { at, value }]));
  return (module) => {
    const parts = module.split(".");
    const fitting = parts.flatMap((_, from) => known.get(parts.slice(from).join(".")) ?? []);
    return fitting.toSorted((a, b) => a.at - b.at)[0]?.value;
  };
}

function isNothing(value: unknown): boolean {
  if (value === null || value === false) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

function issueOf({ issues }: z.ZodError): string {
  const [outer] = issues;
  // Of a name that is not right what is wrong stands inside.
  const issue = outer?.code === "invalid_key" ? { ...outer, message: outer.issues[0]?.message } : outer;
  return `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "is not right"}`.slice(0, 300);
}

function refused(reason: string): AdapterFileError {
  return new AdapterFileError(`adapter_config.json: ${reason}`);
}
