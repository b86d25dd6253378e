/**
 * What serving tells to whoever measures: one observer a model, and nothing about who called or what was said.
 * `engine` is the number of the engine that did the work; 0 where none had begun.
 */
import type { FinishReason } from "#core/generate.ts";

export interface FinishedChoice {
  readonly reason: FinishReason;
  readonly engine: number;
  /** Seconds from the call's arrival. */
  readonly latency: number;
  readonly promptTokens: number;
  /** Those of the prompt that were found computed. */
  readonly cachedTokens: number;
  readonly generationTokens: number;
  /** Its budget. */
  readonly maxTokens: number;
  /** Mean seconds between tokens after the first; absent with fewer than two. */
  readonly perToken?: number;
}

export interface ServingObserver {
  /** Once a call that has ended. @param longest tokens of its longest choice */
  call(n: number, longest: number, engine: number): void;
  /** Seconds from the call's arrival to the choice's first token. */
  firstToken(seconds: number, engine: number): void;
  /** Seconds between two deltas of one choice. */
  interToken(seconds: number, engine: number): void;
  finished(choice: FinishedChoice): void;
  /** An input whose numbers were computed, or were not. @param latency seconds from the call's arrival */
  pooled(reason: FinishReason, promptTokens: number, latency: number): void;
}

export const NO_OBSERVER: ServingObserver = {
  call: () => {},
  firstToken: () => {},
  interToken: () => {},
  finished: () => {},
  pooled: () => {},
};
