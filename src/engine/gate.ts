/**
 * The door before the engines: open, or closed while the backend is paused; then calls are held in their order.
 * Called by fleet.ts.
 */
export interface Held {
  /** Sequences that it will make. */
  readonly samples: number;
  /** The gate has opened. */
  go(): void;
}

export class Gate<T extends Held> {
  readonly #held = new Set<T>();
  #closed = false;

  get closed(): boolean {
    return this.#closed;
  }

  get calls(): readonly T[] {
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

  hold(call: T): void {
    this.#held.add(call);
  }

  drop(call: T): void {
    this.#held.delete(call);
  }
}
