/**
 * One request on its way through a fleet: held at the gate, placed on an engine, moved once if that is lost before the
 * answer has begun. To its consumer all of it is one stream of events.
 *
 * Invariants: nothing is delivered twice (a move repeats no `prompt`); once a token or an end was delivered the
 * request never moves, since the drawing could not be repeated. Made by fleet.ts.
 */
import { Fault } from "#core/fault.ts";
import type { GenerateRequest, GenerationEvent } from "#core/generate.ts";
import type { Held } from "./gate.ts";
import { EngineLost } from "./lost.ts";

type Events = AsyncIterableIterator<GenerationEvent>;
type Result = IteratorResult<GenerationEvent>;

/** A request that brings down a second engine is likely the reason. */
const MAX_MOVES = 1;
const DONE: Result = { done: true, value: undefined };

export interface CallHooks {
  /** Whether the gate is closed; then the call waits for go(). */
  hold(call: FleetCall): boolean;
  /** The call waits no longer. */
  drop(call: FleetCall): void;
  /** Gives it to an engine. @throws Fault */
  place(call: FleetCall): Events;
  moved(): void;
}

export class FleetCall implements AsyncIterableIterator<GenerationEvent>, Held {
  readonly request: GenerateRequest;
  readonly signal: AbortSignal;
  readonly #hooks: CallHooks;
  readonly #onAbort = () => this.#leave(cancelled());
  /** Resolves when there is something to read, or a fault. */
  #opening: PromiseWithResolvers<void> | undefined;
  #inner: Events | undefined;
  #fault: Fault | undefined;
  #moves = 0;
  #prompted = false;
  #begun = false;

  /** @throws Fault as Backend.generate does */
  constructor(request: GenerateRequest, signal: AbortSignal, hooks: CallHooks) {
    if (signal.aborted) throw cancelled();
    this.request = request;
    this.signal = signal;
    this.#hooks = hooks;
    if (hooks.hold(this)) this.#wait();
    else this.#inner = hooks.place(this);
  }

  get samples(): number {
    return this.request.samples;
  }

  /** Called by the gate. */
  go(): void {
    try {
      this.#arrive(this.#hooks.place(this));
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.#leave(error);
    }
  }

  /** Ends a held call: by a fault, or with finish reason `abort`. */
  end(fault?: Fault): void {
    this.#hooks.drop(this);
    if (fault === undefined) this.#arrive(aborted(this.samples));
    else this.#leave(fault);
  }

  next(): Promise<Result> {
    // Once it has begun there is nothing left to decide.
    return this.#begun && this.#inner !== undefined ? this.#inner.next() : this.#first();
  }

  async return(): Promise<Result> {
    if (this.#inner !== undefined) return (await this.#inner.return?.()) ?? DONE;
    this.#leave(undefined);
    return DONE;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #first(): Promise<Result> {
    for (;;) {
      await this.#opening?.promise;
      const inner = this.#inner;
      if (inner === undefined) return this.#over();
      try {
        const result = await inner.next();
        if (this.#isNew(result)) return result;
      } catch (error) {
        if (!(error instanceof EngineLost) || this.#begun || this.#moves >= MAX_MOVES) throw error;
        this.#move(error);
      }
    }
  }

  /** What is said once a call that has no events ended. */
  #over(): Result {
    const fault = this.#fault;
    this.#fault = undefined;
    if (fault !== undefined) throw fault;
    return DONE;
  }

  #isNew(result: Result): boolean {
    if (result.done || result.value.type !== "prompt") {
      this.#begun = true;
      return true;
    }
    const known = this.#prompted;
    this.#prompted = true;
    return !known;
  }

  /** @throws the loss, where no other engine takes it */
  #move(loss: EngineLost): void {
    this.#moves++;
    this.#inner = undefined;
    if (this.signal.aborted) throw cancelled();
    if (this.#hooks.hold(this)) this.#wait();
    else {
      try {
        this.#inner = this.#hooks.place(this);
      } catch (error) {
        throw error instanceof Fault ? loss : error;
      }
    }
    this.#hooks.moved();
  }

  #wait(): void {
    this.#opening = Promise.withResolvers();
    this.signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  #arrive(inner: Events): void {
    this.#inner = inner;
    this.#open();
  }

  /** A held call ends. */
  #leave(fault: Fault | undefined): void {
    this.#hooks.drop(this);
    this.#fault = fault;
    this.#open();
  }

  #open(): void {
    this.signal.removeEventListener("abort", this.#onAbort);
    this.#opening?.resolve();
    this.#opening = undefined;
  }
}

async function* aborted(samples: number): AsyncGenerator<GenerationEvent, undefined> {
  for (let sample = 0; sample < samples; sample++) yield { type: "finish", sample, reason: "abort" };
}

function cancelled(): Fault {
  return new Fault("cancelled", "the request was cancelled");
}
