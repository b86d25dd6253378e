/**
 * The chain of block hashes of a sequence, made as its tokens become known. Called by engine.ts only.
 */
import type { Sequence } from "#engine/sequence.ts";
import type { BlockHasher } from "./hash.ts";

export interface ChainMaker {
  readonly hasher: BlockHasher;
  /** Tokens of a block. */
  readonly blockSize: number;
}

/** Names the full blocks among all tokens that are known. */
export function extendChain(sequence: Sequence, { hasher, blockSize }: ChainMaker): void {
  const { blocks } = sequence;
  while ((blocks.length + 1) * blockSize <= sequence.length) {
    const at = blocks.length;
    const tokens = Int32Array.from({ length: blockSize }, (_, i) => sequence.tokenAt(at * blockSize + i));
    const keys = sequence.adapterName === undefined ? [] : [sequence.adapterName];
    if (at === 0 && sequence.cacheSalt !== "") keys.push(sequence.cacheSalt);
    blocks.push(hasher.block(blocks[at - 1] ?? hasher.root, tokens, keys));
  }
}
