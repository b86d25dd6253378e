/**
 * The order of those who wait: fair between shares (tenants, by weight), first come first served within one.
 *
 * As the engine's own queue has it (engine/fair-queue.ts, start-time fair queueing): a share's virtual time grows by the
 * tokens of what it was given, divided by its weight, and the share that is furthest behind is next; who comes new, or
 * back, begins where the others are. Those who wait for different upstreams (an adapter that some have, one that is tried
 * elsewhere) stand in one order, and one kind that cannot be helped does not hold up another.
 * Invariants (checkIntegrity): an idle share is kept only for its debt, and so many of them; what a share has waiting is
 * counted right. An operation costs the logarithm of those who wait, times the kinds. Pure. Callers: waiting-line.ts.
 */
import { Heap } from "#base/heap.ts";
import type { FairShare } from "#core/generate.ts";

export interface LineItem {
  readonly share: FairShare;
  /** Those of one kind can be helped by the same. */
  readonly kind: string;
  /** Tokens. */
  readonly cost: number;
}

interface Share<I> {
  readonly key: string;
  weight: number;
  /** Tokens given, by weight. */
  time: number;
  waiting: number;
  /** By kind. */
  readonly lanes: Map<string, Lane<I>>;
}

/** A share's items of a kind, in the order of their coming. */
interface Lane<I> {
  readonly share: Share<I>;
  readonly kind: string;
  first: Place<I> | undefined;
  last: Place<I> | undefined;
}

interface Place<I> {
  readonly item: I;
  readonly order: number;
  readonly lane: Lane<I>;
  before: Place<I> | undefined;
  after: Place<I> | undefined;
}

const MOST_IDLE = 4096;

export class FairLine<I extends LineItem> {
  readonly #shares = new Map<string, Share<I>>();
  readonly #kinds = new Map<string, Heap<Lane<I>>>();
  readonly #places = new Map<I, Place<I>>();
  /** With a debt and nothing waiting, the least debt first. */
  readonly #idle = new Heap<Share<I>>((a, b) => a.time < b.time);
  /** The most for its weight first. */
  readonly #largest = new Heap<Share<I>>((a, b) => a.waiting * b.weight > b.waiting * a.weight);
  /** Where the share stood that was given something last. */
  #now = 0;
  #order = 0;

  get size(): number {
    return this.#places.size;
  }

  add(item: I): void {
    const share = this.#arrive(item.share);
    const { lanes } = share;
    const lane: Lane<I> = lanes.get(item.kind) ?? { share, kind: item.kind, first: undefined, last: undefined };
    const place: Place<I> = { item, order: this.#order++, lane, before: lane.last, after: undefined };
    if (lane.last === undefined) lane.first = place;
    else lane.last.after = place;
    lane.last = place;
    this.#places.set(item, place);
    share.waiting++;
    this.#idle.remove(share);
    this.#largest.add(share);
    if (lanes.has(item.kind)) return;
    lanes.set(item.kind, lane);
    const heap = this.#kinds.get(item.kind) ?? new Heap<Lane<I>>(goesBefore);
    this.#kinds.set(item.kind, heap);
    heap.add(lane);
  }

  /** It waits no more; nothing was given to it. */
  remove(item: I): void {
    const place = this.#places.get(item);
    if (place === undefined) return;
    this.#places.delete(item);
    const { lane, before, after } = place;
    if (before === undefined) lane.first = after;
    else before.after = after;
    if (after === undefined) lane.last = before;
    else after.before = before;
    this.#settleLane(lane);
    const { share } = lane;
    share.waiting--;
    if (share.waiting > 0) this.#largest.update(share);
    else this.#rest(share);
  }

  /** Whose turn it is, among kinds that are not left out. */
  next(without: ReadonlySet<string>): I | undefined {
    let best: Lane<I> | undefined;
    for (const [kind, lanes] of this.#kinds) {
      const lane = without.has(kind) ? undefined : lanes.top();
      if (lane !== undefined && (best === undefined || goesBefore(lane, best))) best = lane;
    }
    return best?.first?.item;
  }

  /** It is given what it waited for. */
  grant(item: I): void {
    const place = this.#places.get(item);
    if (place === undefined) return;
    const { share } = place.lane;
    this.#now = Math.max(this.#now, share.time);
    share.time += Math.max(1, item.cost) / share.weight;
    for (const lane of share.lanes.values()) this.#kinds.get(lane.kind)?.update(lane);
    this.remove(item);
    this.#forgive();
  }

  /** Of the share that has the most for its weight the last that came, where this one would have less with one more. */
  loserTo({ key, weight }: FairShare): I | undefined {
    const largest = this.#largest.top();
    const own = this.#shares.get(key)?.waiting ?? 0;
    if (largest === undefined || largest.key === key || (own + 1) * largest.weight >= largest.waiting * weight)
      return undefined;
    let last: Place<I> | undefined;
    for (const lane of largest.lanes.values())
      if (lane.last !== undefined && (last === undefined || lane.last.order > last.order)) last = lane.last;
    return last?.item;
  }

  /** In no order. */
  items(): readonly I[] {
    return [...this.#places.keys()];
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    for (const heap of [this.#idle, this.#largest, ...this.#kinds.values()]) heap.checkIntegrity();
    let waiting = 0;
    for (const share of this.#shares.values()) {
      waiting += share.waiting;
      const inLanes = [...share.lanes.values()].reduce((sum, lane) => sum + lengthOf(lane), 0);
      if (inLanes !== share.waiting)
        throw new Error(`${share.key} has ${inLanes} waiting, and counts ${share.waiting}`);
      if (share.waiting === 0 && share.time <= this.#now) throw new Error(`${share.key} is kept for nothing`);
    }
    if (waiting !== this.#places.size) throw new Error(`${waiting} wait in lanes, ${this.#places.size} in all`);
    if (this.#idle.size + this.#largest.size !== this.#shares.size) throw new Error("a share neither waits nor rests");
    if (this.#idle.size > MOST_IDLE) throw new Error("too many rest");
    if (this.#places.size === 0 && this.#shares.size > 0) throw new Error("nobody waits, and somebody is remembered");
  }

  #arrive({ key, weight }: FairShare): Share<I> {
    const share: Share<I> = this.#shares.get(key) ?? { key, weight, time: this.#now, waiting: 0, lanes: new Map() };
    this.#shares.set(key, share);
    share.weight = weight;
    if (share.waiting === 0) share.time = Math.max(share.time, this.#now);
    return share;
  }

  /** Its head, or it, is gone. */
  #settleLane(lane: Lane<I>): void {
    const { kind, share } = lane;
    const lanes = this.#kinds.get(kind);
    if (lane.first !== undefined) {
      lanes?.update(lane);
      return;
    }
    share.lanes.delete(kind);
    lanes?.remove(lane);
    if (lanes?.size === 0) this.#kinds.delete(kind);
  }

  #rest(share: Share<I>): void {
    this.#largest.remove(share);
    this.#idle.add(share);
    this.#forgive();
  }

  /** Debts that are over; all of them once nobody waits. */
  #forgive(): void {
    for (let least = this.#idle.top(); least !== undefined; least = this.#idle.top()) {
      if (this.#places.size > 0 && least.time > this.#now && this.#idle.size <= MOST_IDLE) return;
      this.#idle.remove(least);
      this.#shares.delete(least.key);
    }
    if (this.#places.size === 0) this.#now = 0;
  }
}

function goesBefore<I>(a: Lane<I>, b: Lane<I>): boolean {
  if (a.share.time !== b.share.time) return a.share.time < b.share.time;
  return (a.first?.order ?? 0) < (b.first?.order ?? 0);
}

function lengthOf<I>({ first }: Lane<I>): number {
  let length = 0;
  for (let place = first; place !== undefined; place = place.after) length++;
  return length;
}
