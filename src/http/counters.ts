/**
 * What is open right now. Every count goes back to zero when the server is idle: the leak tests and `close()` rely
 * on it, so whoever adds one takes it away on every path.
 */
import { type Timer, Timers } from "./_timers.ts";

export interface CountersSnapshot {
  /** Accepted connections. */
  readonly sockets: number;
  /** Calls in the corridor, from match to settle. */
  readonly calls: number;
  /** Handlers and event streams that have not ended; one that ignores its signal outlives its call. */
  readonly handlers: number;
  /** Timers of calls. */
  readonly timers: number;
}

export class Counters {
  sockets = 0;
  calls = 0;
  handlers = 0;
  readonly #clock = new Timers();

  /** A counted timer. */
  after(milliseconds: number, run: () => void): Timer {
    return this.#clock.after(milliseconds, run);
  }

  snapshot(): CountersSnapshot {
    const { sockets, calls, handlers } = this;
    return { sockets, calls, handlers, timers: this.#clock.open };
  }
}
