/**
 * Which upstream saw the beginning of a prompt last: its blocks are likely in that one's prefix cache.
 *
 * Blocks are named as the engine names them (engine/prefix/hash.ts), salted by tenant, so that nobody can tell by the time
 * that an answer takes what another tenant asks (Wall: T123). They double in length: seven hashes tell how alike two
 * prompts of any length are to within a factor of two. Invariant: bounded entries, the least recently used go first.
 * Callers: balancer.ts, pool.ts.
 */
import type { BlockHash, BlockHasher } from "#engine/prefix/hash.ts";

export interface Prefix {
  /** Of the tenant, and of the model or adapter. */
  readonly salt: string;
  /** The bytes of the prompt from its beginning, in pieces. */
  readonly pieces: readonly Uint8Array[];
}

/** Less than that is computed sooner than it is looked for. */
const FIRST_BLOCK = 1024;
const MOST_BYTES = 64 * 1024;

export class PrefixNamer {
  readonly #hasher: BlockHasher;
  readonly #scratch = new Int32Array(MOST_BYTES / 4);
  readonly #bytes = new Uint8Array(this.#scratch.buffer);

  constructor(hasher: BlockHasher) {
    this.#hasher = hasher;
  }

  /** The prompt's blocks from the shortest prefix to the longest; none for a prompt shorter than the first. */
  blocks({ salt, pieces }: Prefix): BlockHash[] {
    let filled = 0;
    for (const piece of pieces) {
      const taken = piece.subarray(0, MOST_BYTES - filled);
      this.#bytes.set(taken, filled);
      filled += taken.length;
    }
    const found: BlockHash[] = [];
    let parent = this.#hasher.root;
    for (let [from, to] = [0, FIRST_BLOCK]; to <= filled; [from, to] = [to, to * 2]) {
      parent = this.#hasher.block(parent, this.#scratch.subarray(from / 4, to / 4), from === 0 ? [salt] : []);
      found.push(parent);
    }
    return found;
  }
}

export class Affinity {
  readonly #most: number;
  readonly #owners = new Map<BlockHash, number>();

  /** @param most entries */
  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#owners.size;
  }

  /** The member that has the longest prefix, of those that may be taken. */
  owner(blocks: readonly BlockHash[], may: (id: number) => boolean): number | undefined {
    for (let at = blocks.length - 1; at >= 0; at--) {
      const id = this.#owners.get(blocks[at] as BlockHash);
      if (id !== undefined && may(id)) return id;
    }
    return undefined;
  }

  remember(blocks: readonly BlockHash[], id: number): void {
    if (blocks.length === 0) return;
    for (const block of blocks) {
      this.#owners.delete(block);
      this.#owners.set(block, id);
    }
    for (const oldest of this.#owners.keys()) {
      if (this.#owners.size <= this.#most) break;
      this.#owners.delete(oldest);
    }
  }

  forget(id: number): void {
    for (const [block, owner] of this.#owners) if (owner === id) this.#owners.delete(block);
  }
}
