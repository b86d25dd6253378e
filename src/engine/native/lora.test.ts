import assert from "node:assert/strict";
import { mkdtempSync, statSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { batchOf } from "#engine/kernel.contract.ts";
import { type Kernel, KernelError } from "#engine/kernel.ts";
import { type AdapterShape, type TensorSpec, writeAdapter, writeModel } from "../../../test/fixtures/gguf.ts";
import { openNativeKernel } from "./kernel.ts";

const directory = mkdtempSync(join(tmpdir(), "castellan-lora-"));
const modelPath = join(directory, "model.gguf");
writeModel(modelPath);
const adapterPath = (name: string, options: Partial<AdapterShape> = {}): string => {
  const path = join(directory, `${name}.gguf`);
  writeAdapter(path, {}, options);
  return path;
};
const open = () =>
  openNativeKernel({
    modelPath,
    contextPerSlot: 256,
    maxSequences: 4,
    maxBatchTokens: 128,
    threads: 1,
    gpuLayers: 0,
    maxLoraRank: 8,
  });

type Part = readonly [slot: number, adapter: number, tokens: readonly number[]];

/** Runs the parts as one batch; the rows of their last tokens. */
function rowsOf(kernel: Kernel, parts: readonly Part[]): number[][] {
  const entries = parts.flatMap(([slot, , tokens]) =>
    tokens.map((token, i) => [slot, token, i === tokens.length - 1] as const),
  );
  const batch = batchOf(kernel, entries);
  const adapters = parts.flatMap(([, adapter, tokens]) => tokens.map(() => adapter));
  batch.adapters.set(adapters);
  return kernel.forward(batch).map((row) => Array.from(row));
}

function clear(kernel: Kernel): void {
  for (const slot of [0, 1, 2, 3]) kernel.truncate(slot, 0);
}

test("sequences of several adapters in one batch get what each gets alone", async () => {
  const kernel = await open();
  kernel.loadAdapter(1, adapterPath("one", { seed: 11 }));
  kernel.loadAdapter(2, adapterPath("two", { seed: 12, rank: 8 }));
  const tokens = [3, 9, 4];
  const alone = [0, 1, 2].map((adapter) => {
    clear(kernel);
    return rowsOf(kernel, [[0, adapter, tokens]])[0];
  });
  assert.notDeepEqual(alone[0], alone[1]);
  assert.notDeepEqual(alone[1], alone[2]);
  clear(kernel);
  const together = rowsOf(kernel, [
    [0, 2, tokens],
    [1, 0, tokens],
    [2, 1, tokens],
    [3, 2, tokens],
  ]);
  assert.deepEqual(together, [alone[2], alone[0], alone[1], alone[2]]);
  const next = rowsOf(kernel, [
    [0, 2, [5]],
    [1, 0, [5]],
    [2, 1, [5]],
    [3, 2, [5]],
  ]);
  assert.deepEqual(next[0], next[3]);
  assert.notDeepEqual(next[0], next[1]);
  kernel.close();
});

test("an adapter is gone once it is unloaded, and its number can be another's", async () => {
  const kernel = await open();
  kernel.loadAdapter(1, adapterPath("one", { seed: 11 }));
  const [before] = rowsOf(kernel, [[0, 1, [3, 9]]]);
  kernel.unloadAdapter(1);
  kernel.unloadAdapter(1);
  clear(kernel);
  assert.throws(
    () => rowsOf(kernel, [[0, 1, [3, 9]]]),
    (error) => error instanceof KernelError && error.code === "invalid",
  );
  const [base] = rowsOf(kernel, [[0, 0, [3, 9]]]);
  assert.notDeepEqual(base, before);
  for (let round = 0; round < 20; round++) {
    kernel.loadAdapter(1, adapterPath("one", { seed: 11 }));
    clear(kernel);
    assert.deepEqual(rowsOf(kernel, [[0, 1, [3, 9]]])[0], before);
    kernel.unloadAdapter(1);
  }
  kernel.close();
});

test("what is no adapter of this model is refused with its reason, and the kernel goes on", async () => {
  const kernel = await open();
  const without = (suffix: string) => (tensors: TensorSpec[]) => tensors.filter(({ name }) => !name.endsWith(suffix));
  const changed = (change: (tensor: TensorSpec) => TensorSpec) => (tensors: TensorSpec[]) =>
    tensors.map((tensor, i) => (i === 0 ? change(tensor) : tensor));
  const cases: readonly [Partial<AdapterShape>, RegExp][] = [
    [{ rank: 16 }, /rank is 16/],
    [{ architecture: "qwen3" }, /another architecture/],
    [{ meta: [["general.type", { type: "string", value: "model" }]] }, /not an adapter/],
    [{ meta: [["adapter.type", { type: "string", value: "control" }]] }, /not a LoRA/],
    [{ meta: [["adapter.lora.alpha", { type: "u32", value: 8 }]] }, /not a finite float/],
    [{ meta: [["adapter.lora.alpha", { type: "f32", value: Number.NaN }]] }, /not a finite float/],
    [{ meta: [["adapter.alora.invocation_tokens", { type: "i32s", value: [1] }]] }, /activated LoRA/],
    [{ tensors: without(".lora_b") }, /no partner/],
    [{ tensors: without(".lora_a") }, /no partner/],
    [{ tensors: () => [] }, /changes no tensor/],
    [{ tensors: changed((t) => ({ ...t, name: "blk.0.attn_norm.weight" })) }, /neither lora_a nor lora_b|no partner/],
    [{ tensors: (t) => t.map((x) => ({ ...x, name: x.name.replace("blk.0", "blk.7") })) }, /does not have/],
    [{ tensors: changed((t) => ({ ...t, shape: [32, 4], data: () => new Uint8Array(256) })) }, /shape does not fit/],
    [{ tensors: changed((t) => ({ ...t, shape: [64, 2], data: () => new Uint8Array(256) })) }, /shape does not fit/],
  ];
  cases.forEach(([options, reason], at) => {
    const path = adapterPath(`case-${at}`, options);
    assert.throws(
      () => kernel.loadAdapter(9, path),
      (error) => error instanceof KernelError && error.code === "invalid" && reason.test(error.message),
      String(reason),
    );
  });
  const cut = adapterPath("cut");
  truncateSync(cut, statSync(cut).size - 64);
  for (const path of [cut, modelPath, directory, join(directory, "none.gguf")])
    assert.throws(() => kernel.loadAdapter(9, path), KernelError);
  assert.equal(rowsOf(kernel, [[0, 0, [3]]]).length, 1);
  kernel.close();
});
