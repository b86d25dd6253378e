/**
 * Operations that do nothing but remember, and end when a test says so. Tests only.
 */
import { type EngineStatus, NO_STATS } from "#core/backend.ts";
import type { Operations, PauseMode, SleepState, WakeTag } from "#core/operations.ts";
import type { StepTrace } from "#core/trace.ts";
import { type LineOptions, OperationLine } from "./operation-line.ts";
import { EngineOperations } from "./operations.ts";
import { Profiles, type ProfilesOptions } from "./profiles.ts";
import { ServerInfo } from "./server-info.ts";
import type { ServerOperations } from "./server-operations.ts";
import { Supervision } from "./supervision.ts";
import { WeightUpdates, type WeightUpdatesOptions } from "./weights.ts";

const NO_STEPS: StepTrace = { traceEvents: [], displayTimeUnit: "ms" };

export class FakeOperations implements Operations {
  /** What was asked for, in order. */
  readonly asked: string[] = [];
  /** Ids of calls that are open. */
  readonly calls = new Set<string>();
  /** Work of these names waits for the promise, or fails. */
  readonly waits = new Map<string, Promise<void> | Error>();
  paused = false;
  sleeping: SleepState = "awake";
  engineCount = 1;

  async pause(mode: PauseMode, clearCache: boolean): Promise<void> {
    this.paused = true;
    await this.#do("pause", mode, clearCache);
  }

  async resume(): Promise<void> {
    await this.#do("resume");
    this.paused = false;
  }

  isPaused(): boolean {
    return this.paused;
  }

  async sleep(level: 0 | 1 | 2, mode: PauseMode): Promise<void> {
    await this.#do("sleep", level, mode);
    this.sleeping = level === 0 ? "awake" : level === 1 ? "weights_offloaded" : "discard_all";
  }

  async wake(tags?: readonly WakeTag[]): Promise<void> {
    await this.#do("wake", ...(tags ?? []));
    this.sleeping = "awake";
  }

  isSleeping(): boolean {
    return this.paused || this.sleeping !== "awake";
  }

  sleepState(): SleepState {
    return this.sleeping;
  }

  async resetPrefixCache(runningRequests: boolean): Promise<boolean> {
    await this.#do("reset", runningRequests);
    return true;
  }

  abort(ids: readonly string[]): number {
    return ids.length;
  }

  abortCalls(meant: (callId: string) => boolean): number {
    const ended = [...this.calls].filter(meant);
    for (const id of ended) this.calls.delete(id);
    return ended.length;
  }

  async scale(engines: number, drainTimeoutMs: number, late?: "end" | "stay"): Promise<void> {
    await this.#do("scale", engines, drainTimeoutMs, late ?? "end");
    this.engineCount = engines;
  }

  restartNow(): void {
    this.asked.push("restart");
  }

  async reload(path: string, mode: "keep" | "abort"): Promise<void> {
    await this.#do("reload", path, mode);
  }

  async startProfile(): Promise<void> {
    await this.#do("start-profile");
  }

  async stopProfile(): Promise<StepTrace> {
    await this.#do("stop-profile");
    return NO_STEPS;
  }

  async #do(...words: readonly [string, ...unknown[]]): Promise<void> {
    this.asked.push(words.join(" "));
    const wait = this.waits.get(words[0]);
    if (wait instanceof Error) throw wait;
    await wait;
  }
}

/** One engine that serves. */
export const ONE_ENGINE: readonly EngineStatus[] = [{ engine: 0, state: "ready", stats: NO_STATS }];

export interface FakeParts {
  readonly operations?: Operations;
  readonly line?: LineOptions;
  readonly engines?: () => readonly EngineStatus[];
  readonly weights?: Partial<Pick<WeightUpdatesOptions, "judge" | "record" | "waitMs">>;
  readonly profiles?: Partial<Omit<ProfilesOptions, "operations">>;
}

/** Weights are taken from any path, and profiles go nowhere, unless a test says otherwise. */
export function fakeServerOperations(parts: FakeParts = {}): ServerOperations {
  const { operations = new FakeOperations(), engines = () => ONE_ENGINE } = parts;
  const line = new OperationLine(parts.line);
  return {
    engine: new EngineOperations({ operations, engines, line }),
    weights: new WeightUpdates({
      operations,
      line,
      judge: async (path, sha256) => ({ path, sha256, bytes: 1, unchanged: () => true }),
      record: async () => {},
      ...parts.weights,
    }),
    profiles: new Profiles({
      operations,
      cpu: { start: async () => {}, stop: async () => ({ nodes: [] }) },
      folder: { ready: async () => {}, write: async () => {} },
      maxSeconds: 60,
      maxBytes: 1000,
      ...parts.profiles,
    }),
    supervision: new Supervision({ operations, engines, line }),
    info: new ServerInfo({ settings: { port: 8000 }, system: {}, operations, engines }),
  };
}
