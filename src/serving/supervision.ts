/**
 * Fault tolerance as operators see it: how each engine is, and what is done about one that has failed.
 *
 * Engines are started again without being asked (engine/supervisor.ts); an operator may hold the work back meanwhile, and
 * may have them start at once instead of after a pause. Made by the app.
 */
import type { BackendState, EngineStatus } from "#core/backend.ts";
import { Fault } from "#core/fault.ts";
import type { Operations } from "#core/operations.ts";
import type { Grant } from "#core/principal.ts";
import type { OperationLine } from "./operation-line.ts";

export interface SupervisionOptions {
  readonly operations: Operations;
  readonly engines: () => readonly EngineStatus[];
  readonly line: OperationLine;
}

export interface EngineHealth {
  readonly engine: number;
  readonly state: BackendState;
  readonly restarts: number;
}

export const INSTRUCTIONS = ["pause", "retry"] as const;
export type Instruction = (typeof INSTRUCTIONS)[number];

const LOOK_EVERY_MS = 50;

export class Supervision {
  readonly #options: SupervisionOptions;

  constructor(options: SupervisionOptions) {
    this.#options = options;
  }

  status(_grant: Grant<"ops">): readonly EngineHealth[] {
    return this.#options.engines().map(({ engine, state, stats: { restarts } }) => ({ engine, state, restarts }));
  }

  /**
   * `pause` freezes what runs and holds what comes; `retry` starts engines that are down now, and goes on once one serves.
   * @throws Fault request_timeout: not done in time; what was held is held | invalid_request: asleep | overloaded
   */
  async apply(_grant: Grant<"ops">, instruction: Instruction, timeoutMs: number): Promise<void> {
    const { line, operations } = this.#options;
    const until = Date.now() + timeoutMs;
    if (instruction === "pause") {
      await line.run("pause", "The engines are not all still yet.", () => operations.pause("keep", false), timeoutMs);
      return;
    }
    operations.restartNow();
    const all = (): boolean => this.#options.engines().every(({ state }) => state === "ready" || state === "stopped");
    while (!all()) {
      if (Date.now() >= until) throw new Fault("request_timeout", "Not all engines are back; they go on trying.");
      await new Promise((done) => setTimeout(done, LOOK_EVERY_MS));
    }
    const left = Math.max(1, until - Date.now());
    await line.run("resume", "Still resuming.", () => operations.resume(), left);
  }
}
