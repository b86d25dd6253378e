/**
 * What an operator may ask of a backend while it serves. Who may is decided elsewhere: whoever holds this may.
 *
 * Pausing closes the door, in every mode: requests that come are held and start in their order at resume. They count
 * as open ones, so that the queue stays bounded. Semantics and words are vLLM's (vllm/v1/engine/core.py).
 */
import type { StepTrace } from "./trace.ts";

/**
 * What becomes of the requests that are open: `abort` ends them with finish reason `abort`; `wait` lets them finish;
 * `keep` freezes them between two steps, and they go on at resume.
 */
export const PAUSE_MODES = ["abort", "wait", "keep"] as const;
export type PauseMode = (typeof PAUSE_MODES)[number];

/** What wake() may bring back; memory is taken once both of the first two were asked for, in one call or several. */
export const WAKE_TAGS = ["weights", "kv_cache", "scheduling"] as const;
export type WakeTag = (typeof WAKE_TAGS)[number];

/** `weights_offloaded` is level 1, `discard_all` level 2. Here both give all memory back and read the file at wake. */
export type SleepState = "awake" | "weights_offloaded" | "discard_all";

export interface Operations {
  /**
   * Resolves when the mode has been carried out: nothing runs, or, for `wait`, when resume() came first.
   * @param clearCache forget all prefixes too; what `keep` froze is computed again at resume
   * @throws Fault invalid_request for `wait` while asleep: nothing can finish
   */
  pause(mode: PauseMode, clearCache: boolean): Promise<void>;
  /** @throws Fault invalid_request while asleep */
  resume(): Promise<void>;
  isPaused(): boolean;
  /**
   * Pauses and gives memory back: level 0 nothing, 1 and 2 the KV cache and the weights. Requests that come are held.
   * @throws Fault invalid_request when resume() or wake() came before the requests had finished
   */
  sleep(level: 0 | 1 | 2, mode: PauseMode): Promise<void>;
  /** @param tags absent: all. @throws Fault engine_unavailable when no engine could read its weights again */
  wake(tags?: readonly WakeTag[]): Promise<void>;
  /** Also true while only paused, as in vLLM. */
  isSleeping(): boolean;
  sleepState(): SleepState;
  /**
   * @param runningRequests send what runs back to the queue first, to be computed again
   * @returns false: something runs, and an engine where it does has kept its prefixes
   */
  resetPrefixCache(runningRequests: boolean): Promise<boolean>;
  /**
   * Ends open requests with finish reason `abort`, by the ids of GenerateRequest: its own or its call's.
   * @returns how many requests there were
   */
  abort(ids: readonly string[]): number;
  /** The same for the calls (GenerateRequest.callId) that are meant. */
  abortCalls(meant: (callId: string) => boolean): number;
  /**
   * Sets the number of engines, 1…64. One that goes away takes nothing new and finishes what it has. What is left after
   * `drainTimeoutMs`: with `stay` nothing goes away, and it goes on where it is; with `end` what has not begun to answer
   * moves to another engine, and the rest fails with `engine_failed`.
   * @throws Fault invalid_request | engine_unavailable (a new engine did not start) | request_timeout (with `stay`); the
   *   number is what it was
   */
  scale(engines: number, drainTimeoutMs: number, late?: "end" | "stay"): Promise<void>;
  /** Engines that wait before they are started again start now; those that make no steps are ended first. */
  restartNow(): void;
  readonly engineCount: number;
  /**
   * Other weights of the same shape and vocabulary take the place of the present ones between two steps. Prefixes are
   * forgotten; requests go on with the new weights (`keep`) or end (`abort`). What was paused stays paused.
   * @throws Fault invalid_request: the file is refused, and the old weights serve on
   */
  reload(path: string, mode: "keep" | "abort"): Promise<void>;
  /** Records the steps from now on, the last `steps` of them; starts afresh when it already does. */
  startProfile(steps?: number): Promise<void>;
  /** Empty when nothing was recorded. */
  stopProfile(): Promise<StepTrace>;
}
