/**
 * How many tries beyond the first a pool may make: a share of its requests, and some a second whatever their number.
 *
 * Why: when a whole pool fails, retries without a bound are load upon what is down already. Invariant: tries taken never
 * exceed the reserve at the start + share × requests + perSecond × seconds. Pure: the clock is handed in. Callers: pool.ts.
 */
export interface RetryBudgetOptions {
  /** 0…1: of requests. */
  readonly share: number;
  readonly perSecond: number;
  /** Milliseconds. */
  readonly now: () => number;
}

/** What is saved up at most, in seconds of the floor, and never fewer than so many tries. */
const RESERVE_SECONDS = 10;
const RESERVE_LEAST = 10;

export class RetryBudget {
  readonly #options: RetryBudgetOptions;
  readonly #most: number;
  #left: number;
  #at: number;

  constructor(options: RetryBudgetOptions) {
    this.#options = options;
    const any = options.share > 0 || options.perSecond > 0;
    this.#most = any ? Math.max(RESERVE_LEAST, options.perSecond * RESERVE_SECONDS) : 0;
    this.#left = Math.min(this.#most, options.perSecond);
    this.#at = options.now();
  }

  /** A request came: its first try is free and earns a share of another. */
  request(): void {
    this.#earn(this.#options.share);
  }

  /** @returns whether one more try may be made; it is counted then */
  take(): boolean {
    this.#earn(0);
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }

  #earn(more: number): void {
    const now = this.#options.now();
    const seconds = Math.max(0, now - this.#at) / 1000;
    this.#at = now;
    this.#left = Math.min(this.#most, this.#left + more + seconds * this.#options.perSecond);
  }
}
