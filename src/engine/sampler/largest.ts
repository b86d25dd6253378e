/**
 * The largest entry of a row, and whether the row can be sampled at all.
 *
 * Every comparison with NaN is false, so a NaN always leaves the fast loop and is seen; no pass is spent on looking
 * for it. Called by the sampler's files.
 */

/** `nan`, `infinite`: the model's doing. `empty`: nothing but -Infinity is left. */
export type RowProblem = "nan" | "infinite" | "empty";

/** The index of the largest of the first `length` entries, the first among equals; or what is wrong with the row. */
export function largest(row: Float32Array, length: number): number | RowProblem {
  let best = -Infinity;
  let at = -1;
  for (let index = 0; index < length; ) {
    // Nearly all entries are below the best so far: step over them four at a time.
    while (
      index + 3 < length &&
      (row[index] as number) <= best &&
      (row[index + 1] as number) <= best &&
      (row[index + 2] as number) <= best &&
      (row[index + 3] as number) <= best
    ) {
      index += 4;
    }
    const end = Math.min(index + 4, length);
    for (; index < end; index++) {
      const value = row[index] as number;
      if (value <= best) continue;
      if (Number.isNaN(value)) return "nan";
      best = value;
      at = index;
    }
  }
  if (at < 0) return "empty";
  return best === Infinity ? "infinite" : at;
}

/** The same among the entries whose bit is set. Mostly few are, under a grammar: then it costs a look at each word. */
export function largestAmong(row: Float32Array, mask: Uint32Array): number | RowProblem {
  let best = -Infinity;
  let at = -1;
  for (let word = 0; word < mask.length; word++) {
    // A set bit goes with each round: `bits & -bits` is the lowest.
    for (let bits = mask[word] as number; bits !== 0; bits &= bits - 1) {
      const index = word * 32 + (31 - Math.clz32(bits & -bits));
      if (index >= row.length) break;
      const value = row[index] as number;
      if (value <= best) continue;
      if (Number.isNaN(value)) return "nan";
      best = value;
      at = index;
    }
  }
  if (at < 0) return "empty";
  return best === Infinity ? "infinite" : at;
}
