/**
 * What the app tells the engine's supervisor, and what it gets back.
 */
import type { Backend } from "#core/backend.ts";
import type { ModelInfo } from "#core/model.ts";
import type { EngineLimits } from "./engine.ts";
import type { GeneratingInit, KernelInit } from "./messages.ts";
import type { EngineGauges, FinishReport } from "./report.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFunction = (level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>) => void;

export interface EngineOptions extends EngineLimits {
  /** Facts from the GGUF header; contextLength is lowered to what the kernel can hold. */
  readonly model: ModelInfo;
  readonly kernel: KernelInit;
  /** The smaller model of speculative decoding by one. */
  readonly draft?: GeneratingInit;
  /**
   * Sequences open at once, waiting or running, a request of n samples counting n (vLLM's --max-num-queued-reqs);
   * one more is refused with `overloaded`. Default 1024.
   */
  readonly maxNumQueuedReqs?: number;
  /** Default 120,000. */
  readonly startTimeoutMs?: number;
  /** Without a step for so long while work is runnable, the state is `stalled`. Default 30,000. */
  readonly stallAfterMs?: number;
  /** Stalled for so long, the process is killed and started again. Default 90,000. */
  readonly killAfterMs?: number;
  /** How long close() lets the process end by itself. Default 5,000. */
  readonly closeAfterMs?: number;
  /** First pause before a restart, doubled up to 30,000 with jitter. Default 250. */
  readonly restartAfterMs?: number;
  /** The engine process's whole environment; nothing of the parent's is passed on. Default empty. */
  readonly env?: Readonly<Record<string, string>>;
  readonly execArgv?: readonly string[];
  readonly log?: LogFunction;
  /** After each step: gauges and the number of tokens it brought. */
  readonly onStep?: (gauges: EngineGauges, tokens: number) => void;
  /** After each finished sequence. */
  readonly onSequence?: (finish: FinishReport) => void;
}

/** What the engine holds open, for leak tests; all zero when idle (and `timers` after close). */
export interface EngineCounters {
  readonly requests: number;
  readonly sequences: number;
  readonly paused: number;
  readonly timers: number;
}

export interface EngineHandle extends Backend {
  /**
   * Loads a LoRA adapter under a number that was never used (≥ 1); kept over restarts.
   * @throws Fault invalid_request with the reason | engine_failed | engine_unavailable | draining
   */
  loadAdapter(adapter: number, path: string): Promise<void>;
  /** Takes no new requests for it; those that use it go on to their end. */
  unloadAdapter(adapter: number): void;
  counters(): EngineCounters;
  /** The engine process, while there is one. */
  readonly pid: number | undefined;
}
