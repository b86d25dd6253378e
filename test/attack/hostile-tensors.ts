/**
 * Tensors that lie, and files that are cut, miscounted or of another kind. Used by hostile-gguf.ts.
 */
import { TENSOR_TYPES } from "#engine/gguf/_tensor-types.ts";
import {
  ARRAY,
  type EditFile,
  type Hostile,
  putTogether,
  relaid,
  U32,
  withKey,
  withTensors,
} from "../fixtures/gguf-edit.ts";

const NAMES = [
  "token_embd.weight",
  "output_norm.weight",
  "blk.0.attn_norm.weight",
  "blk.0.attn_q.weight",
  "blk.0.attn_k.weight",
  "blk.0.attn_v.weight",
  "blk.0.attn_output.weight",
  "blk.0.ffn_gate.weight",
  "blk.0.ffn_down.weight",
  "blk.4.ffn_up.weight",
];

export function tensorCases(file: EditFile): Hostile[] {
  const end = file.data.length;
  const changes: Readonly<
    Record<string, (tensor: EditFile["tensors"][number]) => EditFile["tensors"][number] | undefined>
  > = {
    absent: () => undefined,
    "other name": (tensor) => ({ ...tensor, name: `${tensor.name}.x` }),
    "empty name": (tensor) => ({ ...tensor, name: "" }),
    "long name": (tensor) => ({ ...tensor, name: "n".repeat(65) }),
    "name of another": (tensor) => ({ ...tensor, name: "blk.1.ffn_up.weight" }),
    flat: (tensor) => ({ ...tensor, shape: [tensor.shape.reduce((a, b) => Number(a) * Number(b), 1)] }),
    turned: (tensor) => ({ ...tensor, shape: tensor.shape.toReversed() }),
    "no dimensions": (tensor) => ({ ...tensor, shape: [] }),
    "four dimensions": (tensor) => ({ ...tensor, shape: [...tensor.shape, 1, 1, 1].slice(0, 4) }),
    half: (tensor) => ({ ...tensor, shape: tensor.shape.with(-1, Number(tensor.shape.at(-1)) / 2) }),
    "one less": (tensor) => ({ ...tensor, shape: tensor.shape.with(-1, Number(tensor.shape.at(-1)) - 1) }),
    "one row": (tensor) => ({ ...tensor, shape: [tensor.shape[0] as number] }),
    "wrapping shape": (tensor) => ({ ...tensor, shape: [2n ** 33n, 2n ** 33n] }),
    "negative shape": (tensor) => ({ ...tensor, shape: [2n ** 64n - 32n] }),
    "offset 1": (tensor) => ({ ...tensor, offset: 1 }),
    "offset of another": (tensor) => ({ ...tensor, offset: 0 }),
    "offset at the end": (tensor) => ({ ...tensor, offset: end }),
    "offset beyond": (tensor) => ({ ...tensor, offset: 2n ** 40n }),
    "wrapping offset": (tensor) => ({ ...tensor, offset: 2n ** 64n - 32n }),
    ...Object.fromEntries(
      [0, 1, 2, 4, 9, 16, 24, 26, 27, 28, 30, 34, 39, 40, 41, 255, 4294967295].map((type) => [
        `type ${type}`,
        (tensor: EditFile["tensors"][number]) => ({ ...tensor, type }),
      ]),
    ),
  };
  const one = NAMES.flatMap((name) =>
    Object.entries(changes).map(([what, change]) => ({
      name: `${name} ${what}`,
      bytes: () => putTogether(withTensors(file, (tensor) => (tensor.name === name ? change(tensor) : tensor))),
    })),
  );
  /** The same lies told well: every tensor lies where it should. Shapes and types that need no bytes beyond reason. */
  const well = NAMES.flatMap((name) =>
    Object.entries(changes)
      .filter(([what]) => /^type \d\d?$|flat|turned|dimensions|half|one|other name|absent/.test(what))
      .map(([what, change]) => ({
        name: `${name} ${what}, laid out`,
        bytes: () =>
          putTogether(relaid(withTensors(file, (tensor) => (tensor.name === name ? change(tensor) : tensor)))),
      })),
  );
  const all = Object.keys(TENSOR_TYPES).map((type) => ({
    name: `all matrices of type ${type}, laid out`,
    bytes: () =>
      putTogether(
        relaid(withTensors(file, (tensor) => (tensor.shape.length > 1 ? { ...tensor, type: Number(type) } : tensor))),
      ),
  }));
  const more = [
    "output.weight",
    "blk.0.attn_q.bias",
    "rope_freqs.weight",
    "blk.0.rope_freqs.weight",
    "blk.7.attn_q.weight",
    "token_embd.weight",
  ];
  const extra = more.flatMap((name) =>
    [[192, 2048], [1], [24], [23], [192]].map((shape) => ({
      name: `one more ${name} ${shape}`,
      bytes: () => putTogether(relaid({ ...file, tensors: [...file.tensors, { name, shape, type: 0, offset: 0 }] })),
    })),
  );
  const none = [0, 1, 5].map((count) => ({
    name: `${count} tensors`,
    bytes: () => putTogether({ ...file, tensors: file.tensors.slice(0, count) }),
  }));
  const weights = (["zero", "ones"] as const).map((what) => ({
    name: `weights all ${what}`,
    bytes: () => putTogether({ ...file, data: Buffer.alloc(file.data.length, what === "zero" ? 0 : 255) }),
  }));
  return [...one, ...well, ...all, ...extra, ...none, ...weights];
}

export function fileCases(file: EditFile): Hostile[] {
  const whole = putTogether(file);
  const counts = [0, 1, 46, 48, 2 ** 20, 2n ** 31n, 2n ** 63n, 2n ** 64n - 1n];
  return [
    ...[0, 3, 4, 8, 16, 23, 24, 100, 5000, 40_000, whole.length - 417_792, whole.length - 1].map((length) => ({
      name: `cut at ${length}`,
      bytes: () => whole.subarray(0, length),
    })),
    ...[0, 1, 2, 4, 2 ** 16, 2 ** 24, 3 * 2 ** 16].map((version) => ({
      name: `version ${version}`,
      bytes: () => putTogether({ ...file, version }),
    })),
    ...counts.map((tensorCount) => ({
      name: `tensor count ${tensorCount}`,
      bytes: () => putTogether({ ...file, tensorCount }),
    })),
    ...counts.map((metadataCount) => ({
      name: `metadata count ${metadataCount}`,
      bytes: () => putTogether({ ...file, metadataCount }),
    })),
    {
      name: "a key twice",
      bytes: () => putTogether({ ...file, metadata: [...file.metadata, ...file.metadata.slice(-1)] }),
    },
    { name: "an empty key", bytes: () => putTogether(withKey(file, "", { type: U32, value: 1 })) },
    { name: "a long key", bytes: () => putTogether(withKey(file, "k".repeat(70_000), { type: U32, value: 1 })) },
    { name: "an array of arrays", bytes: () => putTogether(withKey(file, "x", { type: ARRAY, of: ARRAY, items: [] })) },
    { name: "an unknown type", bytes: () => putTogether(withKey(file, "x", { type: 13, value: 1 })) },
    {
      name: "an array of an unknown type",
      bytes: () => putTogether(withKey(file, "x", { type: ARRAY, of: 77, items: [1] })),
    },
  ];
}
