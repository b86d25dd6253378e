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
    const count = this.keep(row, length, max, shape);
    if (count === undefined) return this.#drawAll(row, length, max, shape, u);
    return this.#selector.indices[pick(this.#sums, count, u)] as number;
  }

  /**
   * The entries that top_k or top_p leave, likeliest first, into `kept`; returns how many. Undefined when neither cuts.
   */
  keep(row: Float32Array, length: number, max: number, shape: Shape): number | undefined {
    if (shape.topK > 0 && shape.topK < length) {
      const count = this.#selector.select(row, length, shape.topK, cutOf(max, shape));
      return this.#prefix(row, count, max, shape.temperature, shape.topP);
    }
    return shape.topP < 1 ? this.#nucleus(row, length, max, shape) : undefined;
  }

  /** What the last `keep` kept. */
  get kept(): Int32Array {
    return this.#selector.indices;
  }

  /** Nothing to sort: weigh every entry, then search the running sums. */
  #drawAll(row: Float32Array, length: number, max: number, shape: Shape, u: number): number {
    const sums = this.#sums;
    const scale = BUCKETS_PER_NAT / shape.temperature;
    const cut = cutOf(max, shape);
    let sum = 0;
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      if (value >= cut) sum += weightAt((max - value) * scale);
      sums[index] = sum;
    }
    return pick(sums, length, u);
  }

  /** Weighs the selected entries (likeliest first) and keeps the smallest prefix that holds `topP` of their mass. */
  #prefix(row: Float32Array, count: number, max: number, temperature: number, topP: number): number {
    const { indices } = this.#selector;
    const scale = BUCKETS_PER_NAT / temperature;
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
  #nucleus(row: Float32Array, length: number, max: number, shape: Shape): number {
    const scale = BUCKETS_PER_NAT / shape.temperature;
    const cut = cutOf(max, shape);
    this.#weighBuckets(row, length, max, scale, cut);
    const { buckets, target } = this.#reachBucket(shape.topP);
    const { indices } = this.#selector;
    let count = 0;
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      if (value >= cut && (max - value) * scale < buckets) indices[count++] = index;
    }
    this.#selector.order(row, count);
    this.#prefix(row, count, max, shape.temperature, 1);
    return reach(this.#sums, count, target);
  }

  #weighBuckets(row: Float32Array, length: number, max: number, scale: number, cut: number): void {
    const mass = this.#mass.fill(0);
    for (let index = 0; index < length; index++) {
      const value = row[index] as number;
      const distance = (max - value) * scale;
      if (value >= cut && distance < BUCKETS) mass[distance | 0] = (mass[distance | 0] as number) + weightAt(distance);
    }
  }

  /** How many buckets hold `topP` of the mass, and one more: sums round differently in another order. */
  #reachBucket(topP: number): { buckets: number; target: number } {
    let total = 0;
    for (const part of this.#mass) total += part;
    const target = total * topP;
    let sum = 0;
    let buckets = 0;
    while (buckets < BUCKETS && sum <= target * (1 + 1e-9)) sum += this.#mass[buckets++] as number;
    return { buckets: buckets + 1, target };
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
