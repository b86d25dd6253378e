/**
 * A bound on the tries that are on their way at once, of all batches together. A place that gets free goes to the tenant
 * with the fewest, and of a tenant's to who came first.
 */

/** How a line of a batch gets answered: one try after the other, until there is an answer. */
export interface Tries {
  /** When it is its turn. */
  once<T>(work: () => Promise<T>): Promise<T>;
  /** Between two tries; no turn is held. @param ms until the limit begins anew, or the server may have room */
  wait(ms: number): Promise<void>;
}

export class Turns {
  #free: number;
  readonly #held = new Map<string, number>();
  /** In the order in which they came; no tenant without any. */
  readonly #waiting = new Map<string, (() => void)[]>();

  constructor(places: number) {
    this.#free = places;
  }

  /** @throws what the work throws; the signal's reason, where it comes before the work has begun */
  async take<T>(tenant: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (this.#free > 0) {
      this.#free--;
      this.#hold(tenant, 1);
    } else await this.#turn(tenant, signal);
    try {
      signal.throwIfAborted();
      return await work();
    } finally {
      this.#hold(tenant, -1);
      this.#pass();
    }
  }

  #pass(): void {
    const fewest = (best: string, tenant: string): string =>
      (this.#held.get(tenant) ?? 0) < (this.#held.get(best) ?? 0) ? tenant : best;
    const [first, ...others] = this.#waiting.keys();
    if (first === undefined) {
      this.#free++;
      return;
    }
    const tenant = others.reduce(fewest, first);
    const turn = this.#waiting.get(tenant)?.[0];
    this.#hold(tenant, 1);
    turn?.();
  }

  #hold(tenant: string, more: number): void {
    const held = (this.#held.get(tenant) ?? 0) + more;
    if (held === 0) this.#held.delete(tenant);
    else this.#held.set(tenant, held);
  }

  /** Who does not wait any more has no place in the row, and none is kept for it. */
  #turn(tenant: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const row = this.#waiting.get(tenant) ?? [];
      const end = (): void => {
        signal.removeEventListener("abort", leave);
        row.splice(row.indexOf(turn), 1);
        if (row.length === 0) this.#waiting.delete(tenant);
      };
      const leave = (): void => {
        end();
        reject(signal.reason);
      };
      const turn = (): void => {
        end();
        resolve();
      };
      row.push(turn);
      this.#waiting.set(tenant, row);
      if (signal.aborted) leave();
      else signal.addEventListener("abort", leave, { once: true });
    });
  }
}
