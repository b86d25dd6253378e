/**
 * Which slot of the kernel holds which blocks: the index of the prefix cache. Bookkeeping only; it moves nothing.
 *
 * A slot holds the first `tokens` tokens of some text, as a chain of block hashes; the last, partial block has no name
 * and is never found. Running and retained slots are indexed alike: a prefix may be copied from a sequence that is
 * still being generated.
 * Invariants: a slot stands under exactly the hashes of its chain; blocks × size ≤ tokens. Called by placement.ts.
 */
import type { BlockHash } from "./hash.ts";

export interface Match {
  /** Slots that hold the matched blocks; at least one. */
  readonly slots: ReadonlySet<number>;
  readonly blocks: number;
}

interface Holding {
  chain: BlockHash[];
  /** Tokens in the kernel, those of the partial block included. */
  tokens: number;
  /** When it was last of use; higher is later. */
  used: number;
}

export class PrefixIndex {
  readonly #slots: Holding[];
  readonly #holders = new Map<BlockHash, Set<number>>();
  #clock = 0;

  constructor(slots: number) {
    this.#slots = Array.from({ length: slots }, () => ({ chain: [], tokens: 0, used: 0 }));
  }

  /** The longest chain that starts as the first `limit` blocks do. Undefined when not even the first one is held. */
  match(blocks: readonly BlockHash[], limit: number): Match | undefined {
    let found: Match | undefined;
    for (let count = 1; count <= limit; count++) {
      const slots = this.#holders.get(blocks[count - 1] as BlockHash);
      if (slots === undefined) break;
      found = { slots, blocks: count };
    }
    return found;
  }

  /** The slot now holds `tokens` tokens, whose full blocks are `chain`, of which a part may be known already. */
  hold(slot: number, chain: readonly BlockHash[], blocks: number, tokens: number): void {
    const holding = this.#at(slot);
    for (let at = holding.chain.length; at < blocks; at++) this.#append(slot, holding, chain[at] as BlockHash);
    holding.tokens = tokens;
    holding.used = ++this.#clock;
  }

  /** Forgets all after the first blocks. */
  keep(slot: number, blocks: number, tokens: number): void {
    const holding = this.#at(slot);
    for (const block of holding.chain.splice(blocks)) this.#remove(slot, block);
    holding.tokens = tokens;
  }

  /** `to`, which holds nothing, becomes like the first blocks of `from`. */
  copy(from: number, to: number, blocks: number, tokens: number): void {
    this.hold(to, this.#at(from).chain, blocks, tokens);
  }

  touch(slot: number): void {
    this.#at(slot).used = ++this.#clock;
  }

  setUsed(slot: number, used: number): void {
    this.#at(slot).used = used;
  }

  tokens(slot: number): number {
    return this.#at(slot).tokens;
  }

  blocks(slot: number): number {
    return this.#at(slot).chain.length;
  }

  lastUsed(slot: number): number {
    return this.#at(slot).used;
  }

  /** Different blocks that are held. */
  get size(): number {
    return this.#holders.size;
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(blockSize: number): void {
    let entries = 0;
    this.#slots.forEach(({ chain, tokens }, slot) => {
      if (chain.length * blockSize > tokens) throw new Error(`slot ${slot} has more blocks than tokens`);
      for (const block of chain)
        if (!this.#holders.get(block)?.has(slot)) throw new Error(`slot ${slot} is not under one of its blocks`);
      entries += new Set(chain).size;
    });
    for (const slots of this.#holders.values()) entries -= slots.size;
    if (entries !== 0) throw new Error("the index names slots that do not hold the block");
  }

  #append(slot: number, holding: Holding, block: BlockHash): void {
    holding.chain.push(block);
    const slots = this.#holders.get(block);
    if (slots === undefined) this.#holders.set(block, new Set([slot]));
    else slots.add(slot);
  }

  #remove(slot: number, block: BlockHash): void {
    const slots = this.#holders.get(block);
    slots?.delete(slot);
    if (slots?.size === 0) this.#holders.delete(block);
  }

  #at(slot: number): Holding {
    return this.#slots[slot] as Holding;
  }
}
