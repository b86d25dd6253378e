/**
 * The events of one request, between the supervisor that pushes and the one consumer that pulls.
 *
 * Bounded: above HIGH waiting events the request is paused in the engine, below LOW resumed. Ends by running out (all
 * samples finished), by a fault (after the events that came before it), or by the consumer leaving (`break`, an
 * aborted signal: then next() throws Fault `cancelled` at once and what waited is dropped).
 * Made and fed by supervisor.ts only.
 */
import { Fault } from "#core/fault.ts";
import type { FinishReason, GenerationEvent } from "#core/generate.ts";

export const HIGH = 64;
export const LOW = 16;

export interface StreamHooks {
  /** The consumer left early: the engine should drop the request. */
  leave(): void;
  setPaused(paused: boolean): void;
}

interface Pull {
  resolve(result: IteratorResult<GenerationEvent>): void;
  reject(fault: Error): void;
}

const DONE: IteratorResult<GenerationEvent> = { done: true, value: undefined };

export class RequestStream implements AsyncIterableIterator<GenerationEvent> {
  readonly #hooks: StreamHooks;
  readonly #signal: AbortSignal;
  readonly #onAbort = () => this.#cancel();
  #queue: GenerationEvent[] = [];
  #head = 0;
  #pull: Pull | undefined;
  /** Samples that have not finished. */
  readonly #open: Set<number>;
  #fault: Fault | undefined;
  #ended = false;
  #paused = false;

  /** @throws Fault cancelled when the signal is aborted already */
  constructor(samples: number, signal: AbortSignal, hooks: StreamHooks) {
    if (signal.aborted) throw cancelled();
    this.#hooks = hooks;
    this.#signal = signal;
    this.#open = new Set(Array.from({ length: samples }, (_, sample) => sample));
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Samples that have not finished. */
  get samplesLeft(): number {
    return this.#open.size;
  }

  /** Events that wait for the consumer. */
  get backlog(): number {
    return this.#queue.length - this.#head;
  }

  push(event: GenerationEvent): void {
    if (this.#ended) return;
    if (event.type === "finish" && this.#open.delete(event.sample) && this.#open.size === 0) this.#end();
    const pull = this.#takePull();
    if (pull === undefined) this.#queue.push(event);
    else pull.resolve({ done: false, value: event });
    if (!this.#ended && !this.#paused && this.backlog > HIGH) this.#setPaused(true);
  }

  /** Finishes all samples that have not. */
  finish(reason: FinishReason): void {
    for (const sample of [...this.#open]) this.push({ type: "finish", sample, reason });
  }

  fail(fault: Fault): void {
    if (this.#ended) return;
    this.#end();
    const pull = this.#takePull();
    if (pull === undefined) this.#fault = fault;
    else pull.reject(fault);
  }

  next(): Promise<IteratorResult<GenerationEvent>> {
    const value = this.#shift();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.#fault !== undefined) {
      const fault = this.#fault;
      this.#fault = undefined;
      return Promise.reject(fault);
    }
    if (this.#ended) return Promise.resolve(DONE);
    if (this.#pull !== undefined) return Promise.reject(new Error("a generation has one consumer"));
    return new Promise((resolve, reject) => {
      this.#pull = { resolve, reject };
    });
  }

  return(): Promise<IteratorResult<GenerationEvent>> {
    this.#drop();
    this.#takePull()?.resolve(DONE);
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #cancel(): void {
    if (this.#ended && this.backlog === 0) return;
    this.#drop();
    const pull = this.#takePull();
    if (pull === undefined) this.#fault = cancelled();
    else pull.reject(cancelled());
  }

  #drop(): void {
    this.#queue = [];
    this.#head = 0;
    this.#fault = undefined;
    if (this.#ended) return;
    this.#end();
    this.#hooks.leave();
  }

  #end(): void {
    this.#ended = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
  }

  #takePull(): Pull | undefined {
    const pull = this.#pull;
    this.#pull = undefined;
    return pull;
  }

  #shift(): GenerationEvent | undefined {
    if (this.#head === this.#queue.length) return undefined;
    const event = this.#queue[this.#head++];
    if (this.#head === this.#queue.length || this.#head > 2 * HIGH) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    if (this.#paused && !this.#ended && this.backlog < LOW) this.#setPaused(false);
    return event;
  }

  #setPaused(paused: boolean): void {
    this.#paused = paused;
    this.#hooks.setPaused(paused);
  }
}

function cancelled(): Fault {
  return new Fault("cancelled", "the request was cancelled");
}
