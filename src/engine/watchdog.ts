/**
 * Notices an engine that makes no steps although work is runnable: `stalled` from timestamps, a kill by a timer.
 *
 * Invariant: a timer exists exactly while busy. Used by supervisor.ts.
 */
export class Watchdog {
  readonly #stallAfterMs: number;
  readonly #killAfterMs: number;
  readonly #kill: () => void;
  #busy = false;
  #last = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(stallAfterMs: number, killAfterMs: number, kill: () => void) {
    this.#stallAfterMs = stallAfterMs;
    this.#killAfterMs = killAfterMs;
    this.#kill = kill;
  }

  get stalled(): boolean {
    return this.#busy && performance.now() - this.#last > this.#stallAfterMs;
  }

  get timers(): number {
    return this.#timer === undefined ? 0 : 1;
  }

  /** Whether there is work that a healthy engine would step on. Idle time does not count as a stall. */
  setBusy(busy: boolean): void {
    if (busy === this.#busy) return;
    this.#busy = busy;
    this.#last = performance.now();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (busy) this.#arm();
  }

  progress(): void {
    this.#last = performance.now();
  }

  get #remainingMs(): number {
    return this.#last + this.#stallAfterMs + this.#killAfterMs - performance.now();
  }

  #arm(): void {
    this.#timer = setTimeout(() => this.#look(), Math.max(1, this.#remainingMs));
    this.#timer.unref();
  }

  /** A parent that itself was asleep has unread steps in the pipe: let them in before judging. */
  #look(): void {
    setImmediate(() => {
      if (!this.#busy) return;
      if (this.#remainingMs <= 0) {
        this.#last = performance.now();
        this.#kill();
      }
      clearTimeout(this.#timer);
      this.#arm();
    });
  }
}
