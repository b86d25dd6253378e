/**
 * What an operator does to a fleet while it serves; the promises are those of core/operations.ts.
 *
 * Pausing and resuming take effect at once and may overtake each other (a resume ends a pause that waits); sleep, wake,
 * scale and reload change what the engines are and go one after another. An engine that dies meanwhile is no obstacle:
 * its successor starts with nothing to forget, with the present weights, and asleep where the fleet is.
 * Made by fleet.ts.
 */
import { Fault, invalid } from "#core/fault.ts";
import type { Operations, PauseMode, SleepState, WakeTag } from "#core/operations.ts";
import type { StepTrace } from "#core/trace.ts";
import type { Fleet, Replica } from "./fleet.ts";
import type { KernelInit } from "./messages.ts";
import type { Operation, Outcome } from "./operations.ts";
import { DEFAULT_STEPS, MAX_STEPS, printTrace, type Timeline } from "./timeline.ts";

const MAX_REPLICAS = 64;
const STATES: readonly SleepState[] = ["awake", "weights_offloaded", "discard_all"];

export class FleetOperations implements Operations {
  readonly #fleet: Fleet;
  /** Resolves at resume. */
  #pause: PromiseWithResolvers<void> | undefined;
  #level: 0 | 1 | 2 = 0;
  /** Of the weights that were loaded last, where they are not the first. */
  #path: string | undefined;
  /** What is still to be asked for before the engines wake. */
  #asleep = new Set<WakeTag>();
  #line: Promise<unknown> = Promise.resolve();

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  async pause(mode: PauseMode, clearCache: boolean): Promise<void> {
    const { gate } = this.#fleet;
    // Asleep it is paused already, and stays still: nothing can go on to its end.
    if (this.#level > 0) {
      if (mode === "wait") throw invalid("mode", "the engine is asleep: nothing can finish before it is woken");
      if (mode === "abort") this.#fleet.abortWhere(() => true);
      return;
    }
    this.#pause ??= Promise.withResolvers();
    const pause = this.#pause;
    gate.close();
    if (mode === "abort") this.#fleet.abortWhere(() => true);
    if (mode === "keep") await this.#freeze();
    if (mode === "wait") {
      await this.#thaw();
      await Promise.race([this.#idle(), pause.promise]);
    }
    if (clearCache && this.#pause === pause) await this.resetPrefixCache(true);
  }

  async resume(): Promise<void> {
    if (this.#level > 0) throw invalid("wake", "the engine is asleep: wake it, and it goes on by itself");
    await this.#resume();
  }

  isPaused(): boolean {
    return this.#pause !== undefined;
  }

  async sleep(level: 0 | 1 | 2, mode: PauseMode): Promise<void> {
    if (![0, 1, 2].includes(level)) throw invalid("level", "the level is 0, 1 or 2");
    await this.pause(mode, level > 0);
    if (level === 0) return;
    await this.#alone(async () => {
      if (this.#pause === undefined) throw invalid("mode", "the engine was resumed before it could sleep");
      this.#level = level;
      this.#asleep = new Set(["weights", "kv_cache"]);
      this.#fleet.router.clear();
      for (const { supervisor } of this.#fleet.replicas) supervisor.setStill("asleep");
      await this.#all({ what: "sleep" });
    });
  }

  wake(tags?: readonly WakeTag[]): Promise<void> {
    return this.#alone(async () => {
      for (const tag of tags ?? this.#asleep) this.#asleep.delete(tag);
      if (this.#asleep.size > 0) return;
      if (this.#level > 0) await this.#wake();
      await this.#resume();
    });
  }

  isSleeping(): boolean {
    return this.#level > 0 || this.isPaused();
  }

  sleepState(): SleepState {
    return STATES[this.#level] ?? "awake";
  }

  async resetPrefixCache(runningRequests: boolean): Promise<boolean> {
    const outcomes = await this.#all({ what: "reset", running: runningRequests });
    this.#fleet.router.clear();
    return outcomes.every(([, outcome]) => outcome.done);
  }

  abort(ids: readonly string[]): number {
    const named = new Set(ids);
    return this.#fleet.abortWhere(({ id, callId }) => named.has(id) || (callId !== undefined && named.has(callId)));
  }

  abortCalls(meant: (callId: string) => boolean): number {
    return this.#fleet.abortWhere(({ callId }) => callId !== undefined && meant(callId));
  }

  restartNow(): void {
    for (const { supervisor } of this.#fleet.replicas) supervisor.restartNow();
  }

  get engineCount(): number {
    return this.#fleet.replicas.filter(({ draining }) => !draining).length;
  }

  async scale(engines: number, drainTimeoutMs: number, late: "end" | "stay" = "end"): Promise<void> {
    if (!Number.isInteger(engines) || engines < 1 || engines > MAX_REPLICAS)
      throw invalid("new_data_parallel_size", `the number of engines lies between 1 and ${MAX_REPLICAS}`);
    if (!(drainTimeoutMs >= 0)) throw invalid("drain_timeout", "the time to drain is not negative");
    await this.#alone(async () => {
      if (this.#level > 0) throw invalid("new_data_parallel_size", "the engine is asleep: wake it first");
      const missing = engines - this.#fleet.replicas.length;
      if (missing > 0) await this.#grow(engines, missing);
      else await this.#shrink(engines, drainTimeoutMs, late);
    });
  }

  async reload(path: string, mode: "keep" | "abort"): Promise<void> {
    await this.#alone(async () => {
      if (this.#level > 0) throw invalid("path", "the engine is asleep: wake it first");
      const kernel = this.#kernelAt(path);
      const paused = this.isPaused();
      await this.pause(mode, false);
      try {
        await this.#swap(kernel);
        this.#path = path;
      } finally {
        if (!paused) await this.#resume();
      }
    });
  }

  async startProfile(steps = DEFAULT_STEPS): Promise<void> {
    if (!Number.isInteger(steps) || steps < 1 || steps > MAX_STEPS)
      throw invalid("steps", `between 1 and ${MAX_STEPS} steps are recorded`);
    await this.#all({ what: "record", steps });
  }

  async stopProfile(): Promise<StepTrace> {
    const outcomes = await this.#all({ what: "stop-recording" });
    const timelines: [number, Timeline][] = [];
    for (const [{ engine }, outcome] of outcomes)
      if (outcome.done && outcome.timeline !== undefined) timelines.push([engine, outcome.timeline]);
    return printTrace(timelines);
  }

  async #resume(): Promise<void> {
    const pause = this.#pause;
    if (pause === undefined) return;
    this.#pause = undefined;
    await this.#thaw();
    // Somebody may have paused again meanwhile.
    if (this.#pause === undefined) this.#fleet.gate.open();
    pause.resolve();
  }

  async #freeze(): Promise<void> {
    for (const { supervisor } of this.#fleet.replicas) supervisor.setStill("frozen");
    await this.#all({ what: "freeze" });
  }

  async #thaw(): Promise<void> {
    for (const { supervisor } of this.#fleet.replicas) supervisor.setStill(undefined);
    await this.#all({ what: "thaw" });
  }

  async #idle(): Promise<void> {
    await Promise.all(this.#fleet.replicas.map(({ supervisor }) => supervisor.idle()));
  }

  /** One that cannot read its weights is ended, to be started again as after a crash. */
  async #wake(): Promise<void> {
    for (const { supervisor } of this.#fleet.replicas) supervisor.setStill(undefined);
    this.#level = 0;
    const outcomes = await this.#all({ what: "wake" });
    const reasons = outcomes.flatMap(([replica, outcome]) => {
      if (outcome.done) return [];
      replica.supervisor.kill("cannot wake");
      return [outcome.message];
    });
    if (outcomes.length === 0 || reasons.length < outcomes.length) return;
    await this.#resume();
    throw new Fault("engine_unavailable", "no engine could be woken", { detail: reasons.join("; ") });
  }

  async #grow(engines: number, missing: number): Promise<void> {
    const fleet = this.#fleet;
    const path = this.#path === undefined ? {} : { path: this.#path };
    const before = fleet.kernel;
    try {
      fleet.kernel = fleet.options.kernelFor?.({ replicas: engines, ...path }) ?? fleet.kernel;
      await fleet.add(missing);
    } catch (error) {
      fleet.kernel = before;
      if (error instanceof Fault) throw error;
      throw new Fault("engine_unavailable", "a new engine did not start", { detail: String(error) });
    }
  }

  async #shrink(engines: number, drainTimeoutMs: number, late: "end" | "stay"): Promise<void> {
    const leaving = this.#fleet.replicas.slice(engines);
    for (const replica of leaving) replica.draining = true;
    const timeout = Promise.withResolvers<"late">();
    const timer = setTimeout(timeout.resolve, drainTimeoutMs, "late");
    const idle = Promise.all(leaving.map(({ supervisor }) => supervisor.idle()));
    const outcome = await Promise.race([idle, timeout.promise]);
    clearTimeout(timer);
    if (outcome === "late" && late === "stay") {
      for (const replica of leaving) replica.draining = false;
      throw new Fault("request_timeout", "the engines were not done with their requests in time; their number stays");
    }
    for (let at = leaving.length; at > 0; at--) await this.#fleet.removeLast();
  }

  #kernelAt(path: string): KernelInit {
    const { options, replicas } = this.#fleet;
    if (options.kernelFor === undefined) throw new Fault("not_implemented", "this engine takes no other weights");
    try {
      return options.kernelFor({ path, replicas: replicas.length });
    } catch (error) {
      throw refused(error instanceof Error ? error.message : String(error));
    }
  }

  /** One engine after another; where one refuses, those before it go back. */
  async #swap(kernel: KernelInit): Promise<void> {
    const old = this.#fleet.kernel;
    const done: Replica[] = [];
    for (const replica of this.#fleet.replicas) {
      // What is being started again starts with the new weights, or starts once more.
      const runs = replica.supervisor.pid !== undefined;
      const outcome = runs ? await ask(replica, { what: "swap", kernel }) : ({ done: true } as const);
      if (outcome?.done === true) {
        replica.supervisor.setKernel(kernel);
        done.push(replica);
        continue;
      }
      for (const before of done) await goBack(before, old);
      throw refused(outcome?.message ?? "the engine died of it");
    }
    this.#fleet.kernel = kernel;
    this.#fleet.router.clear();
  }

  /** Asks all engines that run; those that are lost meanwhile are left out. */
  async #all(operation: Operation): Promise<(readonly [Replica, Outcome])[]> {
    const answers = await Promise.all(
      this.#fleet.replicas.map(async (replica) => [replica, await ask(replica, operation)] as const),
    );
    return answers.filter((answer): answer is readonly [Replica, Outcome] => answer[1] !== undefined);
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#line.then(work);
    this.#line = turn.catch(() => {});
    return turn;
  }
}

function ask({ supervisor }: Replica, operation: Operation): Promise<Outcome | undefined> {
  return supervisor.operate(operation).catch((error: unknown) => {
    if (error instanceof Fault) return undefined;
    throw error;
  });
}

async function goBack(replica: Replica, kernel: KernelInit): Promise<void> {
  replica.supervisor.setKernel(kernel);
  const back = await ask(replica, { what: "swap", kernel });
  if (back?.done === false) replica.supervisor.kill("cannot go back to its weights");
}

function refused(message: string): Fault {
  return invalid("path", `the weights are refused: ${message}`);
}
