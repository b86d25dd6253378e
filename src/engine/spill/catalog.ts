/**
 * Which prefixes lie on disk, by the names of their blocks. Bookkeeping only; store.ts has the bytes.
 *
 * Bounded in bytes and number: what was of no use for longest goes first. Called by placement.ts (find, add) and
 * moves.ts (what became of it).
 */
import type { BlockHash } from "#engine/prefix/hash.ts";

export interface Spilled {
  readonly id: number;
  readonly chain: readonly BlockHash[];
  /** Tokens of the slot that it was: whole blocks, and a part of one. */
  readonly tokens: number;
  /** As Holding.body. */
  readonly body: number;
}

const MAX_ENTRIES = 4096;

export class SpillCatalog {
  /** In order of use, the latest last. */
  readonly #entries = new Map<number, Spilled & { readonly bytes: number }>();
  readonly #byBlock = new Map<BlockHash, number>();
  readonly #maxBytes: number;
  readonly #remove: (id: number) => void;
  #bytes = 0;
  #ids = 0;

  /** @param remove deletes the bytes of what is forgotten */
  constructor(maxBytes: number, remove: (id: number) => void) {
    this.#maxBytes = maxBytes;
    this.#remove = remove;
  }

  /** The entry that shares most with a text, and how many blocks. */
  find(blocks: readonly BlockHash[]): { readonly entry: Spilled; readonly blocks: number } | undefined {
    for (let count = blocks.length; count > 0; count--) {
      const entry = this.#entries.get(this.#byBlock.get(blocks[count - 1] as BlockHash) ?? -1);
      if (entry !== undefined) return { entry, blocks: count };
    }
    return undefined;
  }

  /** Whether all of a chain lies here. */
  has(chain: readonly BlockHash[]): boolean {
    const last = chain[chain.length - 1];
    return last !== undefined && this.#byBlock.has(last);
  }

  /** @param bytes what it will take, about. @returns undefined: larger than all that may be kept */
  add(chain: readonly BlockHash[], tokens: number, body: number, bytes: number): Spilled | undefined {
    if (bytes > this.#maxBytes) return undefined;
    const entry = { id: ++this.#ids, chain: [...chain], tokens, body, bytes };
    this.#entries.set(entry.id, entry);
    for (const block of chain) this.#byBlock.set(block, entry.id);
    this.#bytes += bytes;
    while (this.#bytes > this.#maxBytes || this.#entries.size > MAX_ENTRIES)
      this.drop((this.#entries.keys().next().value as number) ?? 0);
    return entry;
  }

  touch(id: number): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#entries.delete(id);
    this.#entries.set(id, entry);
  }

  drop(id: number): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#entries.delete(id);
    this.#bytes -= entry.bytes;
    for (const block of entry.chain) if (this.#byBlock.get(block) === id) this.#byBlock.delete(block);
    this.#remove(id);
  }

  clear(): void {
    for (const id of [...this.#entries.keys()]) this.drop(id);
  }

  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#entries.size;
  }
}
