/**
 * The waiting sequences, in the order in which they are to run: fair between shares (tenants, to the engine only a key
 * and a weight), first come first served within one.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): a share's virtual time grows with the tokens it was
 * granted, divided by its weight; the share that is furthest behind goes next. One that comes back from idleness
 * starts no earlier than those at work, so that nobody saves up; one that ran ahead keeps its debt. With a single
 * share this is first come first served.
 * Invariants (checkIntegrity): each share's sequences are sorted; an idle share is kept only for its debt.
 * Used by scheduler.ts only.
 */
import type { Sequence } from "./sequence.ts";

interface Share {
  readonly waiting: Sequence[];
  /** Tokens granted, by weight. */
  time: number;
}

export type Compare = (a: Sequence, b: Sequence) => number;

export class FairQueue {
  readonly #shares = new Map<string, Share>();
  /** What comes before the fairness between shares: a priority. 0 where two are alike. */
  readonly #rank: Compare;
  #count = 0;

  constructor(rank: Compare) {
    this.#rank = rank;
  }

  get count(): number {
    return this.#count;
  }

  /** Queues a sequence at its place. @param running all running sequences: their shares are at work too */
  add(sequence: Sequence, running: readonly Sequence[]): void {
    const share = this.#arrive(sequence.share, running);
    const { waiting } = share;
    let low = 0;
    let high = waiting.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#within(waiting[middle] as Sequence, sequence) < 0) low = middle + 1;
      else high = middle;
    }
    waiting.splice(low, 0, sequence);
    this.#count++;
  }

  /** Forgets a sequence, if it waits. */
  remove(sequence: Sequence): void {
    const waiting = this.#shares.get(sequence.share)?.waiting ?? [];
    const at = waiting.indexOf(sequence);
    if (at < 0) return;
    waiting.splice(at, 1);
    this.#count--;
  }

  /** The sequence whose turn it is, without the skipped ones. */
  next(skipped: ReadonlySet<Sequence>): Sequence | undefined {
    let best: Sequence | undefined;
    for (const { waiting } of this.#shares.values()) {
      const head = waiting.find((sequence) => !skipped.has(sequence));
      if (head !== undefined && (best === undefined || this.compare(head, best) < 0)) best = head;
    }
    return best;
  }

  /** So many tokens were granted to the sequence. */
  charge({ share, weight }: Sequence, tokens: number): void {
    const entry = this.#shares.get(share);
    if (entry !== undefined) entry.time += tokens / weight;
  }

  /** Who comes first: by rank, then the share that is further behind, then order of arrival. */
  compare(a: Sequence, b: Sequence): number {
    const ranked = this.#rank(a, b);
    if (ranked !== 0) return ranked;
    return a.share === b.share ? a.order - b.order : this.#timeOf(a) - this.#timeOf(b) || a.order - b.order;
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    let count = 0;
    for (const [key, { waiting }] of this.#shares) {
      count += waiting.length;
      waiting.forEach((sequence, at) => {
        const before = waiting[at - 1];
        if (sequence.share !== key) throw new Error(`a sequence of ${sequence.share} waits with ${key}`);
        if (sequence.state !== "waiting" || sequence.slot !== -1) throw new Error("a waiting sequence has a slot");
        if (before !== undefined && this.#within(before, sequence) >= 0) throw new Error("waiting is not sorted");
      });
    }
    if (count !== this.#count) throw new Error(`${count} sequences wait, ${this.#count} are counted`);
  }

  [Symbol.iterator](): Iterator<Sequence> {
    return [...this.#shares.values()].flatMap(({ waiting }) => waiting)[Symbol.iterator]();
  }

  #within(a: Sequence, b: Sequence): number {
    return this.#rank(a, b) || a.order - b.order;
  }

  #timeOf({ share }: Sequence): number {
    return this.#shares.get(share)?.time ?? 0;
  }

  #arrive(key: string, running: readonly Sequence[]): Share {
    const present = this.#shares.get(key);
    const atWork = new Set(running.map(({ share }) => share));
    for (const [other, { waiting }] of this.#shares) if (waiting.length > 0) atWork.add(other);
    if (present !== undefined && atWork.has(key)) return present;
    const now = Math.min(...[...atWork].map((other) => this.#shares.get(other)?.time ?? 0));
    this.#forgetIdle(atWork, now);
    const share = this.#shares.get(key) ?? { waiting: [], time: 0 };
    if (Number.isFinite(now)) share.time = Math.max(share.time, now);
    this.#shares.set(key, share);
    return share;
  }

  /** Idle shares without a debt, and all of them once nobody is at work. */
  #forgetIdle(atWork: ReadonlySet<string>, now: number): void {
    for (const [key, { time }] of this.#shares) if (!atWork.has(key) && time <= now) this.#shares.delete(key);
  }
}
