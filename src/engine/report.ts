/**
 * What one step says to the outside: plain data, one value a step. messages.ts packs it for the process border.
 *
 * Reading order matters: prompts before tokens before finishes before failures.
 */
import { type BackendStats, NO_STATS } from "#core/backend.ts";
import type { FinishReason, PositionLogprobs } from "#core/generate.ts";
import type { PooledReport } from "./pooling/submission.ts";
import type { Sequence } from "./sequence.ts";

/** A request's prompt is computed; said once, before its first token. */
export interface PromptReport {
  readonly request: number;
  readonly cachedTokens: number;
  readonly logprobs?: readonly (PositionLogprobs | null)[];
}

export interface TokenReport {
  readonly request: number;
  readonly sample: number;
  readonly token: number;
  readonly logprobs?: PositionLogprobs;
}

/** Times in seconds; see SequenceTimings in core/backend.ts. */
export interface FinishReport {
  readonly request: number;
  readonly sample: number;
  readonly reason: FinishReason;
  readonly stopToken?: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly queue: number;
  readonly prefill: number;
  readonly decode: number;
}

/** `engine_failed`: the model or kernel; `invalid_request`: the request's own parameters left nothing to do. */
export const FAILURE_KINDS = ["engine_failed", "invalid_request"] as const;
export type FailureKind = (typeof FAILURE_KINDS)[number];

/** The whole request fails, all samples. The message may reach the client. */
export interface FailureReport {
  readonly request: number;
  readonly kind: FailureKind;
  readonly message: string;
  /** For the log only. */
  readonly detail?: string;
}

/** Gauges of now and totals since the engine opened. Token counts in tokens. */
export type EngineGauges = Omit<BackendStats, "restarts">;

const { restarts: _, ...gauges } = NO_STATS;
/** Of an engine that has done nothing. */
export const NO_GAUGES: EngineGauges = gauges;

export interface StepReport {
  readonly prompts: PromptReport[];
  readonly tokens: TokenReport[];
  readonly finishes: FinishReport[];
  readonly failures: FailureReport[];
  /** Pooling models only: sequences whose numbers are there. */
  readonly pooled: PooledReport[];
}

export function emptyReport(): StepReport {
  return { prompts: [], tokens: [], finishes: [], failures: [], pooled: [] };
}

/** What a finished sequence took. @param now seconds */
export function accountOf(
  { request, sample, prompt, output, clock }: Sequence,
  now: number,
): Omit<FinishReport, "reason"> {
  return {
    request,
    sample,
    promptTokens: prompt.length,
    outputTokens: output.length,
    queue: clock.admitted - clock.arrived,
    prefill: clock.firstToken - clock.admitted,
    decode: now - clock.firstToken,
  };
}
