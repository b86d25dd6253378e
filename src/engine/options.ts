/**
 * What the app tells the engine's supervisor, and what it gets back.
 */
import type { Backend, EngineStatus } from "#core/backend.ts";
import type { ModelInfo } from "#core/model.ts";
import type { Operations } from "#core/operations.ts";
import type { EngineLimits } from "./engine.ts";
import type { LaunchOptions } from "./launcher.ts";
import { limitsOf } from "./limits.ts";
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
  /** Engine processes at the start, 1…64 (vLLM's --data-parallel-size). Default 1. */
  readonly replicas?: number;
  /**
   * The kernel for other weights or another number of engines; absent: no other weights, and always the first kernel.
   * May refuse by throwing an Error whose message is for the operator.
   */
  readonly kernelFor?: (wanted: { readonly path?: string; readonly replicas: number }) => KernelInit;
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
  /** An engine process has opened the model and tried its vocabulary; its context may still be in the making. */
  readonly onTried?: () => void;
  /** After each step: gauges, the tokens it dealt with (of prompts and of answers), and the engine's number. */
  readonly onStep?: (gauges: EngineGauges, tokens: number, engine: number) => void;
  /** After each finished sequence. */
  readonly onSequence?: (finish: FinishReport, engine: number) => void;
}

/** What the engine holds open, for leak tests; all zero when idle (and `timers` after close). */
export interface EngineCounters {
  readonly requests: number;
  readonly sequences: number;
  readonly paused: number;
  readonly timers: number;
}

export interface EngineHandle extends Backend {
  readonly operations: Operations;
  engines(): readonly EngineStatus[];
  held(): number;
  moved(): number;
  /**
   * Loads a LoRA adapter under a number that was never used (≥ 1); kept over restarts.
   * @throws Fault invalid_request with the reason | engine_failed | engine_unavailable | draining
   */
  loadAdapter(adapter: number, path: string): Promise<void>;
  /** Takes no new requests for it; those that use it go on to their end. */
  unloadAdapter(adapter: number): void;
  counters(): EngineCounters;
  /** The first engine's process, while there is one. */
  readonly pid: number | undefined;
  /** By engine number; undefined: being started again. */
  readonly pids: readonly (number | undefined)[];
}

/** What a process is started with. */
export function launchOptions(options: EngineOptions, kernel: KernelInit, startTimeoutMs: number): LaunchOptions {
  const { draft, env, execArgv, log } = options;
  return {
    kernel,
    ...(draft === undefined ? {} : { draft }),
    limits: limitsOf(options),
    startTimeoutMs,
    ...(env === undefined ? {} : { env }),
    ...(execArgv === undefined ? {} : { execArgv }),
    ...(log === undefined ? {} : { log }),
  };
}
