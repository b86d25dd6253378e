/**
 * Draws one entry of a row under temperature, min_p, top_k and top_p, in vLLM's order: temperature, min_p, top_k,
 * top_p, each over what the one before left (vllm/v1/sample/ops/topk_topp_sampler.py).
 *
 * Exact: the kept set is that of a full sort by (logit falling, index rising). top_k keeps exactly k, ties to the
 * lower index (vLLM keeps all that tie with the k-th). The likeliest entry is always kept.
 * A row without a finite largest entry draws nothing and says why. Called by sampler.ts.
 */
import { BUCKETS, BUCKETS_PER_NAT, bucketAt, weightAt } from "./exp.ts";
import { largest, type RowProblem } from "./largest.ts";
import { Selector } from "./select.ts";

export interface Shape {
  /** > 0 */
  readonly temperature: number;
  /** 0 = all */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
}

export class Drawer {
  readonly #selector: Selector;
  /** Indices of the kept entries, when something cuts. */
  readonly kept: Int32Array;
  /** Running sums of weights: over the kept entries, or over the row when nothing cuts it. */
  readonly #sums: Float64Array;
  readonly #mass = new Float64Array(BUCKETS);

  /** @param capacity the longest row */
  constructor(capacity: number) {
    this.#selector = new Selector(capacity);
    this.kept = new Int32Array(capacity);
    this.#sums = new Float64Array(capacity);
  }

  /**
   * @param u uniform in [0, 1)
   * @returns an index in [0, length), or why there is none
   */
  draw(row: Float32Array, length: number, shape: Shape, u: number): number | RowProblem {
    const cuts = (shape.topK > 0 && shape.topK < length) || shape.topP < 1;
    if (!cuts) return this.#drawAll(row, length, shape, u);
    const count = this.keep(row, length, shape);
    return typeof count === "string" ? count : (this.kept[pick(this.#sums, count, u)] as number);
  }

  /** Leaves the entries that min_p, top_k and top_p keep in `kept`; returns how many (≥ 1), or why there are none. */
  keep(row: Float32Array, length: number, shape: Shape): number | RowProblem {
    return shape.topK > 0 && shape.topK < length
      ? this.#keepTop(row, length, shape)
      : this.#nucleus(row, length, shape);
  }

  /** Nothing to sort: weigh every entry, then search the running sums. */
  #drawAll(row: Float32Array, length: number, shape: Shape, u: number): number | RowProblem {
    const best = largest(row, length);
    if (typeof best === "string") return best;
    const max = row[best] as number;
    const scale = BUCKETS_PER_NAT / shape.temperature;
    const cut = cutOf(max, shape);
    const sums = this.#sums;
    let sum = 0;
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      if (value >= cut) sum += weightAt((max - value) * scale);
      sums[index] = sum;
    }
    return pick(sums, length, u);
  }

  /** The k likeliest, then of those what min_p and top_p leave: both keep a prefix of the sorted list. */
  #keepTop(row: Float32Array, length: number, shape: Shape): number | RowProblem {
    const found = this.#selector.select(row, length, shape.topK);
    if (found <= 0) return found < 0 ? "nan" : "empty";
    const { indices } = this.#selector;
    const max = row[indices[0] as number] as number;
    if (max === Infinity) return "infinite";
    const scale = BUCKETS_PER_NAT / shape.temperature;
    const cut = cutOf(max, shape);
    let count = 0;
    let sum = 0;
    for (; count < found; count++) {
      const index = indices[count] as number;
      const value = row[index] as number;
      if (value < cut) break;
      this.kept[count] = index;
      this.#sums[count] = sum += weightAt((max - value) * scale);
    }
    return shape.topP < 1 ? reach(this.#sums, count, shape.topP * sum) : count;
  }

  /**
   * top_p over the whole row without sorting it. One pass sums the mass of each likelihood bucket; all buckets before
   * the one where the mass is reached are kept whole, and only that one is sorted.
   */
  #nucleus(row: Float32Array, length: number, shape: Shape): number | RowProblem {
    const best = largest(row, length);
    if (typeof best === "string") return best;
    const max = row[best] as number;
    const scale = BUCKETS_PER_NAT / shape.temperature;
    const cut = cutOf(max, shape);
    this.#weighBuckets(row, length, max, scale, cut);
    const { last, target } = this.#reachBucket(shape.topP);
    const edge = this.#selector.indices;
    let count = 0;
    let edges = 0;
    let sum = 0;
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      const distance = (max - value) * scale;
      if (distance >= last + 1 || value < cut) continue;
      if (distance >= last) edge[edges++] = index;
      else {
        this.kept[count] = index;
        this.#sums[count++] = sum += weightAt(distance);
      }
    }
    this.#selector.order(row, edges);
    for (let at = 0; at < edges && (count === 0 || sum < target); at++) {
      const index = edge[at] as number;
      this.kept[count] = index;
      this.#sums[count++] = sum += weightAt((max - (row[index] as number)) * scale);
    }
    return count;
  }

  #weighBuckets(row: Float32Array, length: number, max: number, scale: number, cut: number): void {
    const mass = this.#mass.fill(0);
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      if (value < cut) continue;
      const distance = (max - value) * scale;
      const bucket = bucketAt(distance);
      mass[bucket] = (mass[bucket] as number) + weightAt(distance);
    }
  }

  /** The bucket in which the running mass reaches `topP` of all. */
  #reachBucket(topP: number): { last: number; target: number } {
    let total = 0;
    for (const part of this.#mass) total += part;
    const target = total * topP;
    let sum = 0;
    let last = -1;
    while (last < BUCKETS - 1 && sum < target) sum += this.#mass[++last] as number;
    return { last, target };
  }
}

/** The lowest logit that min_p leaves. */
function cutOf(max: number, { minP, temperature }: Shape): number {
  return minP > 0 ? max + temperature * Math.log(minP) : -Infinity;
}

/** The length of the shortest prefix whose sum reaches the target; at least 1, at most `count`. */
function reach(sums: Float64Array, count: number, target: number): number {
  return Math.min(count, firstAtLeast(sums, count, target) + 1);
}

/** The entry that a uniform number falls on, in proportion to the weights behind the running sums. */
function pick(sums: Float64Array, count: number, u: number): number {
  const total = sums[count - 1] as number;
  const index = firstAbove(sums, count, u * total);
  return index < count ? index : firstAtLeast(sums, count, total); // u·total rounded up to total
}

function firstAtLeast(sums: Float64Array, count: number, target: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sums[middle] as number) >= target) high = middle;
    else low = middle + 1;
  }
  return low;
}

function firstAbove(sums: Float64Array, count: number, target: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sums[middle] as number) > target) high = middle;
    else low = middle + 1;
  }
  return low;
}
