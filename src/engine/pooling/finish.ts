/**
 * From the kernel's raw rows to what a request asked for: matryoshka cut, L2 norm, softmax, sigmoid. As vLLM does it;
 * sums in double precision. Pure. Called by pooling/engine.ts.
 */
import type { PoolingInfo, PoolOutput, PoolRequest } from "#core/pool.ts";

export type Finishing = Pick<PoolRequest, "task" | "useActivation" | "dimensions">;

/** @param raw shape [rows, width] @returns undefined where the model gave numbers that are none */
export function finish(raw: Float32Array, width: number, asked: Finishing, info: PoolingInfo): PoolOutput | undefined {
  if (!raw.every(Number.isFinite)) return undefined;
  const activate = asked.useActivation ?? info.defaults.useActivation;
  if (asked.task === "classify") return one(activate && info.head === "logits" ? activated(raw) : raw);
  if (asked.task === "score") return one(activate && info.head === "logits" ? activated(raw) : raw.slice(0, 1));
  const dimensions = asked.dimensions ?? info.defaults.dimensions ?? width;
  return vectors(raw, width, dimensions, activate);
}

function one(values: Float32Array): PoolOutput {
  return { values, rows: 1, width: values.length };
}

function activated(raw: Float32Array): Float32Array {
  return raw.length === 1 ? raw.map((value) => 1 / (1 + Math.exp(-value))) : softmax(raw);
}

function softmax(raw: Float32Array): Float32Array {
  const largest = raw.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const powers = Float64Array.from(raw, (value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return Float32Array.from(powers, (power) => power / sum);
}

function vectors(raw: Float32Array, width: number, dimensions: number, normalise: boolean): PoolOutput {
  const rows = raw.length / width;
  if (dimensions === width && !normalise) return { values: raw, rows, width };
  const values = new Float32Array(rows * dimensions);
  for (let row = 0; row < rows; row++) {
    const from = raw.subarray(row * width, row * width + dimensions);
    const scale = normalise ? 1 / norm(from) : 1;
    for (let i = 0; i < dimensions; i++) values[row * dimensions + i] = (from[i] as number) * scale;
  }
  return { values, rows, width: dimensions };
}

/** Never zero: a vector of zeros stays one, as in torch.nn.functional.normalize. */
function norm(vector: Float32Array): number {
  let sum = 0;
  for (const value of vector) sum += value * value;
  return Math.max(Math.sqrt(sum), 1e-12);
}
