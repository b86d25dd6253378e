/**
 * Draws one entry of a row under temperature, min_p, top_k and top_p, in vLLM's order: temperature, min_p, top_k,
 * top_p, each over what the one before left (vllm/v1/sample/ops/topk_topp_sampler.py).
 *
 * Exact: the kept set is that of a full sort by (logit falling, index rising). top_k keeps exactly k, ties to the
 * lower index (vLLM keeps all that tie with the k-th). The likeliest entry is always kept.
 * Invariant: rows come checked (no NaN, no +Infinity, at least one finite entry). Called by sampler.ts.
 */
import { BUCKETS, BUCKETS_PER_NAT, weightAt } from "./exp.ts";
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
  /** Running sums of weights: over the row when nothing cuts it, over the kept entries otherwise. */
  readonly #sums: Float64Array;
  readonly #mass = new Float64Array(BUCKETS);

  constructor(capacity: number) {
    this.#selector = new Selector(capacity);
    this.#sums = new Float64Array(capacity);
  }

  /**
   * @param max the row's largest entry
   * @param u uniform in [0, 1)
   * @returns an index in [0, length)
   */
  draw(row: Float32Array, length: number, max: number, shape: Shape, u: number): number {
    const scale = BUCKETS_PER_NAT / shape.temperature;
    const cut = shape.minP > 0 ? max + shape.temperature * Math.log(shape.minP) : -Infinity;
    if (shape.topK > 0 && shape.topK < length) {
      const count = this.#selector.select(row, length, shape.topK, cut);
      return this.#drawSelected(this.#prefix(row, count, max, scale, shape.topP), u);
    }
    if (shape.topP < 1) {
      const count = this.#nucleus(row, length, max, scale, cut, shape.topP);
      return this.#drawSelected(count, u);
    }
    return this.#drawAll(row, length, max, scale, cut, u);
  }

  /** Nothing to sort: weigh every entry, then search the running sums. */
  #drawAll(row: Float32Array, length: number, max: number, scale: number, cut: number, u: number): number {
    const sums = this.#sums;
    let sum = 0;
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      if (value >= cut) sum += weightAt((max - value) * scale);
      sums[index] = sum;
    }
    return pick(sums, length, u);
  }

  /** Weighs the selected entries (likeliest first) and keeps the smallest prefix that holds `topP` of their mass. */
  #prefix(row: Float32Array, count: number, max: number, scale: number, topP: number): number {
    const { indices } = this.#selector;
    let sum = 0;
    for (let at = 0; at < count; at++) {
      sum += weightAt((max - (row[indices[at] as number] as number)) * scale);
      this.#sums[at] = sum;
    }
    return topP < 1 ? reach(this.#sums, count, topP * sum) : count;
  }

  /**
   * top_p over the whole row. One pass sums the mass of each likelihood bucket; the bucket where the mass is reached
   * bounds what has to be sorted. Leaves the kept entries, likeliest first, in the selector; returns how many.
   */
  #nucleus(row: Float32Array, length: number, max: number, scale: number, cut: number, topP: number): number {
    const last = this.#lastBucket(row, length, max, scale, cut, topP);
    const { indices } = this.#selector;
    let count = 0;
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      if (value >= cut && (max - value) * scale < last.bucket + 1) indices[count++] = index;
    }
    this.#selector.order(row, count);
    this.#prefix(row, count, max, scale, 1);
    return reach(this.#sums, count, last.target);
  }

  #lastBucket(
    row: Float32Array,
    length: number,
    max: number,
    scale: number,
    cut: number,
    topP: number,
  ): { bucket: number; target: number } {
    const mass = this.#mass.fill(0);
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      const distance = (max - value) * scale;
      if (value >= cut && distance < BUCKETS) mass[distance | 0] = (mass[distance | 0] as number) + weightAt(distance);
    }
    let total = 0;
    for (const part of mass) total += part;
    const target = total * topP;
    let sum = 0;
    let bucket = 0;
    // One bucket more than the sums say: they are rounded in another order than the sorted ones.
    while (bucket < BUCKETS - 1 && sum <= target * (1 + 1e-9)) sum += mass[bucket++] as number;
    return { bucket, target };
  }

  #drawSelected(count: number, u: number): number {
    return this.#selector.indices[pick(this.#sums, count, u)] as number;
  }
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
