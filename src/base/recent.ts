/**
 * A map that keeps what was asked for lately: two maps, of which the older one goes as a whole when the younger is half full.
 *
 * Invariants: never more than `most` entries; what is among the last `most / 2` different keys that were asked for or
 * set is there. Why not one map, and its oldest entry by its iterator: that walks over all places that were freed
 * before, which with thousands of entries costs more than what is kept saves.
 */
export class Recent<K, V extends object> {
  readonly #half: number;
  #young = new Map<K, V>();
  #old = new Map<K, V>();

  /** @param most ≥ 2 */
  constructor(most: number) {
    this.#half = Math.floor(most / 2);
  }

  get(key: K): V | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.set(key, old);
    return old;
  }

  /** Without counting as asked for. */
  has(key: K): boolean {
    return this.#young.has(key) || this.#old.has(key);
  }

  set(key: K, value: V): void {
    if (this.#young.size >= this.#half && !this.#young.has(key)) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(key, value);
  }

  delete(key: K): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }
}
