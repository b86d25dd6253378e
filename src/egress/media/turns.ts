/**
 * Who may fetch now: so many at once, so many of a tenant, and so many that wait.
 *
 * Invariants: a tenant that fills its own share does not take the others'; whoever waits longest and may go, goes first;
 * whoever leaves the line (a deadline, a client that went away) leaves no place taken.
 * Callers: fetcher.ts.
 */
import { EgressEnd } from "#egress/decision.ts";

export interface TurnLimits {
  readonly atOnce: number;
  readonly atOncePerTenant: number;
  readonly waiting: number;
  readonly waitingPerTenant: number;
}

interface Waiter {
  readonly tenant: string;
  readonly go: () => void;
}

export class Turns {
  readonly #limits: TurnLimits;
  readonly #running = new Map<string, number>();
  #total = 0;
  #line: Waiter[] = [];

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /** @returns gives the turn back, once. @throws EgressEnd busy; the signal's reason */
  async take(tenant: string, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (!this.#hasRoom(tenant)) await this.#wait(tenant, signal);
    else this.#begin(tenant);
    return () => this.#end(tenant);
  }

  #hasRoom(tenant: string): boolean {
    const { atOnce, atOncePerTenant } = this.#limits;
    return this.#total < atOnce && (this.#running.get(tenant) ?? 0) < atOncePerTenant;
  }

  #begin(tenant: string): void {
    this.#total++;
    this.#running.set(tenant, (this.#running.get(tenant) ?? 0) + 1);
  }

  #end(tenant: string): void {
    const left = (this.#running.get(tenant) ?? 1) - 1;
    if (left === 0) this.#running.delete(tenant);
    else this.#running.set(tenant, left);
    this.#total--;
    const next = this.#line.findIndex((waiter) => this.#hasRoom(waiter.tenant));
    if (next >= 0) this.#line.splice(next, 1)[0]?.go();
  }

  #wait(tenant: string, signal: AbortSignal): Promise<void> {
    const { waiting, waitingPerTenant } = this.#limits;
    const own = this.#line.filter((waiter) => waiter.tenant === tenant).length;
    if (this.#line.length >= waiting || own >= waitingPerTenant) throw new EgressEnd("busy", "too many wait already");
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = (): void => {
      this.#line = this.#line.filter((other) => other !== waiter);
      reject(signal.reason);
    };
    const waiter: Waiter = {
      tenant,
      go: () => {
        signal.removeEventListener("abort", leave);
        this.#begin(tenant);
        resolve();
      },
    };
    this.#line.push(waiter);
    signal.addEventListener("abort", leave, { once: true });
    return promise;
  }
}
