/**
 * The prefix cache's second shelf: what a slot held and has to give up goes to disk, and comes back when a prompt
 * starts with it (--kv-spill-dir). Catalog and store under one roof; made by engine.ts.
 */
import { SpillCatalog } from "./catalog.ts";
import { SpillStore } from "./store.ts";

export interface SpillOptions {
  readonly directory: string;
  /** Bytes on disk at most. */
  readonly maxBytes: number;
}

export class Spill {
  readonly catalog: SpillCatalog;
  readonly #store: SpillStore;

  /** @throws Error when nothing can be made in the directory */
  constructor({ directory, maxBytes }: SpillOptions) {
    this.#store = new SpillStore(directory);
    this.catalog = new SpillCatalog(maxBytes, (id) => this.#store.remove(id));
  }

  /** Keeps the bytes of an entry, or forgets the entry where the disk cannot follow. */
  save(id: number, data: Uint8Array): void {
    if (this.#store.takes(data.length)) this.#store.write(id, data, () => this.catalog.drop(id));
    else this.catalog.drop(id);
  }

  /** The bytes of an entry; an entry whose bytes are gone or changed is forgotten. */
  load(id: number): Uint8Array | undefined {
    const data = this.#store.read(id);
    if (data === undefined) this.catalog.drop(id);
    else this.catalog.touch(id);
    return data;
  }

  settled(): Promise<void> {
    return this.#store.settled();
  }

  close(): void {
    this.#store.close();
  }
}
