/**
 * A Llama as Hugging Face computes it, in double precision and plain loops: what an adapter's answers are held against.
 *
 * Nothing of src and nothing of llama.cpp: weights are those of the Hugging Face form, where a head's rotary pairs lie
 * half a head apart.
 */
import type { ModelShape } from "#test/fixtures/gguf.ts";

export type Shape = Pick<ModelShape, "width" | "layers" | "heads" | "kvHeads" | "hidden" | "vocabulary">;

/** By the module's name; rows of outputs. */
export type Weights = ReadonlyMap<string, Float64Array>;

const EPSILON = 1e-5;
const THETA = 10_000;

/** Logits after the last of the tokens. */
export function llamaLogits(weights: Weights, shape: Shape, tokens: readonly number[]): Float64Array {
  const of = (name: string): Float64Array => {
    const found = weights.get(name);
    if (found === undefined) throw new Error(`no weight ${name}`);
    return found;
  };
  const embedding = of("model.embed_tokens");
  let states: Float64Array[] = tokens.map((token) => embedding.slice(token * shape.width, (token + 1) * shape.width));
  for (let layer = 0; layer < shape.layers; layer++) {
    const at = `model.layers.${layer}`;
    const attended = attention(states.map(normed), (part) => of(`${at}.self_attn.${part}`), shape);
    states = states.map((state, i) => sum(state, attended[i] as Float64Array));
    states = states.map((state) => {
      const input = normed(state);
      const gate = times(of(`${at}.mlp.gate_proj`), input);
      const up = times(of(`${at}.mlp.up_proj`), input);
      const inner = gate.map((g, i) => (g / (1 + Math.exp(-g))) * (up[i] ?? 0));
      return sum(state, times(of(`${at}.mlp.down_proj`), inner));
    });
  }
  return times(of("lm_head"), normed(states.at(-1) as Float64Array));
}

function attention(inputs: readonly Float64Array[], of: (part: string) => Float64Array, shape: Shape): Float64Array[] {
  const { width, heads, kvHeads } = shape;
  const size = width / heads;
  const rotated = (part: string): Float64Array[] =>
    inputs.map((input, position) => rotate(times(of(part), input), size, position));
  const [q, k] = [rotated("q_proj"), rotated("k_proj")];
  const v = inputs.map((input) => times(of("v_proj"), input));
  return inputs.map((_, position) => {
    const out = new Float64Array(width);
    for (let head = 0; head < heads; head++) {
      const shared = Math.floor(head / (heads / kvHeads));
      const scores = Array.from({ length: position + 1 }, (_, other) => {
        let dot = 0;
        for (let i = 0; i < size; i++)
          dot += (q[position]?.[head * size + i] ?? 0) * (k[other]?.[shared * size + i] ?? 0);
        return dot / Math.sqrt(size);
      });
      const most = Math.max(...scores);
      const shares = scores.map((score) => Math.exp(score - most));
      const all = shares.reduce((a, b) => a + b, 0);
      shares.forEach((share, other) => {
        for (let i = 0; i < size; i++)
          out[head * size + i] = (out[head * size + i] ?? 0) + (share / all) * (v[other]?.[shared * size + i] ?? 0);
      });
    }
    return times(of("o_proj"), out);
  });
}

/** transformers' rotate_half: pairs (i, i + size / 2). */
function rotate(values: Float64Array, size: number, position: number): Float64Array {
  const out = new Float64Array(values.length);
  const half = size / 2;
  for (let head = 0; head < values.length; head += size)
    for (let i = 0; i < half; i++) {
      const angle = position * THETA ** (-(2 * i) / size);
      const [x, y] = [values[head + i] ?? 0, values[head + i + half] ?? 0];
      out[head + i] = x * Math.cos(angle) - y * Math.sin(angle);
      out[head + i + half] = y * Math.cos(angle) + x * Math.sin(angle);
    }
  return out;
}

function normed(values: Float64Array): Float64Array {
  const square = values.reduce((all, value) => all + value * value, 0) / values.length;
  return values.map((value) => value / Math.sqrt(square + EPSILON));
}

function times(matrix: Float64Array, vector: Float64Array): Float64Array {
  const columns = vector.length;
  return Float64Array.from({ length: matrix.length / columns }, (_, row) => {
    let dot = 0;
    for (let i = 0; i < columns; i++) dot += (matrix[row * columns + i] ?? 0) * (vector[i] ?? 0);
    return dot;
  });
}

function sum(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + (b[i] ?? 0));
}
