/**
 * Sizes the model and starts its engines, before the rest of the server is loaded: what takes long begins first.
 *
 * Loads nothing of HTTP, schemas or metrics. Called by serve.ts; compose.ts builds the server around what comes of it.
 */
import { availableParallelism, freemem } from "node:os";
import { resolve } from "node:path";
import type { Log } from "#base/log.ts";
import type { Environment } from "#config/environment.ts";
import type { Settings } from "#config/settings.ts";
import type { PoolingInfo } from "#core/pool.ts";
import { EngineStartError, startEngine } from "#engine/launcher.ts";
import { MAX_PROMPT_ROWS } from "#engine/limits.ts";
import type { KernelInit } from "#engine/messages.ts";
import type { NativeKernelOptions } from "#engine/native/kernel.ts";
import type { NativePoolingOptions } from "#engine/native/pooling-kernel.ts";
import type { EngineHandle, EngineOptions } from "#engine/options.ts";
import type { PrefixCacheOptions } from "#engine/prefix/hash.ts";
import type { SpillOptions } from "#engine/spill/spill.ts";
import type { EngineObserver } from "#serving/metrics.ts";
import { engineEnvironment } from "./engine-environment.ts";
import { checkWeights, type ModelSource } from "./model-source.ts";
import { resolveRunner } from "./runner.ts";
import { fit, fitPooling, fitThreads, type PoolingSizing, withDraft } from "./sizing.ts";
import type { SpeculationPlan } from "./speculation.ts";
import { StartupError } from "./startup-error.ts";

export interface LaunchParts {
  readonly settings: Settings;
  readonly env: Environment;
  readonly source: ModelSource;
  readonly speculation: SpeculationPlan | undefined;
  /** The smaller model of speculative decoding, if it is done by one. */
  readonly draft: ModelSource | undefined;
  readonly log: Log;
}

export interface Launched {
  readonly sizing: PoolingSizing;
  /** Undefined: the model generates. */
  readonly pooling: PoolingInfo | undefined;
  /**
   * An engine has opened the file and tried its vocabulary: what a hostile file does to libllama it does there, and
   * only now may this process read the same (Wall: T22). Rejects as `engine` does.
   */
  readonly tried: Promise<void>;
  /** @throws StartupError (as a rejection) */
  readonly engine: Promise<EngineHandle>;
  /** Who is told of steps from now on. */
  observe(observer: EngineObserver): void;
}

/** The rejections of what it gives are for who waits; nobody has to. @throws StartupError */
export async function launch(parts: LaunchParts): Promise<Launched> {
  const pooling = await poolingOf(parts);
  const sizing = sizeOf(parts, pooling !== undefined);
  let observer: EngineObserver | undefined;
  const { promise: vocabulary, resolve: onTried } = Promise.withResolvers<void>();
  const engine = start(parts, sizing, pooling, {
    onTried,
    onStep: (_gauges, tokens, number) => observer?.step(tokens, number),
    onSequence: (finish, number) => observer?.sequence(finish, number),
  });
  const tried = Promise.race([vocabulary, engine.then(() => {})]);
  tried.catch(() => {});
  const observe = (told: EngineObserver): void => {
    observer = told;
  };
  return { sizing, pooling, tried, engine, observe };
}

async function poolingOf({ settings, source }: LaunchParts): Promise<PoolingInfo | undefined> {
  const { poolerConfig, hfOverrides } = settings;
  if (poolerConfig === undefined && hfOverrides === undefined) return resolveRunner(settings, source.facts, {});
  const { readPooling } = await import("./pooler-config.ts");
  return resolveRunner(settings, source.facts, readPooling(settings));
}

/** Share of the free memory that the KV cache may take when nothing is said. */
const KV_SHARE = 0.4;
function sizeOf({ settings, source: { facts }, draft }: LaunchParts, pooling: boolean): PoolingSizing {
  const { maxModelLen: contextLength, maxNumSeqs, maxNumBatchedTokens } = settings;
  const budget = (settings.kvCacheMemoryBytes ?? freemem() * KV_SHARE) / settings.dataParallelSize;
  const request = { contextLength, maxNumSeqs, maxNumBatchedTokens, budget };
  return pooling
    ? fitPooling(facts, request)
    : { ...fit(withDraft(facts, draft?.facts), request), maxNumBatchedTokens };
}

function nativeOptions(
  { settings, source, speculation }: LaunchParts,
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
  parts: LaunchParts,
  sizing: PoolingSizing,
  pooling: PoolingInfo | undefined,
): NonNullable<EngineOptions["kernelFor"]> {
  return ({ path = parts.source.path, replicas }) => {
    if (path !== parts.source.path) checkWeights(path, parts.source.facts);
    return kernelOf({ ...nativeOptions(parts, sizing, replicas), modelPath: path }, pooling);
  };
}

function start(
  parts: LaunchParts,
  sizing: PoolingSizing,
  pooling: PoolingInfo | undefined,
  hooks: Pick<EngineOptions, "onTried" | "onStep" | "onSequence">,
): Promise<EngineHandle> {
  const { settings, source, env, log } = parts;
  const { facts } = source;
  const kernelFor = kernelMaker(parts, sizing, pooling);
  const replicas = settings.dataParallelSize;
  return startEngine({
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
    ...hooks,
  }).catch((error: unknown) => {
    if (error instanceof EngineStartError) throw new StartupError(`the engine does not start: ${error.message}`);
    throw error;
  });
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
