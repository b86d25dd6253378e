/**
 * What serving tells to whoever measures: one observer a model, and nothing about who called or what was said.
 */
import type { FinishReason } from "#core/generate.ts";

export interface FinishedChoice {
  readonly reason: FinishReason;
  /** Seconds from the call's arrival. */
  readonly latency: number;
  readonly promptTokens: number;
  readonly generationTokens: number;
  /** Mean seconds between tokens after the first; absent with fewer than two. */
  readonly perToken?: number;
}

export interface ServingObserver {
  /** Once a call that was admitted. Tokens of the largest budget. */
  call(n: number, maxTokens: number): void;
  /** Seconds from the call's arrival to the choice's first token. */
  firstToken(seconds: number): void;
  /** Seconds between two deltas of one choice. */
  interToken(seconds: number): void;
  finished(choice: FinishedChoice): void;
}

export const NO_OBSERVER: ServingObserver = {
  call: () => {},
  firstToken: () => {},
  interToken: () => {},
  finished: () => {},
};
