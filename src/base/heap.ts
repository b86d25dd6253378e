/**
 * A binary heap whose items can be taken out, or put right after they have changed, wherever they are: each in the
 * logarithm of its size.
 *
 * Invariants (checkIntegrity): no item stands in it twice; nothing comes before its parent. Pure.
 */
export class Heap<T> {
  readonly #before: (a: T, b: T) => boolean;
  readonly #items: T[] = [];
  readonly #places = new Map<T, number>();

  /** @param before a strict order; what it compares changes only between a call here and `update` */
  constructor(before: (a: T, b: T) => boolean) {
    this.#before = before;
  }

  get size(): number {
    return this.#items.length;
  }

  /** The first by the order. */
  top(): T | undefined {
    return this.#items[0];
  }

  add(item: T): void {
    if (this.#places.has(item)) {
      this.update(item);
      return;
    }
    this.#items.push(item);
    this.#up(item, this.#items.length - 1);
  }

  /** What it is compared by has changed. */
  update(item: T): void {
    const place = this.#places.get(item);
    if (place !== undefined) this.#down(item, this.#up(item, place));
  }

  remove(item: T): void {
    const place = this.#places.get(item);
    if (place === undefined) return;
    this.#places.delete(item);
    // It takes the free place, unless it is the one that goes.
    const last = this.#items.pop() as T;
    if (last !== item) this.#down(last, this.#up(last, place));
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    if (this.#places.size !== this.#items.length) throw new Error("items and places differ");
    for (const [at, item] of this.#items.entries()) {
      if (this.#places.get(item) !== at) throw new Error(`the item at ${at} is not where it is said to be`);
      const parent = this.#items[(at - 1) >> 1];
      if (at > 0 && parent !== undefined && this.#before(item, parent)) throw new Error(`${at} is before its parent`);
    }
  }

  /** @returns where it has come to */
  #up(item: T, from: number): number {
    let at = from;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = this.#items[above] as T;
      if (!this.#before(item, parent)) break;
      this.#put(parent, at);
      at = above;
    }
    this.#put(item, at);
    return at;
  }

  #down(item: T, from: number): void {
    let at = from;
    for (;;) {
      const left = 2 * at + 1;
      if (left >= this.#items.length) break;
      const right = left + 1;
      const [a, b] = [this.#items[left] as T, this.#items[right] as T];
      const below = right < this.#items.length && this.#before(b, a) ? right : left;
      const child = this.#items[below] as T;
      if (!this.#before(child, item)) break;
      this.#put(child, at);
      at = below;
    }
    this.#put(item, at);
  }

  #put(item: T, at: number): void {
    this.#items[at] = item;
    this.#places.set(item, at);
  }
}
