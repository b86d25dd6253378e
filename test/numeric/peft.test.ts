/**
 * An adapter in PEFT form computes what PEFT computes: the engine with the converted file is held against weights that
 * the adapter was merged into, evaluated in the form of Hugging Face, and against the same adapter written as a GGUF.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readGgufHeader } from "#engine/gguf/header.ts";
import { batchOf } from "#engine/kernel.contract.ts";
import type { Kernel } from "#engine/kernel.ts";
import { openNativeKernel } from "#engine/native/kernel.ts";
import { AdapterStore } from "#integrity/adapter-store.ts";
import { type TensorSpec, writeGguf, writeModel } from "../fixtures/gguf.ts";
import {
  type Dtype,
  type PeftTensor,
  PLAIN_CONFIG,
  randomTensors,
  safetensorsOf,
  tinyModules,
  writePeft,
} from "../fixtures/peft.ts";
import { llamaLogits, type Shape, type Weights } from "./llama.ts";

const SHAPE: Shape = { width: 64, layers: 2, heads: 4, kvHeads: 2, hidden: 128, vocabulary: 512 };
const TOKENS = [3, 97, 41, 200, 7, 7, 311, 64, 5];
/** The cache of keys and values holds halves. */
const NEAR = 0.02;

const folder = mkdtempSync(join(tmpdir(), "castellan-peft-"));
const modelPath = join(folder, "model.gguf");
const written = new Map<string, Float32Array>();
writeModel(modelPath, {
  weights: "f32",
  tensors: (tensors) =>
    tensors.map((tensor) => {
      const data = tensor.data();
      written.set(tensor.name, new Float32Array(data.buffer));
      return { ...tensor, data: () => data };
    }),
});

const PARTS = {
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
} as const;

/** Row 2j + s of a head, in a GGUF, is row s · half + j in Hugging Face's form. */
function fromGguf(values: Float64Array, heads: number, columns: number): Float64Array {
  const out = new Float64Array(values.length);
  const size = values.length / columns / heads;
  for (let head = 0; head < heads; head++)
    for (let j = 0; j < size / 2; j++)
      for (const s of [0, 1]) {
        const from = (head * size + 2 * j + s) * columns;
        out.set(values.subarray(from, from + columns), (head * size + (s * size) / 2 + j) * columns);
      }
  return out;
}

function baseWeights(): Map<string, Float64Array> {
  const of = (name: string): Float64Array => Float64Array.from(written.get(name) ?? []);
  const weights = new Map([
    ["model.embed_tokens", of("token_embd.weight")],
    ["lm_head", of("output.weight")],
  ]);
  for (let layer = 0; layer < SHAPE.layers; layer++)
    for (const [part, name] of Object.entries(PARTS)) {
      const values = of(`blk.${layer}.${name}.weight`);
      const heads = name === "attn_q" ? SHAPE.heads : name === "attn_k" ? SHAPE.kvHeads : 0;
      weights.set(`model.layers.${layer}.${part}`, heads === 0 ? values : fromGguf(values, heads, SHAPE.width));
    }
  return weights;
}

/** W + scale · B·A; of the embedding (scale · B·A) transposed. */
function merged(tensors: readonly PeftTensor[], scaleOf: (module: string, rank: number) => number): Weights {
  const weights = baseWeights();
  for (let at = 0; at < tensors.length; at += 2) {
    const [a, b] = [tensors[at] as PeftTensor, tensors[at + 1] as PeftTensor];
    const module = a.name.replace("base_model.model.", "").replace(/\.lora_(embedding_)?A.*$/, "");
    const [rank = 0, inner = 0] = a.shape;
    const [outer = 0] = b.shape;
    const values = weights.get(module) as Float64Array;
    const scale = scaleOf(module, rank);
    for (let row = 0; row < outer; row++)
      for (let column = 0; column < inner; column++) {
        let dot = 0;
        for (let r = 0; r < rank; r++) dot += (b.values[row * rank + r] ?? 0) * (a.values[r * inner + column] ?? 0);
        const place = module.endsWith("embed_tokens") ? column * outer + row : row * inner + column;
        values[place] = (values[place] ?? 0) + scale * dot;
      }
  }
  return weights;
}

const store = await AdapterStore.open({
  folder: join(folder, "store"),
  maxBytes: 1 << 30,
  folderBytes: 1 << 30,
  maxRank: 64,
  base: readGgufHeader(modelPath),
});
let names = 0;
async function converted(config: object, tensors: readonly PeftTensor[]): Promise<string> {
  const path = writePeft(join(folder, `peft-${++names}`), config, safetensorsOf(tensors));
  return (await store.prepare({ path, roots: "anywhere" })).path;
}

const open = () =>
  openNativeKernel({
    modelPath,
    contextPerSlot: 256,
    maxSequences: 2,
    maxBatchTokens: 64,
    threads: 1,
    gpuLayers: 0,
    maxLoraRank: 64,
  });

function logits(kernel: Kernel, adapter: number): number[] {
  kernel.truncate(0, 0);
  const batch = batchOf(
    kernel,
    TOKENS.map((token, i) => [0, token, i === TOKENS.length - 1] as const),
  );
  batch.adapters.fill(adapter, 0, TOKENS.length);
  return Array.from(kernel.forward(batch)[0] ?? []);
}

function apart(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  return Math.max(...Array.from(a, (value, i) => Math.abs(value - (b[i] ?? Number.NaN))));
}

test("the engine computes the model that the weights in Hugging Face's form are", async () => {
  const kernel = await open();
  const expected = llamaLogits(baseWeights(), SHAPE, TOKENS);
  assert.ok(apart(logits(kernel, 0), expected) < NEAR, String(apart(logits(kernel, 0), expected)));
  kernel.close();
});

const cases: readonly [string, object, readonly number[], (module: string, rank: number) => number][] = [
  ["alpha / rank", {}, [4], (_, rank) => 8 / rank],
  ["alpha / √rank", { use_rslora: true, lora_alpha: 3 }, [4], (_, rank) => 3 / Math.sqrt(rank)],
  [
    "patterns of rank and alpha",
    {
      rank_pattern: { "layers.1.mlp.up_proj": 8, q_proj: 2 },
      // The first that fits, be it the longer or the shorter one.
      alpha_pattern: { q_proj: 5, "self_attn.q_proj": 99, "layers.1.mlp.up_proj": 6, up_proj: 9 },
    },
    [4, 2, 8],
    (module, rank) => {
      if (module.endsWith("q_proj")) return 5 / rank;
      if (!module.endsWith("up_proj")) return 8 / rank;
      return (module.includes("layers.1.") ? 6 : 9) / rank;
    },
  ],
];
for (const dtype of ["F32", "F16", "BF16"] as const)
  for (const [what, config, [r = 4, ofQ = r, ofUp = r], scaleOf] of cases)
    test(`${dtype}, ${what}: the answer is that of merged weights`, async () => {
      const modules = tinyModules(r).map((module) => ({
        ...module,
        rank: module.module.endsWith("q_proj") ? ofQ : module.module.endsWith("1.mlp.up_proj") ? ofUp : r,
      }));
      const tensors = randomTensors(modules, dtype, 7);
      const kernel = await open();
      kernel.loadAdapter(1, await converted({ ...PLAIN_CONFIG, ...config }, tensors));
      const expected = llamaLogits(merged(tensors, scaleOf), SHAPE, TOKENS);
      assert.ok(apart(logits(kernel, 0), expected) > 10 * NEAR, "the adapter changes the answer");
      assert.ok(apart(logits(kernel, 1), expected) < NEAR, String(apart(logits(kernel, 1), expected)));
      kernel.close();
    });

test("adapters of the embedding and of the head", async () => {
  const modules = [
    { module: "model.embed_tokens", rank: 4, inner: SHAPE.vocabulary, outer: SHAPE.width },
    { module: "lm_head", rank: 4, inner: SHAPE.width, outer: SHAPE.vocabulary },
  ];
  const tensors = randomTensors(modules, "F32", 5);
  const kernel = await open();
  kernel.loadAdapter(1, await converted(PLAIN_CONFIG, tensors));
  const expected = llamaLogits(
    merged(tensors, (_, rank) => 8 / rank),
    SHAPE,
    TOKENS,
  );
  assert.ok(apart(logits(kernel, 0), expected) > 10 * NEAR);
  assert.ok(apart(logits(kernel, 1), expected) < NEAR, String(apart(logits(kernel, 1), expected)));
  kernel.close();
});

test("the same adapter as a GGUF gives the same logits, bit for bit", async () => {
  const tensors = randomTensors(tinyModules(4), "F32", 9);
  const kernel = await open();
  kernel.loadAdapter(1, await converted(PLAIN_CONFIG, tensors));
  kernel.loadAdapter(2, asGguf(tensors, "F32"));
  assert.deepEqual(logits(kernel, 1), logits(kernel, 2));
  assert.ok(apart(logits(kernel, 1), logits(kernel, 0)) > 10 * NEAR);
  kernel.close();
});

function asGguf(tensors: readonly PeftTensor[], dtype: Dtype): string {
  assert.equal(dtype, "F32");
  const path = join(folder, "written.gguf");
  const specs = tensors.map(({ name, shape, values }): TensorSpec => {
    const [, layer = "", part = "", side = ""] = /layers\.(\d)\.(.+)\.lora_(A|B)\.weight$/.exec(name) ?? [];
    const weight = PARTS[part as keyof typeof PARTS];
    const heads = weight === "attn_q" ? SHAPE.heads : weight === "attn_k" ? SHAPE.kvHeads : 0;
    const columns = shape[1] ?? 0;
    const rows = heads > 0 && side === "B" ? toGguf(values, heads, columns) : values;
    const full = `blk.${layer}.${weight}.weight.lora_${side.toLowerCase()}`;
    return { name: full, shape: shape.toReversed(), type: "f32", data: () => new Uint8Array(rows.slice().buffer) };
  });
  const text = (value: string) => ({ type: "string", value }) as const;
  writeGguf(
    path,
    [
      ["general.architecture", text("llama")],
      ["general.type", text("adapter")],
      ["adapter.type", text("lora")],
      ["adapter.lora.alpha", { type: "f32", value: 8 }],
    ],
    specs,
  );
  return path;
}

function toGguf(values: Float32Array, heads: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  const size = values.length / columns / heads;
  for (let row = 0; row < values.length / columns; row++) {
    const [head, inHead] = [Math.floor(row / size), row % size];
    const [s, j] = [Math.floor(inHead / (size / 2)), inHead % (size / 2)];
    out.set(values.subarray(row * columns, (row + 1) * columns), (head * size + 2 * j + s) * columns);
  }
  return out;
}
