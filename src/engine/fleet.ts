/**
 * Several engines behind one Backend (data parallel): each request goes to one of them and stays there.
 *
 * Each engine is a process with a supervisor of its own; one that dies fails alone and is started again, and what had
 * not begun to answer there moves to another. Invariants: at most maxNumQueuedReqs sequences are open, held ones
 * included; engines have numbers 0 … n-1 without gaps, an engine that is being taken away (`draining`) apart; totals
 * of a number never fall. Made by launcher.ts; operated by fleet-operations.ts.
 */
import type { BackendState, BackendStats, EngineStatus } from "#core/backend.ts";
import { Fault } from "#core/fault.ts";
import type { GenerateRequest, GenerationEvent } from "#core/generate.ts";
import type { ModelInfo } from "#core/model.ts";
import type { Operations } from "#core/operations.ts";
import type { PoolRequest, PoolResult } from "#core/pool.ts";
import { checkRequest } from "./check-request.ts";
import { FleetAdapters } from "./fleet-adapters.ts";
import { type CallHooks, FleetCall } from "./fleet-call.ts";
import { FleetOperations } from "./fleet-operations.ts";
import { poolThrough } from "./fleet-pool.ts";
import { Gate } from "./gate.ts";
import type { KernelInit } from "./messages.ts";
import type { EngineCounters, EngineHandle, EngineOptions } from "./options.ts";
import { checkPool, type Matches } from "./pooling/desk.ts";
import { Router } from "./router.ts";
import { type Launch, Supervisor } from "./supervisor.ts";
import { sumStats } from "./totals.ts";

/** Pooling keeps nothing that a like request would find. */
const NO_PROMPT = new Int32Array();

export interface Replica {
  /** Its number. */
  readonly engine: number;
  readonly supervisor: Supervisor;
  /** Takes no new requests. */
  draining: boolean;
}

export class Fleet implements EngineHandle {
  readonly operations: Operations;
  readonly options: EngineOptions;
  readonly gate = new Gate();
  readonly router: Router;
  /** What an engine opens that starts now. */
  kernel: KernelInit;
  readonly #launch: Launch;
  /** By number, ascending. */
  readonly #replicas: Replica[] = [];
  /** Totals of engines that were taken away, by number. */
  readonly #past = new Map<number, BackendStats>();
  readonly #adapters = new FleetAdapters();
  readonly #hooks: CallHooks;
  #moved = 0;
  #closed: Promise<void> | undefined;

  constructor(options: EngineOptions, launch: Launch) {
    this.options = options;
    this.#launch = launch;
    this.kernel = options.kernel;
    const { enabled, blockSize } = options.prefixCache;
    this.router = new Router({ affine: enabled, blockSize, maxNumSeqs: options.maxNumSeqs });
    this.operations = new FleetOperations(this);
    this.#hooks = {
      hold: (call) => {
        if (this.gate.closed) this.gate.hold(call);
        return this.gate.closed;
      },
      drop: (call) => this.gate.drop(call),
      place: ({ request, signal }) =>
        this.#choose(request.prompt, rootOf(request)).supervisor.generate(request, signal),
      moved: () => this.#moved++,
    };
  }

  /** @throws EngineStartError of the first that does not start; then none runs */
  async start(): Promise<void> {
    try {
      await this.add(this.options.replicas ?? 1);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  get model(): ModelInfo {
    return this.#replicas[0]?.supervisor.model ?? this.options.model;
  }

  get pid(): number | undefined {
    return this.#replicas[0]?.supervisor.pid;
  }

  get pids(): readonly (number | undefined)[] {
    return this.#replicas.map(({ supervisor }) => supervisor.pid);
  }

  get replicas(): readonly Replica[] {
    return this.#replicas;
  }

  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterableIterator<GenerationEvent> {
    if (this.#closed !== undefined) throw draining();
    checkRequest(request, this.model);
    this.#checkRoom(request.samples);
    return new FleetCall(request, signal, this.#hooks);
  }

  async loadAdapter(adapter: number, path: string): Promise<void> {
    if (this.#closed !== undefined) throw draining();
    await this.#adapters.load(this.#replicas, adapter, path);
  }

  unloadAdapter(adapter: number): void {
    this.#adapters.unload(this.#replicas, adapter);
  }

  async pool(request: PoolRequest, signal: AbortSignal): Promise<PoolResult> {
    if (this.#closed !== undefined) throw draining();
    checkPool(request, this.model);
    this.#checkRoom(request.inputs.length);
    return poolThrough(request, signal, {
      gate: this.gate,
      place: (asked, until) => this.#choose(NO_PROMPT, "").supervisor.pool(asked, until),
      moved: () => this.#moved++,
    });
  }

  state(): BackendState {
    if (this.#closed !== undefined) return "stopped";
    const states = new Set(this.#replicas.map(({ supervisor }) => supervisor.state()));
    return (["ready", "stalled", "restarting"] as const).find((state) => states.has(state)) ?? "starting";
  }

  stats(): BackendStats {
    const now = sumStats(this.#replicas.map(({ supervisor }) => supervisor.stats()));
    const all = sumStats([now, ...this.#past.values()]);
    return { ...all, kvUsage: now.kvUsage, waiting: now.waiting + this.gate.sequences };
  }

  engines(): readonly EngineStatus[] {
    const present = this.#replicas.map(({ engine, supervisor }): EngineStatus => {
      const [now, past] = [supervisor.stats(), this.#past.get(engine)];
      const stats = past === undefined ? now : { ...now, ...sumStats([now, past]), kvUsage: now.kvUsage };
      return { engine, state: supervisor.state(), stats };
    });
    const gone = [...this.#past].filter(([engine]) => engine >= this.#replicas.length);
    return [...present, ...gone.map(([engine, stats]): EngineStatus => ({ engine, state: "stopped", stats }))];
  }

  held(): number {
    return this.gate.sequences;
  }

  moved(): number {
    return this.#moved;
  }

  counters(): EngineCounters {
    const all = this.#replicas.map(({ supervisor }) => supervisor.counters());
    const add = (pick: (counters: EngineCounters) => number): number => all.reduce((sum, one) => sum + pick(one), 0);
    return {
      requests: add(({ requests }) => requests) + this.gate.calls.length,
      sequences: add(({ sequences }) => sequences) + this.gate.sequences,
      paused: add(({ paused }) => paused),
      timers: add(({ timers }) => timers),
    };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** Starts so many more engines. @throws EngineStartError; then none of them runs */
  async add(count: number): Promise<void> {
    const first = this.#replicas.length;
    const options = { ...this.options, kernel: this.kernel };
    const added = Array.from({ length: count }, (_, at): Replica => {
      const engine = first + at;
      const supervisor = new Supervisor(options, this.#launch, engine, () => this.router.forget(engine));
      this.#adapters.giveTo(supervisor);
      return { engine, supervisor, draining: false };
    });
    const started = await Promise.allSettled(added.map(({ supervisor }) => supervisor.start()));
    const failed = started.find((one) => one.status === "rejected");
    if (failed === undefined && this.#closed === undefined) {
      this.#replicas.push(...added);
      return;
    }
    await Promise.all(added.map(({ supervisor }) => supervisor.close()));
    throw failed?.reason ?? draining();
  }

  /** The last engine goes; what it still has is given up. */
  async removeLast(): Promise<void> {
    const last = this.#replicas.pop();
    if (last === undefined) return;
    const { engine, supervisor } = last;
    this.router.forget(engine);
    supervisor.abandon();
    const past = this.#past.get(engine);
    const gone = { ...supervisor.stats(), running: 0, waiting: 0, kvUsage: 0 };
    this.#past.set(engine, past === undefined ? gone : sumStats([past, gone]));
    await supervisor.close();
  }

  /** Ends requests, held ones too, with finish reason `abort`; returns how many. */
  abortWhere(matches: Matches): number {
    const held = this.gate.calls.filter(({ request }) => matches(request));
    for (const call of held) call.end();
    return this.#replicas.reduce((sum, { supervisor }) => sum + supervisor.abortWhere(matches), held.length);
  }

  #checkRoom(sequences: number): void {
    const open = this.#replicas.reduce((sum, { supervisor }) => sum + supervisor.load.sequences, this.gate.sequences);
    if (open + sequences > (this.options.maxNumQueuedReqs ?? 1024))
      throw new Fault("overloaded", "too many requests are waiting", { retryAfterMs: 1000 });
  }

  /** @throws Fault engine_unavailable | draining */
  #choose(prompt: Int32Array, root: string): Replica {
    const open = this.#replicas.filter(({ draining }) => !draining);
    const inState = (state: BackendState): Replica[] => open.filter(({ supervisor }) => supervisor.state() === state);
    const ready = inState("ready");
    const able = ready.length > 0 ? ready : inState("stalled");
    const [first] = able.length > 0 ? able : open;
    if (first === undefined) throw draining();
    if (able.length < 2) return first;
    const loads = able.map(({ engine, supervisor }) => ({ engine, ...supervisor.load }));
    const chosen = this.router.choose(prompt, root, loads);
    return able.find(({ engine }) => engine === chosen) ?? first;
  }

  async #close(): Promise<void> {
    for (const call of this.gate.calls) call.end(draining());
    await Promise.all(this.#replicas.map(({ supervisor }) => supervisor.close()));
  }
}

/** What is at the root of its blocks: two roots share nothing. */
function rootOf({ cacheSalt = "", adapter }: GenerateRequest): string {
  return adapter === undefined ? cacheSalt : `${adapter.number} ${cacheSalt}`;
}

function draining(): Fault {
  return new Fault("draining", "the server is shutting down");
}
