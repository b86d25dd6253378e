/**
 * Who gets the next request: the upstream with the fewest outstanding tokens for its weight, or the one that has seen the
 * prompt's beginning as long as it is not much busier than that.
 *
 * A state machine: the clock is handed in, nothing here waits or connects. Invariants: what is ejected, asleep, unhealthy,
 * leaving, full or excluded is never taken; every ticket is given back once, so that what is outstanding returns to zero;
 * at most a share of the pool is ejected; memory is bounded by members and affinity entries. Upstreams that have nothing
 * to do take turns by their weights. Callers: pool.ts.
 */
import type { BlockHash } from "#engine/prefix/hash.ts";
import { type EjectionOptions, Member, type Verdict } from "./_member.ts";
import { Affinity } from "./affinity.ts";

export type { EjectionOptions, Verdict } from "./_member.ts";

export interface BalancerOptions extends EjectionOptions {
  /** Requests at one upstream at once. */
  readonly maxInFlight: number;
  /** The affine upstream is kept while its load is at most factor × the least load + slack. */
  readonly affinityFactor: number;
  readonly affinitySlackTokens: number;
  readonly affinityEntries: number;
  readonly slowStartMs: number;
  /** Milliseconds. */
  readonly now: () => number;
  readonly onEjected?: (id: number) => void;
}

export interface Wish {
  /** What it will cost, about. */
  readonly tokens: number;
  readonly blocks: readonly BlockHash[];
  /** As the upstreams name it: only those that are known to have it. */
  readonly adapter?: string | undefined;
  readonly excluded: ReadonlySet<number>;
}

/** Work that an upstream has been given. */
export interface Ticket {
  readonly id: number;
  tokens: number;
  returned: boolean;
}

export interface MemberState {
  readonly id: number;
  readonly weight: number;
  readonly inFlight: number;
  readonly outstandingTokens: number;
  readonly firstByteSeconds: number | undefined;
  readonly consecutiveFailures: number;
  /** Grows with every sign of life. */
  readonly answered: number;
  readonly adapters: readonly string[];
  readonly state: UpstreamState;
}

export const UPSTREAM_STATES = ["ready", "ejected", "unhealthy", "asleep", "leaving"] as const;
export type UpstreamState = (typeof UPSTREAM_STATES)[number];

const MAX_ADAPTERS = 1024;

export class Balancer {
  readonly #options: BalancerOptions;
  readonly #members = new Map<number, Member>();
  readonly #affinity: Affinity;
  #next = 0;
  /** Where the turns of those with nothing to do have come to. */
  #turn = 0;

  constructor(options: BalancerOptions) {
    this.#options = options;
    this.#affinity = new Affinity(options.affinityEntries);
  }

  get affinityEntries(): number {
    return this.#affinity.size;
  }

  get size(): number {
    return this.#members.size;
  }

  /** @param slowly it is new to a pool that works: it gets its share little by little */
  add(weight: number, slowly: boolean): number {
    const id = this.#next++;
    this.#members.set(id, new Member(id, weight, slowly ? this.#options.now() : Number.NEGATIVE_INFINITY));
    return id;
  }

  /** It gets nothing more; what it has goes on. */
  leave(id: number): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    member.leaving = true;
    this.#affinity.forget(id);
    if (member.inFlight === 0) this.#members.delete(id);
  }

  setHealthy(id: number, healthy: boolean): void {
    const member = this.#members.get(id);
    if (member === undefined || member.healthy === healthy) return;
    member.healthy = healthy;
    if (healthy) member.back(this.#options.now());
  }

  setAsleep(id: number, asleep: boolean): void {
    const member = this.#members.get(id);
    if (member === undefined || member.asleep === asleep) return;
    member.asleep = asleep;
    // What it had cached went with its memory.
    if (asleep) this.#affinity.forget(id);
    else member.back(this.#options.now());
  }

  /** @param changes as they were when it was asked: what has been loaded since it does not know */
  setAdapters(id: number, adapters: Iterable<string>, changes = this.adapterChanges(id)): void {
    const member = this.#members.get(id);
    if (member === undefined || member.adapterChanges !== changes) return;
    member.adapters = new Set([...adapters].slice(0, MAX_ADAPTERS));
  }

  adapterChanges(id: number): number {
    return this.#members.get(id)?.adapterChanges ?? 0;
  }

  /** It has just loaded or unloaded one. */
  changeAdapter(id: number, name: string, has: boolean): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    member.adapterChanges++;
    const others = [...member.adapters].filter((other) => other !== name);
    member.adapters = new Set((has ? [name, ...others] : others).slice(0, MAX_ADAPTERS));
  }

  /** `full`: some will be free again; `none`: nobody is there for it. */
  take(wish: Wish): Ticket | "full" | "none" {
    const now = this.#options.now();
    let somebody = false;
    let least: Member | undefined;
    for (const each of this.#members.values()) {
      if (!each.open(now) || wish.excluded.has(each.id) || !has(each, wish.adapter)) continue;
      somebody = true;
      if (!this.#free(each)) continue;
      if (least === undefined || this.#before(each, least, now)) least = each;
    }
    if (least === undefined) return somebody ? "full" : "none";
    const chosen = wish.blocks.length === 0 ? least : (this.#affine(least, wish, now) ?? least);
    this.#affinity.remember(wish.blocks, chosen.id);
    const start = Math.max(this.#turn, chosen.finish);
    this.#turn = start;
    chosen.finish = start + wish.tokens / chosen.share(now, this.#options.slowStartMs);
    chosen.inFlight++;
    chosen.outstanding += wish.tokens;
    return { id: chosen.id, tokens: wish.tokens, returned: false };
  }

  #free({ inFlight }: Member): boolean {
    return inFlight < this.#options.maxInFlight;
  }

  /** The one that knows the prompt's beginning, unless it is much busier than the least busy one. */
  #affine(least: Member, wish: Wish, now: number): Member | undefined {
    const may = (id: number): boolean => {
      const member = this.#members.get(id);
      if (member === undefined || !this.#free(member) || !member.open(now)) return false;
      return !wish.excluded.has(id) && has(member, wish.adapter);
    };
    const owner = this.#affinity.owner(wish.blocks, may);
    const affine = owner === undefined ? undefined : this.#members.get(owner);
    if (affine === undefined) return undefined;
    const { affinityFactor, affinitySlackTokens } = this.#options;
    const bound = affinityFactor * this.#load(least, now) + affinitySlackTokens / affine.weight;
    return this.#load(affine, now) <= bound ? affine : undefined;
  }

  #before(a: Member, b: Member, now: number): boolean {
    const difference = this.#load(a, now) - this.#load(b, now);
    return difference === 0 ? a.finish < b.finish : difference < 0;
  }

  #load(member: Member, now: number): number {
    return member.outstanding / member.share(now, this.#options.slowStartMs);
  }

  /** More, or less, is known of what it will cost. */
  correct(ticket: Ticket, tokens: number): void {
    const member = this.#members.get(ticket.id);
    if (ticket.returned || member === undefined) return;
    member.outstanding += tokens - ticket.tokens;
    ticket.tokens = tokens;
  }

  sawFirstByte(ticket: Ticket, seconds: number): void {
    this.#members.get(ticket.id)?.sawFirstByte(seconds);
  }

  /** The first call counts. */
  give(ticket: Ticket, verdict: Verdict): void {
    const member = this.#members.get(ticket.id);
    if (ticket.returned || member === undefined) return;
    ticket.returned = true;
    member.inFlight--;
    member.outstanding -= ticket.tokens;
    if (member.leaving && member.inFlight === 0) this.#members.delete(member.id);
    const now = this.#options.now();
    if (verdict !== "neutral" && member.saw(verdict, now, this.#options)) this.#eject(member, now);
  }

  #eject(member: Member, now: number): void {
    if (member.leaving || member.ejected(now)) return;
    const staying = [...this.#members.values()].filter(({ leaving }) => !leaving);
    const out = staying.filter((each) => each.ejected(now)).length;
    if (out + 1 > Math.floor(this.#options.ejectShare * staying.length)) return;
    member.eject(now, this.#options);
    this.#options.onEjected?.(member.id);
  }

  /** Milliseconds until an ejected upstream is back; undefined: none is ejected. */
  soonestBack(): number | undefined {
    const now = this.#options.now();
    const waits = [...this.#members.values()]
      .filter((each) => each.ejected(now))
      .map((each) => each.ejectedUntil - now);
    return waits.length === 0 ? undefined : Math.min(...waits);
  }

  states(): readonly MemberState[] {
    const now = this.#options.now();
    return [...this.#members.values()].map((each) => ({
      id: each.id,
      weight: each.weight,
      inFlight: each.inFlight,
      outstandingTokens: each.outstanding,
      firstByteSeconds: each.firstByte,
      consecutiveFailures: each.consecutiveFailures,
      answered: each.answered,
      adapters: [...each.adapters],
      state: stateOf(each, now),
    }));
  }
}

function stateOf(member: Member, now: number): UpstreamState {
  if (member.leaving) return "leaving";
  if (member.asleep) return "asleep";
  if (!member.healthy) return "unhealthy";
  return member.ejected(now) ? "ejected" : "ready";
}

function has({ adapters }: Member, adapter: string | undefined): boolean {
  return adapter === undefined || adapters.has(adapter);
}
