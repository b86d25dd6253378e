/**
 * What each slot of the kernel holds, by names of blocks. Bookkeeping only; it moves nothing.
 *
 * A slot holds the first `tokens` tokens of some text, as a chain of block hashes; the last, partial block has no name
 * and is never found. Running and retained slots are known alike: a prefix may be copied from a sequence that is still
 * being generated.
 * Invariant: blocks × block size ≤ tokens. Called by placement.ts.
 */
import type { BlockHash } from "./hash.ts";

export interface Holding {
  readonly chain: BlockHash[];
  /** Tokens in the kernel, those of the partial block included. */
  tokens: number;
  /** The first so many tokens were computed as whole prefill blocks, the rest not (KernelLimits.prefillBlock). */
  body: number;
  /** When it was last of use; higher is later. */
  used: number;
}

export class Holdings {
  readonly #slots: Holding[];
  #clock = 0;

  constructor(slots: number) {
    this.#slots = Array.from({ length: slots }, () => ({ chain: [], tokens: 0, body: 0, used: 0 }));
  }

  at(slot: number): Readonly<Holding> {
    return this.#slots[slot] as Holding;
  }

  /** The slot now holds `tokens` tokens, whose full blocks are the first ones of `chain`, of which it has a part. */
  hold(slot: number, chain: readonly BlockHash[], blocks: number, tokens: number, body: number): void {
    const holding = this.#slots[slot] as Holding;
    for (let at = holding.chain.length; at < blocks; at++) holding.chain.push(chain[at] as BlockHash);
    holding.tokens = tokens;
    holding.body = body;
    this.touch(slot);
  }

  /** Forgets all after the first blocks. */
  keep(slot: number, blocks: number, tokens: number): void {
    const holding = this.#slots[slot] as Holding;
    holding.chain.length = blocks;
    holding.tokens = tokens;
    holding.body = Math.min(holding.body, tokens);
  }

  /** `to` becomes like the first blocks of `from`. */
  copy(from: number, to: number, blocks: number, tokens: number): void {
    const { chain, body } = this.at(from);
    this.keep(to, 0, 0);
    this.hold(to, chain, blocks, tokens, Math.min(body, tokens));
  }

  touch(slot: number): void {
    (this.#slots[slot] as Holding).used = ++this.#clock;
  }

  setUsed(slot: number, used: number): void {
    (this.#slots[slot] as Holding).used = used;
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(blockSize: number): void {
    this.#slots.forEach(({ chain, tokens, body }, slot) => {
      if (chain.length * blockSize > tokens) throw new Error(`slot ${slot} has more blocks than tokens`);
      if (body > tokens) throw new Error(`slot ${slot} has ${body} of ${tokens} tokens in prefill blocks`);
    });
  }
}

/** How many blocks two chains share, `most` at most: they agree up to a point and never after it. */
export function commonBlocks(a: readonly BlockHash[], b: readonly BlockHash[], most: number): number {
  let [low, high] = [0, Math.min(most, a.length, b.length)];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (a[middle - 1] === b[middle - 1]) low = middle;
    else high = middle - 1;
  }
  return low;
}
