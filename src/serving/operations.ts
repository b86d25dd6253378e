/**
 * What an operator does to the engines over HTTP: pause, sleep, scale, reset, abort; one thing at a time, each bounded.
 *
 * Invariants: nothing here is called without a grant; a failure says whether the engines serve; work that is not over in
 * time goes on, and the answer says so. What the operations do is in core/operations.ts. Made by the app, called by the
 * routes of the operations listener.
 */
import type { EngineStatus } from "#core/backend.ts";
import { invalid } from "#core/fault.ts";
import type { Operations, PauseMode, SleepState, WakeTag } from "#core/operations.ts";
import { ownedKey } from "#core/owned.ts";
import { type Grant, OPERATOR_TENANT } from "#core/principal.ts";
import type { OperationLine } from "./operation-line.ts";

export interface EngineOperationsOptions {
  readonly operations: Operations;
  readonly engines: () => readonly EngineStatus[];
  readonly line: OperationLine;
}

/** Beyond the time to drain: engines that start load the model. */
const SCALE_MS = 260_000;

const RPC = {
  check_health: async (_operations, engines) => engines.map(({ engine, state }) => ({ engine, state })),
  get_stats: async (_operations, engines) => engines.map(({ engine, stats }) => ({ engine, ...stats })),
  reset_prefix_cache: async (operations) => [await operations.resetPrefixCache(false)],
} as const satisfies Readonly<
  Record<string, (operations: Operations, engines: readonly EngineStatus[]) => Promise<readonly unknown[]>>
>;
export const RPC_METHODS = Object.keys(RPC) as readonly (keyof typeof RPC)[];

/** Of a closed list (Wall: T94), whoever carries it out. @throws Fault invalid_request */
export function rpcMethod(method: string): keyof typeof RPC {
  const known = RPC_METHODS.find((name) => name === method);
  if (known === undefined)
    throw invalid("method", `method is one of ${RPC_METHODS.join(", ")}; nothing else can be called.`);
  return known;
}

export class EngineOperations {
  readonly #options: EngineOperationsOptions;

  constructor(options: EngineOperationsOptions) {
    this.#options = options;
  }

  /** @throws Fault overloaded | request_timeout */
  async pause(_grant: Grant<"ops">, mode: PauseMode, clearCache: boolean): Promise<void> {
    const late = "Still pausing: what had begun goes on, nothing new begins. /resume calls it off.";
    await this.#run("pause", late, (operations) => operations.pause(mode, clearCache));
  }

  /** @throws Fault invalid_request: the engine is asleep | overloaded | request_timeout */
  async resume(_grant: Grant<"ops">): Promise<void> {
    await this.#run("resume", "Still resuming; /is_paused tells when it is done.", (operations) => operations.resume());
  }

  isPaused(_grant: Grant<"ops">): boolean {
    return this.#options.operations.isPaused();
  }

  /** @throws Fault invalid_request: it was resumed or woken before it slept | overloaded | request_timeout */
  async sleep(_grant: Grant<"ops">, level: 0 | 1 | 2, mode: PauseMode): Promise<void> {
    const late = "Not yet asleep: what had begun goes on, nothing new begins. /resume or /wake_up calls it off.";
    await this.#run("sleep", late, (operations) => operations.sleep(level, mode));
  }

  /** @param tags absent: all. @throws Fault engine_unavailable: it does not serve | overloaded | request_timeout */
  async wake(_grant: Grant<"ops">, tags: readonly WakeTag[] | undefined): Promise<void> {
    const late = "Still waking: the engine does not serve yet; /is_sleeping tells when it does.";
    await this.#run("wake", late, (operations) => operations.wake(tags));
  }

  isSleeping(_grant: Grant<"ops">): boolean {
    return this.#options.operations.isSleeping();
  }

  /**
   * @returns how many engines there are. What is not done within the time to drain goes on where it is, and nothing changes
   * @throws Fault invalid_request | engine_unavailable | overloaded | request_timeout
   */
  async scale(_grant: Grant<"ops">, engines: number, drainMs: number): Promise<number> {
    const late = "Still scaling; /is_scaling_elastic_ep tells when it is done.";
    const work = (operations: Operations): Promise<void> => operations.scale(engines, drainMs, "stay");
    await this.#run("scale", late, work, drainMs + SCALE_MS);
    return this.#options.operations.engineCount;
  }

  isScaling(_grant: Grant<"ops">): boolean {
    return this.#options.line.doing("scale");
  }

  get engineCount(): number {
    return this.#options.operations.engineCount;
  }

  /** @returns false: something runs, and its engine has kept its prefixes */
  async resetPrefixCache(_grant: Grant<"ops">, runningRequests: boolean): Promise<boolean> {
    const late = "Not yet done: the engines do not answer.";
    return this.#run("reset", late, (operations) => operations.resetPrefixCache(runningRequests));
  }

  /**
   * Ends calls by the ids of their answers: any tenant's for a principal of the operator's tenant, else its own tenant's.
   * @returns how many requests of theirs were open
   */
  abort({ principal: { tenant } }: Grant<"ops">, ids: readonly string[]): number {
    const { operations } = this.#options;
    const all = tenant === OPERATOR_TENANT;
    const named = new Set(all ? ids : ids.map((id) => ownedKey(tenant, id)));
    return operations.abortCalls((callId) => named.has(all ? callId.slice(callId.indexOf("\0") + 1) : callId));
  }

  /** Of a closed list, by name (Wall: T94). @throws Fault invalid_request | overloaded | request_timeout */
  async rpc(_grant: Grant<"dev">, method: string, seconds: number | undefined): Promise<readonly unknown[]> {
    const known = rpcMethod(method);
    const late = `${known} was not over in time; it goes on.`;
    const work = (operations: Operations): Promise<readonly unknown[]> =>
      RPC[known](operations, this.#options.engines());
    return this.#run("reset", late, work, seconds === undefined ? undefined : seconds * 1000);
  }

  sleepState(): SleepState {
    return this.#options.operations.sleepState();
  }

  #run<T>(
    work: Parameters<OperationLine["run"]>[0],
    late: string,
    what: (operations: Operations) => Promise<T>,
    workMs?: number,
  ): Promise<T> {
    const { line, operations } = this.#options;
    return line.run(work, late, () => what(operations), workMs);
  }
}
