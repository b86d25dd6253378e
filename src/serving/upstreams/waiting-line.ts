/**
 * Those who wait while every upstream is full: first come, first served, so many at most, so long at most.
 *
 * Invariant: whoever waits gets exactly one of a ticket, a fault at the deadline, or what the signal says; a ticket is
 * never taken for somebody who has left. Callers: pool.ts.
 */
import { Fault } from "#core/fault.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import type { Ticket, Wish } from "./balancer.ts";

interface Waiter {
  readonly wish: Wish;
  readonly settle: (result: Ticket | Fault) => void;
}

type Take = (wish: Wish) => Ticket | "full" | "none";

export class WaitingLine {
  readonly #most: number;
  readonly #mostMs: number;
  readonly #take: Take;
  readonly #nobody: (wish: Wish) => Fault;
  readonly #waiters = new Set<Waiter>();
  #closed = false;

  /** @param nobody why a wish cannot be helped */
  constructor(most: number, mostMs: number, take: Take, nobody: (wish: Wish) => Fault) {
    this.#most = most;
    this.#mostMs = mostMs;
    this.#take = take;
    this.#nobody = nobody;
  }

  get length(): number {
    return this.#waiters.size;
  }

  /** @throws Fault overloaded | upstream_unavailable | draining | what the signal was aborted with */
  wait(wish: Wish, signal: AbortSignal | undefined): Promise<Ticket> {
    if (this.#closed) throw new Fault("draining", "The server is shutting down.");
    if (this.#waiters.size >= this.#most) throw busy();
    if (signal?.aborted === true) throw left(signal);
    const { promise, resolve, reject } = Promise.withResolvers<Ticket>();
    const settle = (result: Ticket | Fault): void => {
      this.#waiters.delete(waiter);
      clearTimeout(timer);
      signal?.removeEventListener("abort", leave);
      if (result instanceof Fault) reject(result);
      else resolve(result);
    };
    const waiter: Waiter = { wish, settle };
    const leave = (): void => settle(left(signal));
    const timer = setTimeout(() => settle(busy()), this.#mostMs);
    signal?.addEventListener("abort", leave, { once: true });
    this.#waiters.add(waiter);
    // Behind others that cannot be helped, it may be one that can.
    this.look();
    return promise;
  }

  /** Something has changed: whoever can be helped is. */
  look(): void {
    for (const waiter of this.#waiters) {
      const taken = this.#take(waiter.wish);
      if (taken === "none") waiter.settle(this.#nobody(waiter.wish));
      else if (taken !== "full") waiter.settle(taken);
      else if (waiter.wish.excluded.size === 0) return;
    }
  }

  close(): void {
    this.#closed = true;
    for (const { settle } of this.#waiters) settle(new Fault("draining", "The server is shutting down."));
  }
}

function busy(): Fault {
  return new UpstreamFault("busy", { sent: false, detail: "all upstreams are full", retryAfterMs: 1000 });
}

function left(signal: AbortSignal | undefined): Fault {
  const reason: unknown = signal?.reason;
  return reason instanceof Fault ? reason : new UpstreamFault("cancelled", { sent: false });
}
