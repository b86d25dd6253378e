/**
 * Those who wait while every upstream is full: fairly between tenants (fair-line.ts), so many at most, so long at most.
 *
 * Invariants (Wall: T82): whoever waits gets exactly one of a ticket, a fault at the deadline, or what the signal says; a
 * ticket is never taken for somebody who has left; where the line is full, somebody of whose tenant fewer wait takes the
 * place of the last that came of the tenant with the most. Callers: pool.ts.
 */
import { Fault } from "#core/fault.ts";
import type { FairShare } from "#core/generate.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import type { Ticket, Wish } from "./balancer.ts";
import { FairLine } from "./fair-line.ts";

interface Waiter {
  readonly wish: Wish;
  readonly share: FairShare;
  readonly kind: string;
  readonly cost: number;
  readonly settle: (result: Ticket | Fault) => void;
}

type Take = (wish: Wish) => Ticket | "full" | "none";

export class WaitingLine {
  readonly #most: number;
  readonly #mostMs: number;
  readonly #take: Take;
  readonly #nobody: (wish: Wish) => Fault;
  readonly #line = new FairLine<Waiter>();
  #closed = false;

  /** @param nobody why a wish cannot be helped */
  constructor(most: number, mostMs: number, take: Take, nobody: (wish: Wish) => Fault) {
    this.#most = most;
    this.#mostMs = mostMs;
    this.#take = take;
    this.#nobody = nobody;
  }

  get length(): number {
    return this.#line.size;
  }

  /**
   * @param onAbort in place of a signal
   * @throws Fault overloaded | upstream_unavailable | draining | what it was aborted with
   */
  wait(
    wish: Wish,
    share: FairShare,
    signal: AbortSignal | undefined,
    onAbort?: (run: (reason: Fault) => void) => void,
  ): Promise<Ticket> {
    if (this.#closed) throw new Fault("draining", "The server is shutting down.");
    if (signal?.aborted === true) throw left(signal);
    this.#makeRoom(share);
    const { promise, resolve, reject } = Promise.withResolvers<Ticket>();
    const settle = (result: Ticket | Fault): void => {
      this.#line.remove(waiter);
      clearTimeout(timer);
      signal?.removeEventListener("abort", leave);
      if (result instanceof Fault) reject(result);
      else resolve(result);
    };
    const waiter: Waiter = { wish, share, kind: kindOf(wish), cost: wish.tokens, settle };
    const leave = (): void => settle(left(signal));
    const timer = setTimeout(() => settle(busy()), this.#mostMs);
    signal?.addEventListener("abort", leave, { once: true });
    this.#line.add(waiter);
    onAbort?.(settle);
    // Behind others that cannot be helped, it may be one that can.
    this.look();
    return promise;
  }

  /** Something has changed: whoever can be helped is. */
  look(): void {
    if (this.#line.size === 0) return;
    const full = new Set<string>();
    for (let waiter = this.#line.next(full); waiter !== undefined; waiter = this.#line.next(full)) {
      const { wish, kind, settle } = waiter;
      const taken = this.#take(wish);
      if (taken === "full") {
        // Whoever takes any upstream finds none: nobody does.
        if (kind === ANY) return;
        full.add(kind);
      } else if (taken === "none") settle(this.#nobody(wish));
      else {
        this.#line.grant(waiter);
        settle(taken);
      }
    }
  }

  close(): void {
    this.#closed = true;
    for (const { settle } of this.#line.items()) settle(new Fault("draining", "The server is shutting down."));
  }

  /** @throws Fault overloaded: nobody has more waiting than this one would have */
  #makeRoom(share: FairShare): void {
    if (this.#line.size < this.#most) return;
    const loser = this.#line.loserTo(share);
    if (loser === undefined) throw busy();
    loser.settle(busy());
  }
}

const ANY = "";

/** By which upstreams may be taken. */
function kindOf({ adapter, excluded }: Wish): string {
  return adapter === undefined && excluded.size === 0 ? ANY : `${[...excluded].sort().join()} ${adapter ?? ""}`;
}

function busy(): Fault {
  return new UpstreamFault("busy", { sent: false, detail: "all upstreams are full", retryAfterMs: 1000 });
}

function left(signal: AbortSignal | undefined): Fault {
  const reason: unknown = signal?.reason;
  return reason instanceof Fault ? reason : new UpstreamFault("cancelled", { sent: false });
}
