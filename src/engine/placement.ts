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
import { bodyOf } from "./prefill.ts";
import { commonTokens, Holdings } from "./prefix/index.ts";
import type { Sequence } from "./sequence.ts";
import type { SpillCatalog, Spilled } from "./spill/catalog.ts";

/**
 * `slot`: `to` holds the first `tokens` tokens of `from` from now on; where they are the same, the rest is forgotten.
 * `spill`: what `from` holds goes to disk. `restore`: `to` holds the first `tokens` of the `saved` ones of an entry.
 */
export type Move =
  | { readonly kind: "slot"; readonly from: number; readonly to: number; readonly tokens: number }
  | { readonly kind: "spill"; readonly id: number; readonly from: number }
  | {
      readonly kind: "restore";
      readonly id: number;
      readonly to: number;
      readonly tokens: number;
      readonly saved: number;
    };

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
  /** Where to put what a slot has to give up; nowhere if absent. */
  readonly spill?: SpillRules;
}

export interface SpillRules {
  readonly catalog: SpillCatalog;
  /** Fewer tokens are computed again sooner than they are read. */
  readonly minTokens: number;
  readonly bytesPerToken: number;
}

/** So many tokens and twice what is shared may be cut off a slot; where it has more, a copy is made. */
const MUCH_TO_LOSE = 64;

/** How much a slot has of a sequence's tokens. */
interface Match {
  readonly slot: number;
  readonly tokens: number;
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
    const spilled = this.#spilledMatch(sequence, best?.tokens ?? 0);
    const slot = this.#choose(sequence, spilled === undefined ? (best?.tokens ?? 0) : 0);
    const own = best === undefined ? 0 : this.#matchWith(sequence, slot);
    const near = best !== undefined && best.tokens > own ? best : { slot, tokens: own };
    const tokens = spilled === undefined ? this.#obtain(slot, near) : this.#restore(slot, spilled);
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
    const near = this.#bestMatch(sequence)?.tokens ?? 0;
    const enough = (this.#spilledMatch(sequence, near)?.tokens ?? near) + minCopyTokens;
    return this.#running.some((other) => {
      if (other === undefined || other.paused || other.decoding) return false;
      const ready = { chain: other.blocks, text: other, tokens: other.prompt.length };
      const common = Math.min(commonTokens(sequence, ready, blockSize), ready.tokens);
      return this.#usable(sequence, common, this.#bodyOf(other)) >= enough;
    });
  }

  /** Takes a running sequence off its slot. @param valid whether what the kernel computed for it may be used again */
  release(sequence: Sequence, valid: boolean): void {
    const { slot } = sequence;
    this.#running[slot] = undefined;
    sequence.slot = -1;
    sequence.computed = 0;
    if (!valid || !this.#options.retain || this.#held.at(slot).chain.length === 0) this.forget(slot, false);
  }

  /** The kernel computed more of the sequence. */
  advance(sequence: Sequence): void {
    const blocks = Math.min(sequence.blocks.length, Math.floor(sequence.computed / this.#options.blockSize));
    const { prompt, output, computed: tokens } = sequence;
    const body = Math.min(this.#bodyOf(sequence), tokens);
    this.#held.hold(sequence.slot, { chain: sequence.blocks, text: { prompt, output }, tokens, body }, blocks);
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

  /** @param retire whether it may go to disk */
  forget(slot: number, retire = true): void {
    if (this.#held.at(slot).tokens === 0) return;
    if (retire) this.#retire(slot, 0);
    this.#held.keep(slot, 0, 0);
    this.#moves.push({ kind: "slot", from: slot, to: slot, tokens: 0 });
  }

  /** Takes back what was computed beyond so many tokens. */
  cut(sequence: Sequence, tokens: number): void {
    const { slot } = sequence;
    this.#move(slot, slot, tokens);
    sequence.computed = tokens;
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
    for (const slot of this.#idle()) this.forget(slot, false);
    this.#options.spill?.catalog.clear();
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

  #bodyOf(sequence: Sequence): number {
    return bodyOf(sequence.prompt.length, this.#options.prefillBlock);
  }

  /**
   * Of so many common tokens, those that the sequence can take over from a text with such a body: at least one is left
   * to compute, as its row is wanted; if any of the body are left they are a block at least; and, unless told
   * otherwise, every token was computed the way in which this sequence would have it computed.
   */
  #usable(sequence: Sequence, common: number, theirBody: number): number {
    const { prefillBlock, reuseGenerated } = this.#options;
    const body = this.#bodyOf(sequence);
    let tokens = Math.min(common, sequence.length - 1);
    if (!reuseGenerated && body !== theirBody) tokens = Math.min(tokens, body, theirBody);
    return tokens < body ? Math.max(0, Math.min(tokens, body - prefillBlock)) : tokens;
  }

  #matchWith(sequence: Sequence, slot: number): number {
    // Logprobs of the prompt need every row of it, so nothing can be skipped (as in vLLM).
    if (sequence.promptRowsLeft > 0) return 0;
    const held = this.#held.at(slot);
    // While its prompt is being computed a slot has less than its body will be.
    const running = this.#running[slot];
    const theirBody = running === undefined ? held.body : this.#bodyOf(running);
    return this.#usable(sequence, commonTokens(sequence, held, this.#options.blockSize), theirBody);
  }

  #bestMatch(sequence: Sequence): Match | undefined {
    let best: Match | undefined;
    if (sequence.blocks.length === 0) return undefined;
    for (let slot = 0; slot < this.#running.length; slot++) {
      const tokens = this.#matchWith(sequence, slot);
      if (tokens > (best?.tokens ?? 0)) best = { slot, tokens };
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
      this.#matchWith(sequence, slot) === most && this.#held.at(slot).tokens <= 2 * most + MUCH_TO_LOSE;
    const own = most === 0 ? [] : candidates.filter(hasMost);
    return this.#leastUsed(own.length > 0 ? own : candidates);
  }

  /** Brings the matched tokens into the slot; returns how many it has then. */
  #obtain(slot: number, { slot: from, tokens }: Match): number {
    if (from === slot) {
      if (this.#held.at(slot).tokens > tokens) this.#move(slot, slot, tokens);
      return tokens;
    }
    if (tokens < this.#options.minCopyTokens) {
      this.forget(slot);
      return 0;
    }
    this.#move(from, slot, tokens);
    this.#held.touch(from);
    return tokens;
  }

  #shift(from: number, to: number, start: number, count: number): void {
    const sequence = this.#running[from] as Sequence;
    if (this.#held.at(to).chain.length > 0) this.#rescue(to, start, count);
    this.#running[from] = undefined;
    this.#running[to] = sequence;
    sequence.slot = to;
    const { tokens } = this.#held.at(from);
    if (tokens > 0) this.#move(from, to, tokens);
    else this.forget(to);
    this.forget(from, false);
  }

  /** Moves what an idle slot holds to a slot of less worth, outside the window, before it is overwritten. */
  #rescue(slot: number, start: number, count: number): void {
    const others = this.#idle().filter((other) => other < start || other >= start + count);
    const target = this.#leastUsed([slot, ...others]);
    if (target === slot) return;
    const { tokens, used } = this.#held.at(slot);
    this.#move(slot, target, tokens);
    this.#held.setUsed(target, used);
    this.forget(slot, false);
  }

  #move(from: number, to: number, tokens: number): void {
    const blocks = Math.min(this.#held.at(from).chain.length, Math.floor(tokens / this.#options.blockSize));
    this.#retire(to, from === to ? blocks : 0);
    if (from === to) this.#held.keep(to, blocks, tokens);
    else this.#held.copy(from, to, blocks, tokens);
    this.#moves.push({ kind: "slot", from, to, tokens });
  }

  /** What a slot is about to lose goes to disk, if it is worth that and not there yet. @param kept blocks that stay */
  #retire(slot: number, kept: number): void {
    const { spill, blockSize, retain } = this.#options;
    const { chain, tokens, body } = this.#held.at(slot);
    if (spill === undefined || !retain || (chain.length - kept) * blockSize < spill.minTokens) return;
    if (spill.catalog.has(chain)) return;
    const entry = spill.catalog.add(chain, tokens, body, tokens * spill.bytesPerToken);
    if (entry !== undefined) this.#moves.push({ kind: "spill", id: entry.id, from: slot });
  }

  /** What lies on disk of a sequence, where that is clearly more than a slot has. @param near tokens that a slot has */
  #spilledMatch(sequence: Sequence, near: number): SpilledMatch | undefined {
    const { spill, blockSize } = this.#options;
    if (spill === undefined || sequence.promptRowsLeft > 0) return undefined;
    const found = spill.catalog.find(sequence.blocks);
    if (found === undefined) return undefined;
    const tokens = this.#usable(sequence, found.blocks * blockSize, found.entry.body);
    return tokens - near < spill.minTokens ? undefined : { entry: found.entry, tokens };
  }

  #restore(slot: number, { entry, tokens }: SpilledMatch): number {
    const blocks = Math.floor(tokens / this.#options.blockSize);
    this.#retire(slot, 0);
    this.#held.keep(slot, 0, 0);
    const body = Math.min(entry.body, tokens);
    this.#held.hold(slot, { chain: [...entry.chain], text: undefined, tokens, body }, blocks);
    this.#moves.push({ kind: "restore", id: entry.id, to: slot, tokens, saved: entry.tokens });
    return tokens;
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

interface SpilledMatch {
  readonly entry: Spilled;
  readonly tokens: number;
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
