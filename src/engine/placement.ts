/**
 * Who sits in which slot, and what idle slots still hold: the prefix cache over a kernel whose slots have cells of
 * their own.
 *
 * The kernel is fastest while the running slots are consecutive: each gap costs another pass over the weights
 * (llama.cpp, split_equal). So a new sequence sits beside those that run, what it shares with another slot is copied
 * there, and gaps that nobody fills are closed by moving a sequence. What ended stays in its slot until the slot is
 * wanted; the least recently used goes first.
 * Invariants (checkIntegrity): a slot belongs to at most one sequence; the holdings tell what the kernel holds once
 * `takeMoves` was carried out. Called by scheduler.ts and engine.ts.
 */
import { commonBlocks, Holdings } from "./prefix/index.ts";
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
  /** As KernelLimits.prefillBlock. */
  readonly prefillBlock: number;
  /**
   * Take over tokens that were computed in another way than this prompt would have them computed (one by one while
   * answering, not in prefill blocks). Their numbers differ in the last digits.
   */
  readonly reuseGenerated: boolean;
}

/** What a slot has of a sequence's tokens. */
interface Match {
  readonly slot: number;
  readonly blocks: number;
}

export class Placement {
  readonly #options: PlacementOptions;
  readonly #running: (Sequence | undefined)[];
  readonly #held: Holdings;
  #moves: Move[] = [];

  constructor(options: PlacementOptions) {
    this.#options = options;
    this.#running = new Array<Sequence | undefined>(options.slots).fill(undefined);
    this.#held = new Holdings(options.slots);
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
    const best = this.#bestMatch(sequence);
    const slot = this.#choose(sequence, best?.blocks ?? 0);
    const own = best === undefined ? 0 : this.#matchWith(sequence, slot);
    const blocks = this.#obtain(slot, best !== undefined && best.blocks > own ? best : { slot, blocks: own });
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
    if (sequence.length <= minCopyTokens || sequence.promptRowsLeft > 0) return false;
    const enough = (this.#bestMatch(sequence)?.blocks ?? 0) * blockSize + minCopyTokens;
    return this.#running.some((other) => {
      if (other === undefined || other.paused || other.decoding) return false;
      const ready = Math.floor(other.prompt.length / blockSize);
      const common = commonBlocks(sequence.blocks, other.blocks, ready);
      return this.#usable(sequence, common, this.#bodyOf(other)) * blockSize >= enough;
    });
  }

  /** Takes a running sequence off its slot. @param valid whether what the kernel computed for it may be used again */
  release(sequence: Sequence, valid: boolean): void {
    const { slot } = sequence;
    this.#running[slot] = undefined;
    sequence.slot = -1;
    sequence.computed = 0;
    if (!valid || !this.#options.retain || this.#held.at(slot).chain.length === 0) this.forget(slot);
  }

  /** The kernel computed more of the sequence. */
  advance(sequence: Sequence): void {
    const blocks = Math.min(sequence.blocks.length, Math.floor(sequence.computed / this.#options.blockSize));
    const body = Math.min(this.#bodyOf(sequence), sequence.computed);
    this.#held.hold(sequence.slot, sequence.blocks, blocks, sequence.computed, body);
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
    const idle = this.#idle().filter((slot) => this.#held.at(slot).tokens > 0);
    if (idle.length === 0) return false;
    this.forget(this.#leastUsed(idle));
    return true;
  }

  forget(slot: number): void {
    if (this.#held.at(slot).tokens === 0) return;
    this.#held.keep(slot, 0, 0);
    this.#moves.push({ from: slot, to: slot, tokens: 0 });
  }

  /** The kernel has nothing in this slot, whatever it should have. @returns who runs there and starts again */
  lose(slot: number): Sequence | undefined {
    this.#held.keep(slot, 0, 0);
    const sequence = this.#running[slot];
    if (sequence !== undefined) sequence.computed = 0;
    return sequence;
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
    return this.#held.at(slot).tokens;
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    this.#held.checkIntegrity(this.#options.blockSize);
    this.#running.forEach((sequence, slot) => {
      if (sequence === undefined) return;
      if (sequence.slot !== slot || sequence.state !== "running")
        throw new Error(`slot ${slot} and its sequence differ`);
      if (sequence.computed >= sequence.length) throw new Error(`slot ${slot} has nothing left to compute`);
      if (sequence.computed !== this.#held.at(slot).tokens)
        throw new Error(
          `slot ${slot} holds ${this.#held.at(slot).tokens} tokens, its sequence has ${sequence.computed}`,
        );
    });
  }

  /** Tokens that the scheduler has computed in whole prefill blocks for this sequence. */
  #bodyOf(sequence: Sequence): number {
    const { prefillBlock } = this.#options;
    return sequence.prompt.length - (sequence.prompt.length % prefillBlock);
  }

  /**
   * Of so many common blocks, those that the sequence can take over from a text with such a body: at least one token
   * is left to compute, as its row is wanted; what is left starts where a prefill block may start; and, unless told
   * otherwise, every token was computed the way in which this sequence would have it computed.
   */
  #usable(sequence: Sequence, common: number, theirBody: number): number {
    const { blockSize, prefillBlock, reuseGenerated } = this.#options;
    const body = this.#bodyOf(sequence);
    let tokens = Math.min(common * blockSize, sequence.length - 1);
    const alike = reuseGenerated || prefillBlock === 1 || body === theirBody;
    if (!alike) tokens = Math.min(tokens, body, theirBody);
    tokens -= tokens % blockSize;
    if (tokens < body) tokens -= tokens % leastCommonMultiple(blockSize, prefillBlock);
    return tokens / blockSize;
  }

  #matchWith(sequence: Sequence, slot: number): number {
    // Logprobs of the prompt need every row of it, so nothing can be skipped (as in vLLM).
    if (sequence.promptRowsLeft > 0) return 0;
    const { chain, body, tokens } = this.#held.at(slot);
    // While its prompt is being computed a slot has less than its body will be.
    const running = this.#running[slot];
    const theirBody = running === undefined ? body : this.#bodyOf(running);
    const common = commonBlocks(sequence.blocks, chain, chain.length);
    return tokens === 0 ? 0 : this.#usable(sequence, common, theirBody);
  }

  #bestMatch(sequence: Sequence): Match | undefined {
    let best: Match | undefined;
    if (sequence.blocks.length === 0) return undefined;
    for (let slot = 0; slot < this.#running.length; slot++) {
      const blocks = this.#matchWith(sequence, slot);
      if (blocks > (best?.blocks ?? 0)) best = { slot, blocks };
    }
    return best;
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

  /** The idle slot that has much of it already and would lose little, else the one whose content is of least use. */
  #choose(sequence: Sequence, most: number): number {
    const candidates = this.#candidates();
    const hasMost = (slot: number): boolean =>
      this.#matchWith(sequence, slot) === most && this.#held.at(slot).chain.length <= 2 * most + 4;
    const own = most === 0 ? [] : candidates.filter(hasMost);
    return this.#leastUsed(own.length > 0 ? own : candidates);
  }

  /** Brings the matched blocks into the slot; returns how many it has then. */
  #obtain(slot: number, match: Match): number {
    const tokens = match.blocks * this.#options.blockSize;
    if (match.slot === slot) {
      if (this.#held.at(slot).tokens > tokens) this.#move(slot, slot, match.blocks, tokens);
      return match.blocks;
    }
    if (tokens < this.#options.minCopyTokens) {
      this.forget(slot);
      return 0;
    }
    this.#move(match.slot, slot, match.blocks, tokens);
    this.#held.touch(match.slot);
    return match.blocks;
  }

  #shift(from: number, to: number, start: number, count: number): void {
    const sequence = this.#running[from] as Sequence;
    if (this.#held.at(to).chain.length > 0) this.#rescue(to, start, count);
    this.#running[from] = undefined;
    this.#running[to] = sequence;
    sequence.slot = to;
    const { chain, tokens } = this.#held.at(from);
    if (tokens > 0) this.#move(from, to, chain.length, tokens);
    else this.forget(to);
    this.forget(from);
  }

  /** Moves what an idle slot holds to a slot of less worth, outside the window, before it is overwritten. */
  #rescue(slot: number, start: number, count: number): void {
    const others = this.#idle().filter((other) => other < start || other >= start + count);
    const target = this.#leastUsed([slot, ...others]);
    if (target === slot) return;
    const { chain, tokens, used } = this.#held.at(slot);
    this.#move(slot, target, chain.length, tokens);
    this.#held.setUsed(target, used);
  }

  #move(from: number, to: number, blocks: number, tokens: number): void {
    if (from === to) this.#held.keep(to, blocks, tokens);
    else this.#held.copy(from, to, blocks, tokens);
    this.#moves.push({ from, to, tokens });
  }

  #leastUsed(slots: readonly number[]): number {
    let best = slots[0] as number;
    for (const slot of slots) if (this.#worth(slot) < this.#worth(best)) best = slot;
    return best;
  }

  #worth(slot: number): number {
    const { tokens, used } = this.#held.at(slot);
    return tokens === 0 ? -1 : used;
  }

  #occupied(): number[] {
    return [...this.#running.keys()].filter((slot) => this.#running[slot] !== undefined);
  }

  #idle(): number[] {
    return [...this.#running.keys()].filter((slot) => this.#running[slot] === undefined);
  }
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return (a / x) * b;
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
