/**
 * The door before the engines: open, or closed while the backend is paused; then calls are held in their order.
 * Called by fleet.ts.
 */
import type { Fault } from "#core/fault.ts";

export interface Held {
  readonly request: { readonly id: string; readonly callId?: string };
  /** Sequences that it will make. */
  readonly samples: number;
  /** The gate has opened. */
  go(): void;
  /** Leaves the gate for good; without a fault an operator has aborted it. */
  end(fault?: Fault): void;
}

export class Gate {
  readonly #held = new Set<Held>();
  #closed = false;

  get closed(): boolean {
    return this.#closed;
  }

  get calls(): readonly Held[] {
    return [...this.#held];
  }

  /** Sequences of the held calls. */
  get sequences(): number {
    let count = 0;
    for (const { samples } of this.#held) count += samples;
    return count;
  }

  close(): void {
    this.#closed = true;
  }

  open(): void {
    this.#closed = false;
    for (const call of this.calls) {
      this.#held.delete(call);
      call.go();
    }
  }

  hold(call: Held): void {
    this.#held.add(call);
  }

  drop(call: Held): void {
    this.#held.delete(call);
  }
}
