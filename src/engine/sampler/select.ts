/**
 * The k likeliest entries of a row, without sorting the row: a heap of k over packed keys.
 *
 * A key packs (value, index) into one float64 so that a larger key means "comes first": a larger value, or at equal
 * values the lower index. 32 bits of order-preserving float32 and 21 bits of index fill the 53 of a float64 exactly.
 * Invariant: the order is total, so every selection is deterministic. Entries of -Infinity are never selected.
 */
const INDEX_LIMIT = 0x20_0000;
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** Rows longer than this cannot be packed. */
export const MAX_ROW_LENGTH = INDEX_LIMIT;

function pack(value: number, index: number): number {
  float[0] = value + 0; // -0 becomes 0: they are equal, so they must pack alike
  const raw = bits[0] as number;
  const ordered = (raw & 0x8000_0000 ? ~raw : raw | 0x8000_0000) >>> 0;
  return ordered * INDEX_LIMIT + (INDEX_LIMIT - 1 - index);
}

function indexOf(key: number): number {
  return INDEX_LIMIT - 1 - (key - Math.floor(key / INDEX_LIMIT) * INDEX_LIMIT);
}

export class Selector {
  /** Indices of the selected entries, likeliest first; the first `count` count. */
  readonly indices: Int32Array;
  readonly #keys: Float64Array;
  #size = 0;

  /** @param capacity the longest row, at most MAX_ROW_LENGTH */
  constructor(capacity: number) {
    this.indices = new Int32Array(capacity);
    this.#keys = new Float64Array(capacity);
  }

  /**
   * Selects at most `k` of the first `length` entries of `row`; returns how many, or -1 when it met a NaN.
   * Cost: one compare an entry, plus about k·ln(length/k) heap moves on unordered rows, then a sort of k.
   */
  select(row: Float32Array, length: number, k: number): number {
    this.#size = 0;
    let floor = -Infinity;
    for (let index = 0; index < length; ) {
      // Nearly all entries lie under the floor: step over them four at a time.
      while (
        index + 3 < length &&
        (row[index] as number) <= floor &&
        (row[index + 1] as number) <= floor &&
        (row[index + 2] as number) <= floor &&
        (row[index + 3] as number) <= floor
      ) {
        index += 4;
      }
      const end = Math.min(index + 4, length);
      for (; index < end; index++) {
        const value = row[index] as number;
        if (value <= floor) continue;
        if (Number.isNaN(value)) return -1; // a NaN fails every comparison, so it always gets here
        if (this.#size < k) this.#push(pack(value, index));
        else this.#replaceRoot(pack(value, index));
        if (this.#size === k) floor = row[indexOf(this.#keys[0] as number)] as number;
      }
    }
    return this.#settle();
  }

  /** Sorts the given entries of `row` (indices in `indices[0 … count)`) likeliest first, in place. */
  order(row: Float32Array, count: number): void {
    for (let at = 0; at < count; at++) {
      const index = this.indices[at] as number;
      this.#keys[at] = pack(row[index] as number, index);
    }
    this.#size = count;
    this.#settle();
  }

  #settle(): number {
    const count = this.#size;
    this.#keys.subarray(0, count).sort();
    for (let at = 0; at < count; at++) this.indices[at] = indexOf(this.#keys[count - 1 - at] as number);
    return count;
  }

  #push(key: number): void {
    const keys = this.#keys;
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = keys[parent] as number;
      if (above <= key) break;
      keys[at] = above;
      at = parent;
    }
    keys[at] = key;
  }

  #replaceRoot(key: number): void {
    const keys = this.#keys;
    const size = this.#size;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && (keys[child + 1] as number) < (keys[child] as number)) child++;
      if ((keys[child] as number) >= key) break;
      keys[at] = keys[child] as number;
      at = child;
    }
    keys[at] = key;
  }
}
