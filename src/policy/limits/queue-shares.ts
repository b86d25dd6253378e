/**
 * How much of the engine's queue (--max-num-queued-reqs) one tenant may have open: no more than is still free. One
 * tenant alone gets half of it, two get a third each, and somebody who comes finds room (Wall: T82). Of this server alone,
 * since the queue is. Used inside policy/limits/.
 *
 * The rule is the dynamic threshold of shared buffers (Choudhury, Hahne, 1998): it wants no list of tenants and wastes
 * one tenant's share, not a fixed part for each.
 */
import { Fault } from "#core/fault.ts";

const RETRY_MS = 1000;
/** Tenants with nothing open that are remembered: to forget one makes V8 make the whole map anew. */
const MOST_IDLE = 1000;

export class QueueShares {
  readonly #capacity: number;
  readonly #open = new Map<string, number>();
  /** Tenants in there with nothing open. */
  #idle = 0;
  #total = 0;

  /** @param capacity sequences; Infinity: nobody is bounded */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Who takes gives back: `leave`, once. @returns rate_limited: nothing was taken */
  take(tenant: string, sequences: number): Fault | undefined {
    const held = this.#open.get(tenant) ?? 0;
    // Who has nothing open is left to the queue itself: a single request may be as large as that.
    if (held > 0 && held + sequences > this.#capacity - this.#total) {
      return new Fault(
        "rate_limited",
        `Too many sequences of this tenant wait or run: it has ${held} open. Try again when others have ended.`,
        { retryAfterMs: RETRY_MS, detail: `the queue holds ${this.#total} of ${this.#capacity}` },
      );
    }
    this.#add(tenant, sequences);
    return undefined;
  }

  leave(tenant: string, sequences: number): void {
    this.#add(tenant, -sequences);
  }

  /** Sequences that are open, for tests. */
  get total(): number {
    return this.#total;
  }

  /** Tenants that it knows of, for tests. */
  get remembered(): number {
    return this.#open.size;
  }

  #add(tenant: string, sequences: number): void {
    const before = this.#open.get(tenant);
    const held = (before ?? 0) + sequences;
    this.#open.set(tenant, held);
    this.#total += sequences;
    if (before === 0) this.#idle--;
    if (held === 0 && ++this.#idle > MOST_IDLE) this.#forget();
  }

  #forget(): void {
    for (const [tenant, held] of this.#open) if (held === 0) this.#open.delete(tenant);
    this.#idle = 0;
  }
}
