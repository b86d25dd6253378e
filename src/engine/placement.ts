/**
 * Who sits in which slot, and what idle slots still hold: the prefix cache over a kernel whose slots have cells of
 * their own.
 *
 * The kernel is fastest while the running slots are consecutive: each gap costs another pass over the weights
 * (llama.cpp, split_equal). So a new sequence sits beside those that run, what it shares with another slot is copied
 * there, and gaps that nobody fills are closed by moving a sequence. What ended stays in its slot until the slot is
 * wanted; the least recently used goes first.
 * Invariants (checkIntegrity): a slot belongs to at most one sequence; the index tells what the kernel holds once
 * `takeMoves` was carried out. Called by scheduler.ts and engine.ts.
 */
import type { BlockHash } from "./prefix/hash.ts";
import { type Match, PrefixIndex } from "./prefix/index.ts";
import type { Sequence } from "./sequence.ts";

/** Slot `to` holds the first `tokens` tokens of `from` from now on; where they are the same, the rest is forgotten. */
export interface Move {
  readonly from: number;
  readonly to: number;
  readonly tokens: number;
}

export interface PlacementOptions {
  readonly slots: number;
  readonly blockSize: number;
  /** A shorter shared prefix is computed again: copying costs as much as a slot is long. */
  readonly minCopyTokens: number;
  /** Keep what ended. Without it sequences of one request still share. */
  readonly retain: boolean;
}

export class Placement {
  readonly #options: PlacementOptions;
  readonly #running: (Sequence | undefined)[];
  readonly #index: PrefixIndex;
  #moves: Move[] = [];

  constructor(options: PlacementOptions) {
    this.#options = options;
    this.#running = new Array<Sequence | undefined>(options.slots).fill(undefined);
    this.#index = new PrefixIndex(options.slots);
  }

  /** Running sequences, by slot. */
  get running(): Sequence[] {
    return this.#running.filter((sequence) => sequence !== undefined);
  }

  get runningCount(): number {
    let count = 0;
    for (const sequence of this.#running) if (sequence !== undefined) count++;
    return count;
  }

  get hasRoom(): boolean {
    return this.runningCount < this.#running.length;
  }

  /** Seats a sequence; what it shares with a slot counts as computed. Call only while there is room. */
  seat(sequence: Sequence): void {
    const match = this.#matchOf(sequence);
    const candidates = this.#candidates();
    const slot = this.#choose(candidates, match);
    const blocks = match === undefined ? 0 : this.#obtain(slot, match);
    const tokens = blocks * this.#options.blockSize;
    this.#running[slot] = sequence;
    sequence.slot = slot;
    sequence.computed = tokens;
    sequence.state = "running";
  }

  /**
   * Whether it pays to let the sequence wait: a running prompt starts the same way and will have more of it ready than
   * any slot has now.
   */
  shouldWait(sequence: Sequence): boolean {
    const { blockSize, minCopyTokens } = this.#options;
    const wanted = usableBlocks(sequence, blockSize);
    if (wanted * blockSize < minCopyTokens) return false;
    const ready = this.#matchOf(sequence)?.blocks ?? 0;
    for (const other of this.#running) {
      if (other === undefined || other.paused || other.decoding) continue;
      const common = commonBlocks(sequence.blocks, other.blocks, Math.min(wanted, usableBlocks(other, blockSize)));
      if ((common - ready) * blockSize >= minCopyTokens) return true;
    }
    return false;
  }

  /** Takes a running sequence off its slot. @param valid whether what the kernel computed for it may be used again */
  release(sequence: Sequence, valid: boolean): void {
    const { slot } = sequence;
    this.#running[slot] = undefined;
    sequence.slot = -1;
    sequence.computed = 0;
    if (!valid || !this.#options.retain || this.#index.blocks(slot) === 0) this.forget(slot);
  }

  /** The kernel computed more of the sequence. */
  advance(sequence: Sequence): void {
    const blocks = Math.min(sequence.blocks.length, Math.floor(sequence.computed / this.#options.blockSize));
    this.#index.hold(sequence.slot, sequence.blocks, blocks, sequence.computed);
  }

  /** Closes the gaps between running slots with as few moves as possible. */
  compact(): void {
    const slots = this.#occupied();
    const count = slots.length;
    const span = count === 0 ? 0 : (slots[count - 1] as number) - (slots[0] as number) + 1;
    if (span === count) return;
    const start = bestWindow(slots);
    const gaps: number[] = [];
    for (let slot = start; slot < start + count; slot++) if (this.#running[slot] === undefined) gaps.push(slot);
    for (const slot of slots)
      if (slot < start || slot >= start + count) this.#shift(slot, gaps.shift() as number, start, count);
  }

  /** Frees the idle slot that was of no use for longest. False when none holds anything. */
  evict(): boolean {
    const idle = this.#idle().filter((slot) => this.#index.tokens(slot) > 0);
    if (idle.length === 0) return false;
    this.forget(this.#leastUsed(idle));
    return true;
  }

  forget(slot: number): void {
    if (this.#index.tokens(slot) === 0) return;
    this.#index.keep(slot, 0, 0);
    this.#moves.push({ from: slot, to: slot, tokens: 0 });
  }

  /** Forgets all that no sequence uses. */
  reset(): void {
    while (this.evict());
  }

  /** What the kernel has to do before the next forward, in this order. */
  takeMoves(): readonly Move[] {
    const moves = this.#moves;
    this.#moves = [];
    return moves;
  }

  /** Tokens that the kernel holds for a slot, once the moves are carried out. */
  tokens(slot: number): number {
    return this.#index.tokens(slot);
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    this.#index.checkIntegrity(this.#options.blockSize);
    this.#running.forEach((sequence, slot) => {
      if (sequence === undefined) return;
      if (sequence.slot !== slot || sequence.state !== "running")
        throw new Error(`slot ${slot} and its sequence differ`);
      if (sequence.computed >= sequence.length) throw new Error(`slot ${slot} has nothing left to compute`);
      if (sequence.computed !== this.#index.tokens(slot))
        throw new Error(`slot ${slot} holds ${this.#index.tokens(slot)} tokens, its sequence has ${sequence.computed}`);
    });
  }

  #matchOf(sequence: Sequence): Match | undefined {
    // Logprobs of the prompt need every row of it, so nothing can be skipped (as in vLLM).
    if (sequence.promptRowsLeft > 0) return undefined;
    const usable = usableBlocks(sequence, this.#options.blockSize);
    return usable === 0 ? undefined : this.#index.match(sequence.blocks, usable);
  }

  /** Idle slots that leave the running ones consecutive: those in a gap, else those at the ends, else all. */
  #candidates(): number[] {
    const slots = this.#occupied();
    if (slots.length === 0) return this.#idle();
    const [first, last] = [slots[0] as number, slots[slots.length - 1] as number];
    const gaps = this.#idle().filter((slot) => slot > first && slot < last);
    if (gaps.length > 0) return gaps;
    return [first - 1, last + 1].filter((slot) => slot >= 0 && slot < this.#running.length);
  }

  /** The slot that has most of it already and would lose little, else the one whose content is of least use. */
  #choose(candidates: readonly number[], match: Match | undefined): number {
    const own = candidates.filter(
      (slot) => match?.slots.has(slot) && this.#index.blocks(slot) <= Math.max(2 * match.blocks, match.blocks + 4),
    );
    if (own.length > 0) return this.#leastUsed(own);
    return this.#leastUsed(candidates);
  }

  /** Brings the matched blocks into the slot; returns how many it has then. */
  #obtain(slot: number, match: Match): number {
    const { blockSize, minCopyTokens } = this.#options;
    const tokens = match.blocks * blockSize;
    if (match.slots.has(slot)) {
      if (this.#index.tokens(slot) > tokens) this.#move(slot, slot, match.blocks, tokens);
      this.#index.touch(slot);
      return match.blocks;
    }
    if (tokens < minCopyTokens) {
      this.forget(slot);
      return 0;
    }
    const from = match.slots.values().next().value as number;
    this.#move(from, slot, match.blocks, tokens);
    this.#index.touch(from);
    return match.blocks;
  }

  #shift(from: number, to: number, start: number, count: number): void {
    const sequence = this.#running[from] as Sequence;
    if (this.#index.blocks(to) > 0) this.#rescue(to, start, count);
    this.#running[from] = undefined;
    this.#running[to] = sequence;
    sequence.slot = to;
    if (this.#index.tokens(from) > 0) this.#move(from, to, this.#index.blocks(from), this.#index.tokens(from));
    else this.forget(to);
    this.forget(from);
  }

  /** Moves what an idle slot holds to a slot of less worth, outside the window, before it is overwritten. */
  #rescue(slot: number, start: number, count: number): void {
    const others = this.#idle().filter((other) => other < start || other >= start + count);
    const target = this.#leastUsed([slot, ...others]);
    if (target === slot) return;
    const used = this.#index.lastUsed(slot);
    this.#move(slot, target, this.#index.blocks(slot), this.#index.tokens(slot));
    this.#index.setUsed(target, used);
  }

  #move(from: number, to: number, blocks: number, tokens: number): void {
    if (from === to) this.#index.keep(to, blocks, tokens);
    else {
      this.#index.keep(to, 0, 0);
      this.#index.copy(from, to, blocks, tokens);
    }
    this.#moves.push({ from, to, tokens });
  }

  #leastUsed(slots: readonly number[]): number {
    let best = slots[0] as number;
    for (const slot of slots) if (this.#worth(slot) < this.#worth(best)) best = slot;
    return best;
  }

  #worth(slot: number): number {
    return this.#index.tokens(slot) === 0 ? -1 : this.#index.lastUsed(slot);
  }

  #occupied(): number[] {
    const slots: number[] = [];
    this.#running.forEach((sequence, slot) => sequence !== undefined && slots.push(slot));
    return slots;
  }

  #idle(): number[] {
    const slots: number[] = [];
    this.#running.forEach((sequence, slot) => sequence === undefined && slots.push(slot));
    return slots;
  }
}

/** Blocks that a lookup may use: at least one token is left to compute, as its row is wanted. */
function usableBlocks(sequence: Sequence, blockSize: number): number {
  return Math.min(sequence.blocks.length, Math.floor((sequence.length - 1) / blockSize));
}

/** Chains agree up to a point and never after it. */
function commonBlocks(a: readonly BlockHash[], b: readonly BlockHash[], most: number): number {
  let [low, high] = [0, most];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (a[middle - 1] === b[middle - 1]) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Where a window as long as there are slots has most of them inside. @param slots ascending */
function bestWindow(slots: readonly number[]): number {
  const count = slots.length;
  let [best, most] = [slots[0] as number, 0];
  let from = 0;
  for (let to = 0; to < count; to++) {
    while ((slots[to] as number) - (slots[from] as number) >= count) from++;
    if (to - from + 1 > most) {
      most = to - from + 1;
      best = Math.min(slots[from] as number, (slots[count - 1] as number) - count + 1);
    }
  }
  return best;
}
