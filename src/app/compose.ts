/**
 * Builds the server around an engine of its own. Nothing listens yet.
 */
import { createRegistry, type Registry } from "#base/metrics.ts";
import type { Settings } from "#config/settings.ts";
import { CHARACTERS_PER_TOKEN } from "#core/model.ts";
import { PlatformError } from "#engine/native/locate.ts";
import { type OwnedTokenizer, openTokenizer } from "#engine/native/tokenizer.ts";
import type { EngineHandle } from "#engine/options.ts";
import { pairTemplate } from "#prompt/pair-template.ts";
import { modelTemplate, type Rendered } from "#prompt/template.ts";
import type { Serving } from "#serving/context.ts";
import { registerMetrics, type VllmMetrics } from "#serving/metrics.ts";
import type { ServedModel } from "#serving/models.ts";
import { type GatewayNeeds, relays } from "./computing.ts";
import type { Gateway } from "./gateway/open.ts";
import { generationDefaults, templateKwargs } from "./generation-config.ts";
import type { Launched } from "./launch.ts";
import { loadAdapters } from "./lora.ts";
import { chatTemplateText, type ModelSource } from "./model-source.ts";
import { openOperations } from "./operations.ts";
import { parsersFor } from "./parsers.ts";
import { createServer, registerParts, type Server, type ServerParts } from "./server.ts";
import { StartupError } from "./startup-error.ts";
import { localModel } from "./upstream-models.ts";

export interface Parts extends ServerParts, GatewayNeeds {
  readonly source: ModelSource;
  readonly launched: Launched;
}

/** @throws StartupError | what the parts throw for people to read */
export async function compose(parts: Parts): Promise<Server> {
  const { settings, source, launched } = parts;
  const { sizing, pooling } = launched;
  const names = namesOf(settings, source);
  const registry = createRegistry();
  const served: ServedModel[] = [];
  const metrics = openMetrics(parts, registry, () => served);
  registerParts(registry, parts);
  launched.observe(metrics.engineObserver(names[0]));
  const { tokenizer, engine } = await openModel(parts);
  const model = servedModel(parts, names, engine, tokenizer);
  served.push(model);
  let gateway: Gateway | undefined;
  const closeModel = async (graceMs = 0): Promise<void> => {
    await gateway?.close(graceMs);
    await engine.close();
    tokenizer.close();
  };
  const relayed = (): string =>
    gateway === undefined ? "" : `; behind others: ${gateway.served.map(({ names: [name] }) => name).join(", ")}`;
  const making = async () => {
    gateway = await gatewayBeside(parts, registry);
    const beside = gateway;
    return createServer(parts, {
      served: [model, ...(beside?.served ?? [])],
      ...(beside === undefined ? {} : { relay: (serving, stored) => beside.relay(serving, stored, false) }),
      registry,
      observerOf: observers(metrics, served),
      adapters: (models) =>
        loadAdapters({
          settings,
          env: parts.env,
          models,
          base: model,
          modelPath: source.path,
          loader: engine,
          policy: parts.policy,
          record: parts.audit.event,
        }),
      operations: openOperations({ settings, source, engine, record: parts.audit.event }),
    });
  };
  const made = await making().catch(async (error) => {
    await closeModel();
    throw error;
  });
  const description =
    describe(source, engine.model.contextLength, sizing.maxNumSeqs, settings.dataParallelSize) + relayed();
  const width = sizing.maxNumSeqs * settings.dataParallelSize;
  const does = { generates: pooling === undefined, tasks: pooling?.tasks ?? [] };
  return { ...made, names, description, width, ...does, closeModel };
}

/** As the flags say, or `models` in the config file. */
function namesOf(settings: Settings, source: ModelSource): readonly [string, ...string[]] {
  const local = localModel(settings);
  if (local !== undefined) return [local.name, ...local.aliases];
  const [first, ...rest] = settings.servedModelName;
  return [first ?? source.name, ...rest];
}

/** Models of `models` that servers behind this one answer. */
async function gatewayBeside(parts: Parts, registry: Registry): Promise<Gateway | undefined> {
  if (!relays(parts.settings)) return undefined;
  const { openGateway } = await import("./gateway/open.ts");
  return openGateway(parts, registry);
}

function describe({ origin }: ModelSource, contextLength: number, sequences: number, engines: number): string {
  const each = engines > 1 ? ` in each of ${engines} engines` : "";
  return `(${origin}), ${contextLength} tokens a sequence, ${sequences} sequences at once${each}`;
}

/** One observer a model, the same at each call. */
function observers(metrics: VllmMetrics, served: readonly ServedModel[]): Serving["observerOf"] {
  const known = new Map(served.map((model) => [model, metrics.observerOf(model)]));
  return (model) => known.get(model.lora?.base ?? model) ?? metrics.observerOf(model);
}

function openMetrics(
  { settings, launched: { sizing } }: Parts,
  registry: Registry,
  models: () => readonly ServedModel[],
): VllmMetrics {
  return registerMetrics({
    registry,
    contextLength: sizing.contextLength,
    models,
    ...(settings.enableLora ? { maxAdapters: settings.maxLoras } : {}),
    cacheConfig: {
      max_num_seqs: String(sizing.maxNumSeqs),
      max_model_len: String(sizing.contextLength),
      cache_dtype: "f16",
      block_size: String(settings.blockSize),
      num_gpu_blocks: String(sizing.maxNumSeqs * Math.floor(sizing.contextLength / settings.blockSize)),
      enable_prefix_caching: settings.enablePrefixCaching ? "True" : "False",
      prefix_caching_hash_algo: settings.prefixCachingHashAlgo,
    },
  });
}

/** The vocabulary is read while the engine makes its context. */
async function openModel({ source, launched }: Parts): Promise<{ tokenizer: OwnedTokenizer; engine: EngineHandle }> {
  await launched.tried;
  let tokenizer: OwnedTokenizer;
  try {
    tokenizer = openTokenizer({
      modelPath: source.path,
      maxCharacters: launched.sizing.contextLength * CHARACTERS_PER_TOKEN,
    });
  } catch (error) {
    await (await launched.engine).close();
    throw error instanceof PlatformError ? new StartupError(error.message) : error;
  }
  try {
    return { tokenizer, engine: await launched.engine };
  } catch (error) {
    tokenizer.close();
    throw error;
  }
}

function servedModel(
  { settings, source, launched: { pooling } }: Parts,
  names: readonly [string, ...string[]],
  engine: EngineHandle,
  tokenizer: OwnedTokenizer,
): ServedModel {
  const given = chatTemplateText(settings.chatTemplate);
  const chat = given ?? source.facts.chatTemplate;
  const template = modelTemplate(chat);
  const kwargs = templateKwargs(settings.defaultChatTemplateKwargs);
  const scores = pooling?.tasks.includes("score") ? (given ?? source.facts.rerankTemplate) : undefined;
  const pairs = scores === undefined ? undefined : withKwargs(pairTemplate(scores), kwargs);
  return {
    names,
    backend: engine,
    tokenizer,
    template: withKwargs(template, kwargs),
    ...(pairs === undefined ? {} : { pairs }),
    defaults: generationDefaults(settings.overrideGenerationConfig),
    parsers: parsersFor(settings, chat ?? ""),
  };
}

type Kwargs = Readonly<Record<string, unknown>>;

/** The operator's variables under every request's own. */
function withKwargs<I extends { readonly kwargs: Kwargs }, T extends { render(input: I): Rendered }>(
  template: T,
  kwargs: Kwargs,
): T {
  return { ...template, render: (input: I) => template.render({ ...input, kwargs: { ...kwargs, ...input.kwargs } }) };
}
