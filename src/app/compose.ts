/**
 * Builds the server out of its parts: the one place that constructs. Nothing listens yet.
 */
import { availableParallelism, freemem } from "node:os";
import { resolve } from "node:path";
import type { Log } from "#base/log.ts";
import { printMetrics, type Registry } from "#base/metrics.ts";
import type { Environment } from "#config/resolve.ts";
import { capSettingOf, type Settings } from "#config/settings.ts";
import type { PoolingInfo } from "#core/pool.ts";
import { capsOf } from "#core/request-caps.ts";
import { EngineStartError, startEngine } from "#engine/launcher.ts";
import { MAX_PROMPT_ROWS } from "#engine/limits.ts";
import type { KernelInit } from "#engine/messages.ts";
import type { NativeKernelOptions } from "#engine/native/kernel.ts";
import { PlatformError } from "#engine/native/locate.ts";
import type { NativePoolingOptions } from "#engine/native/pooling-kernel.ts";
import { type OwnedTokenizer, openTokenizer } from "#engine/native/tokenizer.ts";
import type { EngineHandle, EngineOptions } from "#engine/options.ts";
import type { PrefixCacheOptions } from "#engine/prefix/hash.ts";
import type { SpillOptions } from "#engine/spill/spill.ts";
import { createHttp, type Http } from "#http/server.ts";
import type { FindClient } from "#policy/client-address.ts";
import type { Gate } from "#policy/gate.ts";
import { GrammarCompiler } from "#prompt/grammar/compiler.ts";
import { type ChatTemplate, modelTemplate } from "#prompt/template.ts";
import { routes, type Services } from "#routes/index.ts";
import { registerHttpMetrics } from "#serving/http-metrics.ts";
import { registerMetrics, type VllmMetrics } from "#serving/metrics.ts";
import { Models, type ServedModel } from "#serving/models.ts";
import { outputMaker } from "#serving/output.ts";
import { openai } from "#wire/openai/dialect.ts";
import { generationDefaults, templateKwargs } from "./generation-config.ts";
import { loadAdapters } from "./lora.ts";
import { chatTemplateText, checkWeights, type ModelSource } from "./model-source.ts";
import { version } from "./paths.ts";
import { resolveRunner } from "./runner.ts";
import { fit, fitPooling, fitThreads, type PoolingSizing, type Sizing } from "./sizing.ts";
import { type SpeculationPlan, withDraft } from "./speculation.ts";
import { StartupError } from "./startup-error.ts";

export interface Server {
  readonly http: Http;
  readonly engine: EngineHandle;
  readonly sizing: Sizing;
  readonly names: readonly string[];
  /** False: the model is run for numbers. */
  readonly generates: boolean;
  /** /health says 503 from now on. */
  stopAccepting(): void;
  /** Engine and tokenizer; after http is closed. */
  closeModel(): Promise<void>;
}

export interface Parts {
  readonly settings: Settings;
  readonly env: Environment;
  readonly source: ModelSource;
  readonly speculation: SpeculationPlan | undefined;
  /** The smaller model of speculative decoding, if it is done by one. */
  readonly draft: ModelSource | undefined;
  readonly gate: Gate;
  readonly registry: Registry;
  readonly client: FindClient;
  readonly log: Log;
}

/** Share of the free memory that the KV cache may take when nothing is said. */
const KV_SHARE = 0.4;
/** Prompt text beyond so many characters a token of the window is refused unread: no real text is that dense. */
const CHARACTERS_PER_TOKEN = 16;
/** What a GPU or a library path needs; everything else of the environment stays here. */
const ENGINE_VARIABLES = [
  "PATH",
  "LD_LIBRARY_PATH",
  "CUDA_VISIBLE_DEVICES",
  "HIP_VISIBLE_DEVICES",
  "GGML_VK_VISIBLE_DEVICES",
  "OMP_NUM_THREADS",
];

/** @throws StartupError | what the parts throw for people to read */
export async function compose(parts: Parts): Promise<Server> {
  const { settings, source } = parts;
  const pooling = resolveRunner(settings, source.facts);
  const sizing = sizeOf(parts, pooling !== undefined);
  const names: [string, ...string[]] = [
    settings.servedModelName[0] ?? source.name,
    ...settings.servedModelName.slice(1),
  ];
  const { registry } = parts;
  const served: ServedModel[] = [];
  const metrics = registerMetrics({
    registry,
    contextLength: sizing.contextLength,
    models: () => served,
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
  // The engine first: what a hostile file does to libllama it does there, and this process only reads what was read.
  const engine = await launch(parts, sizing, pooling, metrics, names[0]);
  const tokenizer = await openModelTokenizer(source, sizing).catch(async (error) => {
    await engine.close();
    throw error;
  });
  const template = modelTemplate(chatTemplateText(settings.chatTemplate) ?? source.facts.chatTemplate);
  served.push(servedModel(settings, names, engine, tokenizer, template));
  let accepting = true;
  const http = await createServer(parts, {
    engine,
    served,
    metrics,
    accepting: () => accepting,
    print: async () => (await printMetrics(registry)).body,
    observe: registerHttpMetrics(registry),
  }).catch(async (error) => {
    await engine.close();
    tokenizer.close();
    throw error;
  });
  return {
    http,
    engine,
    sizing: { ...sizing, contextLength: engine.model.contextLength },
    names,
    generates: pooling === undefined,
    stopAccepting: () => {
      accepting = false;
    },
    closeModel: async () => {
      await engine.close();
      tokenizer.close();
    },
  };
}

async function openModelTokenizer(source: ModelSource, sizing: Sizing): Promise<OwnedTokenizer> {
  try {
    return openTokenizer({ modelPath: source.path, maxCharacters: sizing.contextLength * CHARACTERS_PER_TOKEN });
  } catch (error) {
    if (error instanceof PlatformError) throw new StartupError(error.message);
    throw error;
  }
}

function sizeOf({ settings, source: { facts }, draft }: Parts, pooling: boolean): PoolingSizing {
  const { maxModelLen: contextLength, maxNumSeqs, maxNumBatchedTokens } = settings;
  const budget = (settings.kvCacheMemoryBytes ?? freemem() * KV_SHARE) / settings.dataParallelSize;
  const request = { contextLength, maxNumSeqs, maxNumBatchedTokens, budget };
  return pooling
    ? fitPooling(facts, request)
    : { ...fit(withDraft(facts, draft?.facts), request), maxNumBatchedTokens };
}

function nativeOptions(
  { settings, source, speculation }: Parts,
  sizing: PoolingSizing,
  replicas: number,
): NativeKernelOptions {
  return {
    modelPath: source.path,
    contextPerSlot: sizing.contextLength,
    maxSequences: sizing.maxNumSeqs,
    maxBatchTokens: sizing.maxNumBatchedTokens,
    maxRows: sizing.maxNumSeqs * (1 + (speculation?.options.tokens ?? 0)) + MAX_PROMPT_ROWS,
    threads: fitThreads(source.facts, settings.threads, availableParallelism(), replicas),
    device: settings.device,
    ...(settings.batchInvariant ? {} : { inCompany: true }),
    ...(settings.gpuLayers === undefined ? {} : { gpuLayers: settings.gpuLayers }),
    ...(settings.tensorSplit.length === 0 ? {} : { tensorSplit: settings.tensorSplit }),
    ...(settings.enableLora ? { maxLoraRank: settings.maxLoraRank } : {}),
  };
}

function kernelOf(options: NativeKernelOptions, pooling: PoolingInfo | undefined): KernelInit {
  if (pooling === undefined) return { kernel: "native", options };
  return { kernel: "native-pooling", options: { ...options, type: pooling.type } satisfies NativePoolingOptions };
}

/** Other weights are judged by their header here, before any engine lets go of the present ones. */
function kernelMaker(
  parts: Parts,
  sizing: PoolingSizing,
  pooling: PoolingInfo | undefined,
): NonNullable<EngineOptions["kernelFor"]> {
  return ({ path = parts.source.path, replicas }) => {
    if (path !== parts.source.path) checkWeights(path, parts.source.facts);
    return kernelOf({ ...nativeOptions(parts, sizing, replicas), modelPath: path }, pooling);
  };
}

async function launch(
  parts: Parts,
  sizing: PoolingSizing,
  pooling: PoolingInfo | undefined,
  metrics: VllmMetrics,
  name: string,
): Promise<EngineHandle> {
  const { settings, source, env, log } = parts;
  const observer = metrics.engineObserver(name);
  const { facts } = source;
  const kernelFor = kernelMaker(parts, sizing, pooling);
  const replicas = settings.dataParallelSize;
  try {
    return await startEngine({
      kernel: kernelFor({ replicas }),
      kernelFor,
      replicas,
      model: {
        architecture: facts.architecture,
        ...(facts.title === undefined ? {} : { title: facts.title }),
        contextLength: sizing.contextLength,
        trainedContext: facts.trainedContext,
        vocabularySize: facts.vocabularySize,
        ...(facts.chatTemplate === undefined ? {} : { chatTemplate: facts.chatTemplate }),
        parameters: facts.parameters,
        createdAt: Math.floor(Date.now() / 1000),
        ...(pooling === undefined ? {} : { pooling }),
      },
      contextLength: sizing.contextLength,
      maxNumSeqs: sizing.maxNumSeqs,
      maxNumBatchedTokens: sizing.maxNumBatchedTokens,
      maxNumQueuedReqs: settings.maxNumQueuedReqs,
      schedulingPolicy: settings.schedulingPolicy,
      maxPromptTokens: settings.maxNumPrefillTokens,
      maxAdapters: settings.maxLoras,
      ...spillOptions(settings),
      ...(parts.speculation === undefined ? {} : { speculation: parts.speculation.options }),
      ...(parts.draft === undefined
        ? {}
        : { draft: { kernel: "native", options: draftOptions(nativeOptions(parts, sizing, replicas), parts.draft) } }),
      prefixCache: prefixCache(settings),
      startTimeoutMs: settings.engineStartTimeout * 1000,
      stallAfterMs: settings.engineStallTimeout * 1000,
      killAfterMs: settings.engineKillTimeout * 1000,
      env: engineEnvironment(env),
      log,
      onStep: (_gauges, tokens, engine) => observer.step(tokens, engine),
      onSequence: (finish, engine) => observer.sequence(finish, engine),
    });
  } catch (error) {
    if (error instanceof EngineStartError) throw new StartupError(`the engine does not start: ${error.message}`);
    throw error;
  }
}

/** Each engine has a part of the room to itself. */
function spillOptions({ kvSpillDir, kvSpillBytes, dataParallelSize }: Settings): { spill?: SpillOptions } {
  if (kvSpillDir === undefined) return {};
  return { spill: { directory: resolve(kvSpillDir), maxBytes: Math.floor(kvSpillBytes / dataParallelSize) } };
}

/** The draft model reads what the model reads, in as many slots; it has no adapters. */
function draftOptions({ maxLoraRank: _, ...options }: NativeKernelOptions, draft: ModelSource): NativeKernelOptions {
  const contextPerSlot = Math.min(options.contextPerSlot, draft.facts.trainedContext);
  return { ...options, modelPath: draft.path, contextPerSlot };
}

function prefixCache(settings: Settings): PrefixCacheOptions {
  const { prefixCachingHashSeed: seed, prefixCachingHashAlgo: algorithm, blockSize } = settings;
  return {
    enabled: settings.enablePrefixCaching,
    algorithm,
    blockSize,
    reuseGenerated: settings.prefixCachingGenerated || !settings.batchInvariant,
    ...(seed === undefined ? {} : { seed }),
  };
}

function engineEnvironment(env: Environment): Record<string, string> {
  const passed = ENGINE_VARIABLES.map((name) => [name, env[name]] as const).filter(
    (entry): entry is readonly [string, string] => entry[1] !== undefined,
  );
  return Object.fromEntries(passed);
}

function servedModel(
  settings: Settings,
  names: readonly [string, ...string[]],
  engine: EngineHandle,
  tokenizer: OwnedTokenizer,
  template: ChatTemplate,
): ServedModel {
  const kwargs = templateKwargs(settings.defaultChatTemplateKwargs);
  return {
    names,
    backend: engine,
    tokenizer,
    template: { ...template, render: (input) => template.render({ ...input, kwargs: { ...kwargs, ...input.kwargs } }) },
    defaults: generationDefaults(settings.overrideGenerationConfig),
    parsers: {
      reasoning: settings.reasoningParser === "auto" ? template.mentionsThinking : settings.reasoningParser !== "none",
      tools: settings.enableAutoToolChoice && settings.toolCallParser !== "none",
      holdCalls: settings.holdToolCalls,
    },
  };
}

interface Inner {
  readonly engine: EngineHandle;
  readonly served: readonly ServedModel[];
  readonly metrics: VllmMetrics;
  readonly accepting: () => boolean;
  readonly print: () => Promise<string>;
  readonly observe: ReturnType<typeof registerHttpMetrics>;
}

async function createServer({ settings, gate, client, log }: Parts, inner: Inner): Promise<Http> {
  const [first, ...rest] = inner.served;
  if (first === undefined) throw new StartupError("no model is served");
  const models = new Models([first, ...rest]);
  const observers = new Map(inner.served.map((model) => [model, inner.metrics.observerOf(model)]));
  let load = (): number => 0;
  const caps = capsOf((_row, name) => settings[capSettingOf(name)]);
  const services: Services = {
    serving: {
      models,
      caps,
      priorities: settings.schedulingPolicy === "priority",
      makeOutput: outputMaker(settings.reasoningParser === "deepseek_r1" ? "deepseek_r1" : "qwen3"),
      grammars: new GrammarCompiler(),
      observerOf: (model) => observers.get(model.lora?.base ?? model) ?? inner.metrics.observerOf(model),
      shareOf: (tenant) => ({ key: tenant, weight: settings.tenantWeights.get(tenant) ?? 1 }),
    },
    adapters: await loadAdapters(settings, models, first, inner.engine),
    caps,
    usage: { cachedTokens: settings.enablePromptTokensDetails, always: settings.enableForceIncludeUsage },
    tokensAsIds: settings.returnTokensAsTokenIds,
    version: version(),
    load: () => load(),
    metrics: inner.print,
    accepting: inner.accepting,
  };
  const http = await createHttp({
    routes: routes.filter(
      ({ switchedBy }) => switchedBy === undefined || (settings.enableLora && settings[switchedBy]),
    ),
    services,
    gate,
    client,
    dialect: openai,
    options: {
      maxBodyBytes: settings.maxBodyBytes,
      maxTimeoutMs: settings.requestTimeout * 1000,
      requestIdHeader: settings.enableRequestIdHeaders,
      stallTimeoutMs: settings.streamStallTimeout * 1000,
      sseKeepAliveMs: settings.sseKeepAliveInterval * 1000,
      maxConnections: settings.maxConnections,
      accessLog: !settings.disableAccessLog,
    },
    observer: inner.observe,
    log,
  });
  // The call that asks for the load is one of the calls, and no load.
  if (settings.enableServerLoadTracking) load = () => Math.max(0, http.counters().calls - 1);
  return http;
}
