/**
 * What is open right now. Every count goes back to zero when the server is idle: the leak tests and `close()` rely
 * on it, so whoever adds one takes it away on every path.
 */
import { Timers } from "./_timers.ts";

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
  timers = 0;
  readonly #clock = new Timers();

  /** A counted timer. @returns cancels it; may be called again and after it fired */
  after(milliseconds: number, run: () => void): () => void {
    let open = true;
    this.timers++;
    const end = this.#clock.after(milliseconds, () => {
      open = false;
      this.timers--;
      run();
    });
    return () => {
      if (!open) return;
      open = false;
      this.timers--;
      end();
    };
  }

  /** Counts a handler until its work ends, however it ends. */
  track<T>(work: PromiseLike<T>): PromiseLike<T> {
    this.handlers++;
    const ended = (): void => {
      this.handlers--;
    };
    work.then(ended, ended);
    return work;
  }

  snapshot(): CountersSnapshot {
    const { sockets, calls, handlers, timers } = this;
    return { sockets, calls, handlers, timers };
  }
}
