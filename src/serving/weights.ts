/**
 * Other weights for a running model: judged, then swapped between two steps, all or nothing.
 *
 * Invariants: a file is used only when it lies where the operator allows it and its SHA-256 is the one that was named
 * (Wall: T90); the change is in the audit log before it is made; an update belongs to the principal that began it, and
 * who begins another drops it. While the weights change, no other operation runs. Made by the app.
 */
import { Fault, invalid } from "#core/fault.ts";
import type { Operations, PauseMode } from "#core/operations.ts";
import type { Grant } from "#core/principal.ts";
import { actorOf, type RecordEvent, recorded } from "./_administration.ts";
import type { OperationLine } from "./operation-line.ts";

/** A file that was found to be what was named. */
export interface JudgedWeights {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  /** Whether it is still the file that was judged. */
  unchanged(): boolean;
}

export interface WeightUpdatesOptions {
  readonly operations: Operations;
  readonly line: OperationLine;
  /** @throws Fault invalid_request | cancelled */
  readonly judge: (path: string, sha256: string, signal: AbortSignal) => Promise<JudgedWeights>;
  readonly record: RecordEvent;
  /** How long `wait` waits for what runs. */
  readonly waitMs?: number;
}

export interface UpdateCall {
  readonly path: string;
  readonly sha256: string;
  /** `wait`: sequences that have begun end first. `keep`: they go on with the new weights. `abort`: they end now. */
  readonly mode: PauseMode;
}

interface Update {
  readonly principal: string;
  staged: (JudgedWeights & { readonly mode: PauseMode }) | undefined;
}

const DEFAULT_WAIT_MS = 120_000;
/** For reading the file, beyond the wait. */
const LOAD_MS = 240_000;
const LATE = "Not yet done: the weights are still being changed, and nothing new begins meanwhile.";

export class WeightUpdates {
  readonly #options: WeightUpdatesOptions;
  #update: Update | undefined;

  constructor(options: WeightUpdatesOptions) {
    this.#options = options;
  }

  /** Engines, which is what there is instead of ranks. */
  worldSize(_grant: Grant<"weights">, engines: boolean): number {
    return engines ? this.#options.operations.engineCount : 1;
  }

  start({ principal }: Grant<"weights">): void {
    this.#update = { principal: principal.id, staged: undefined };
  }

  /**
   * Judges a file; within an update it is used when that is finished, else at once.
   * @returns whether it is in use now
   * @throws Fault invalid_request: the old weights serve on | policy_unavailable | overloaded | request_timeout
   */
  async update(grant: Grant<"weights">, { path, sha256, mode }: UpdateCall, signal: AbortSignal): Promise<boolean> {
    const update = this.#updateOf(grant);
    const staged = { ...(await this.#options.judge(path, sha256, signal)), mode };
    if (update === undefined) {
      await this.#swap(grant, staged);
      return true;
    }
    if (this.#update !== update)
      throw invalid("update_info", "Another update was begun meanwhile: this one is dropped.");
    update.staged = staged;
    return false;
  }

  /** @throws Fault invalid_request: the old weights serve on | policy_unavailable | overloaded | request_timeout */
  async finish(grant: Grant<"weights">): Promise<void> {
    const staged = this.#updateOf(grant)?.staged;
    if (staged === undefined)
      throw invalid("update_info", "There is nothing to finish: no file was given to an update.");
    this.#update = undefined;
    await this.#swap(grant, staged);
  }

  #updateOf({ principal }: Grant<"weights">): Update | undefined {
    const update = this.#update;
    if (update !== undefined && update.principal !== principal.id)
      throw invalid("update_info", "Somebody else's update is under way; /start_weight_update drops it.");
    return update;
  }

  async #swap({ principal }: Grant<"weights">, staged: JudgedWeights & { readonly mode: PauseMode }): Promise<void> {
    const { line, operations, record, waitMs = DEFAULT_WAIT_MS } = this.#options;
    const work = async (): Promise<void> => {
      if (operations.sleepState() !== "awake") throw invalid("path", "The engine is asleep: wake it first.");
      if (!staged.unchanged())
        throw invalid("path", "The file has changed since it was judged; the old weights serve on.");
      const { sha256, bytes, mode } = staged;
      await recorded(record("weights.change", actorOf(principal), undefined, { sha256, bytes, mode }));
      if (mode === "wait") await this.#afterWait(() => operations.reload(staged.path, "keep"));
      else await operations.reload(staged.path, mode);
    };
    await line.run("weights", LATE, work, waitMs + LOAD_MS);
  }

  /** What was paused stays paused. */
  async #afterWait(swap: () => Promise<void>): Promise<void> {
    const { operations, waitMs = DEFAULT_WAIT_MS } = this.#options;
    const paused = operations.isPaused();
    try {
      if (!(await inTime(operations.pause("wait", false), waitMs)))
        throw new Fault("request_timeout", "What had begun was not over in time; the old weights serve on.");
      await swap();
    } finally {
      if (!paused) await operations.resume();
    }
  }
}

async function inTime(work: Promise<void>, limitMs: number): Promise<boolean> {
  const late = Promise.withResolvers<false>();
  const timer = setTimeout(late.resolve, limitMs, false);
  try {
    return await Promise.race([work.then(() => true), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
