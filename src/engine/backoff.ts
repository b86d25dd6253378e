/**
 * When to start a dead engine again: at once-ish first, then twice as late each time, up to 30 s, with jitter so that
 * several replicas do not start together. Never gives up. Used by supervisor.ts.
 */
const LONGEST_MS = 30_000;
/** An engine that made steps and lived so long starts the count afresh. */
const HEALTHY_AFTER_MS = 30_000;

export class Backoff {
  readonly #firstMs: number;
  #failures = 0;
  #startedAt = performance.now();
  #due = 0;
  #timer: NodeJS.Timeout | undefined;
  #begin: (() => void) | undefined;

  constructor(firstMs: number) {
    this.#firstMs = firstMs;
  }

  get timers(): number {
    return this.#timer === undefined ? 0 : 1;
  }

  /** Milliseconds until the next start; 0 when none is planned. */
  get remainingMs(): number {
    return this.#timer === undefined ? 0 : Math.max(0, Math.ceil(this.#due - performance.now()));
  }

  schedule(start: () => void): void {
    const full = Math.min(LONGEST_MS, this.#firstMs * 2 ** Math.min(this.#failures++, 20));
    const delay = full * (0.5 + Math.random() / 2);
    this.#due = performance.now() + delay;
    this.#begin = () => {
      this.#timer = undefined;
      this.#startedAt = performance.now();
      start();
    };
    this.#timer = setTimeout(this.#begin, delay);
    this.#timer.unref();
  }

  /** A start that is planned begins at once. */
  hurry(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#begin?.();
  }

  /** The engine made a step. */
  progress(): void {
    if (this.#failures > 0 && performance.now() - this.#startedAt > HEALTHY_AFTER_MS) this.#failures = 0;
  }

  cancel(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
