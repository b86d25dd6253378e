/**
 * What each slot of the kernel holds, by names of blocks. Bookkeeping only; it moves nothing.
 *
 * A slot holds the first `tokens` tokens of some text, as a chain of block hashes and, where they are at hand, the tokens
 * themselves: names find a text, and say whose it is; tokens then tell how far two of them agree within a block.
 * Running and retained slots are known alike: a prefix may be copied from a sequence that is still being generated.
 * Invariant: blocks × block size ≤ tokens. Called by placement.ts.
 */
import type { BlockHash } from "./hash.ts";

/** Tokens of a sequence, in their order. */
export interface Text {
  readonly prompt: Int32Array;
  readonly output: readonly number[];
}

export interface Holding {
  readonly chain: BlockHash[];
  /** Tokens in the kernel, those of the partial block included. */
  tokens: number;
  /** What those tokens are; what was read from disk is known by names only. */
  text: Text | undefined;
  /** The first so many tokens were computed in prefill blocks, the rest not (prefill.ts). */
  body: number;
  /** When it was last of use; higher is later. */
  used: number;
}

export class Holdings {
  readonly #slots: Holding[];
  #clock = 0;

  constructor(slots: number) {
    this.#slots = Array.from({ length: slots }, () => ({ chain: [], tokens: 0, text: undefined, body: 0, used: 0 }));
  }

  at(slot: number): Readonly<Holding> {
    return this.#slots[slot] as Holding;
  }

  /** The slot now holds what is said, whose full blocks are the first ones of `chain`, of which it has a part. */
  hold(slot: number, { chain, tokens, text, body }: Omit<Holding, "used">, blocks: number): void {
    const holding = this.#slots[slot] as Holding;
    for (let at = holding.chain.length; at < blocks; at++) holding.chain.push(chain[at] as BlockHash);
    holding.tokens = tokens;
    holding.text = text;
    holding.body = body;
    this.touch(slot);
  }

  /** Forgets all after the first blocks. */
  keep(slot: number, blocks: number, tokens: number): void {
    const holding = this.#slots[slot] as Holding;
    holding.chain.length = blocks;
    holding.tokens = tokens;
    if (tokens === 0) holding.text = undefined;
    holding.body = Math.min(holding.body, tokens);
  }

  /** `to` becomes like the first blocks of `from`. */
  copy(from: number, to: number, blocks: number, tokens: number): void {
    const { chain, text, body } = this.at(from);
    this.keep(to, 0, 0);
    this.hold(to, { chain, tokens, text, body: Math.min(body, tokens) }, blocks);
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

/** What a text's tokens are found by. */
interface Named extends Text {
  readonly blocks: readonly BlockHash[];
}

/**
 * How many tokens two texts share. Where not even a block has the same name they share none, whatever they are: names
 * keep tenants and adapters apart (Wall: T27).
 */
export function commonTokens(a: Named, b: Pick<Holding, "chain" | "text" | "tokens">, blockSize: number): number {
  const blocks = commonBlocks(a.blocks, b.chain);
  let at = blocks * blockSize;
  if (blocks === 0 || b.text === undefined) return at;
  while (at < b.tokens && tokenAt(a, at) !== undefined && tokenAt(a, at) === tokenAt(b.text, at)) at++;
  return at;
}

function tokenAt({ prompt, output }: Text, at: number): number | undefined {
  return at < prompt.length ? prompt[at] : output[at - prompt.length];
}

/** How many blocks two chains share: they agree up to a point and never after it. */
function commonBlocks(a: readonly BlockHash[], b: readonly BlockHash[]): number {
  let [low, high] = [0, Math.min(a.length, b.length)];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (a[middle - 1] === b[middle - 1]) low = middle;
    else high = middle - 1;
  }
  return low;
}
