/**
 * The calls on their way.
 *
 * Why no Set: one that is added to and deleted from is made anew every some calls, and V8 leaves in the old table where
 * the new one is. An old table that got into the old space thus keeps the next, with the calls that were in it, and so
 * on: every other call would live until the whole heap is marked. Callers: http, and
 * serving for the calls on their way to upstreams.
 */

/** What is in here knows where. */
export interface OpenCall {
  /** Its place; -1: none. */
  place: number;
}

export class OpenCalls<C extends OpenCall> {
  readonly #calls: C[] = [];

  get size(): number {
    return this.#calls.length;
  }

  add(call: C): void {
    call.place = this.#calls.push(call) - 1;
  }

  /** The last takes its place. One that is not there: nothing happens. */
  delete(call: C): void {
    if (call.place < 0) return;
    const last = this.#calls.pop();
    if (last !== undefined && last !== call) {
      this.#calls[call.place] = last;
      last.place = call.place;
    }
    call.place = -1;
  }

  /** Those that are there now. */
  all(): readonly C[] {
    return [...this.#calls];
  }
}
