/**
 * What answers a model: the local engine today, a remote node or an upstream later.
 */
import type { GenerateRequest, GenerationEvent } from "./generate.ts";
import type { ModelInfo } from "./model.ts";
import type { Operations } from "./operations.ts";
import type { PoolRequest, PoolResult } from "./pool.ts";

/** `stalled`: work waits and no step has completed for too long. Only `ready` answers /health with 200. */
export type BackendState = "starting" | "ready" | "stalled" | "restarting" | "stopped";

/** Totals since the backend started, and gauges of now. Token counts in tokens, times in seconds. */
export interface BackendStats {
  readonly running: number;
  readonly waiting: number;
  /** Share of KV cells in use, 0…1. */
  readonly kvUsage: number;
  readonly steps: number;
  readonly promptTokens: number;
  readonly generationTokens: number;
  readonly preemptions: number;
  /** Tokens that were looked up in the prefix cache, and found there. */
  readonly prefixQueries: number;
  readonly prefixHits: number;
  /** Guesses of speculative decoding: sequences that got some, tokens guessed, and those that came true by place. */
  readonly drafts: number;
  readonly draftTokens: number;
  readonly acceptedTokens: readonly number[];
  readonly restarts: number;
  /** Adapters that are asked for; absent where there are none. */
  readonly adapters?: AdaptersInUse;
}

/** Of a backend that has done nothing. */
export const NO_STATS: BackendStats = Object.freeze({
  running: 0,
  waiting: 0,
  kvUsage: 0,
  steps: 0,
  promptTokens: 0,
  generationTokens: 0,
  preemptions: 0,
  prefixQueries: 0,
  prefixHits: 0,
  drafts: 0,
  draftTokens: 0,
  acceptedTokens: [],
  restarts: 0,
});

/** Names as in AdapterReference: of those with a sequence that runs, and of those with one that waits. */
export interface AdaptersInUse {
  readonly running: readonly string[];
  readonly waiting: readonly string[];
}

/** One of the engines of a backend. */
export interface EngineStatus {
  /** Its number: vLLM's label `engine`. */
  readonly engine: number;
  /** `stopped`: it was taken away; its totals stay. */
  readonly state: BackendState;
  readonly stats: BackendStats;
}

/** Times of one finished sequence, for the histograms. Seconds; queue + prefill + decode = inference + queue. */
export interface SequenceTimings {
  readonly queue: number;
  readonly prefill: number;
  readonly decode: number;
}

export interface Backend {
  readonly model: ModelInfo;
  /**
   * Runs one request. The iterable is pulled: when the consumer is slow the sequences pause, nothing piles up.
   * Aborting the signal frees the sequences within one step and ends the iterable.
   * @throws Fault overloaded | engine_unavailable | engine_failed | draining
   */
  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerationEvent>;
  /**
   * Computes the numbers of one request's inputs, in company with other requests'. Aborting the signal drops what has
   * not been computed and rejects at once.
   * @throws Fault invalid_request | overloaded | engine_unavailable | engine_failed | draining | cancelled
   */
  pool(request: PoolRequest, signal: AbortSignal): Promise<PoolResult>;
  /** `ready` while one engine is, paused and asleep ones included. */
  state(): BackendState;
  stats(): BackendStats;
  /** By number, ascending. Absent where there is only one and `stats` says all. */
  engines?(): readonly EngineStatus[];
  /** Sequences held back because the backend is paused; they count as waiting in `stats`. */
  held?(): number;
  /** Requests that moved to another engine because theirs was lost. */
  moved?(): number;
  /** Absent where there is nothing to operate. */
  readonly operations?: Operations;
  /** Ends the backend; running sequences fail with `draining`. Idempotent. */
  close(): Promise<void>;
}
