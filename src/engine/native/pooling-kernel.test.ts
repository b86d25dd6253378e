import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { PoolingType } from "#core/pool.ts";
import { closeTo, poolingContract } from "#engine/pooling/kernel.contract.ts";
import type { PoolingKernel } from "#engine/pooling/kernel.ts";
import { bertHead, bertHidden, meanOf } from "../../../test/fixtures/bert-reference.ts";
import { writeModel } from "../../../test/fixtures/gguf.ts";
import { OTHER_ENCODERS, writeEncoder } from "../../../test/fixtures/gguf-encoders.ts";
import {
  bertWeights,
  CLS,
  LAST,
  MEAN,
  type PoolingShape,
  RANK,
  TINY_POOLING,
  WORDS,
  writeBert,
  writeQwen3,
} from "../../../test/fixtures/gguf-pooling.ts";
import { type NativePoolingOptions, openNativePoolingKernel } from "./pooling-kernel.ts";

/** What company may change of a few short sequences, where vectors have a length of about 5; measured: 5e-7. */
const COMPANY = 2e-6;
/** Where libllama reads GELU from a table of half precision, the smallest difference may take the next entry: 3.5e-5. */
const TABLES = 5e-4;
/** What a full batch may change, as a share of the vector's length; measured over 1440 sequences: at most 8.1e-5. */
const CROWD = 3e-4;
/** What libllama's half-precision tables and attention may cost, as a share of the vector's length; measured: 4.7e-4. */
const PRECISION = 1.5e-3;

const directory = mkdtempSync(join(tmpdir(), "castellan-pooling-"));
const LABELS = ["calm", "glad", "sad"];
let files = 0;

/** One thread: threads that spin while other tests run are many times slower than one that does not. */
function open(
  write: (path: string) => void,
  type: PoolingType,
  changes: Partial<NativePoolingOptions> = {},
): PoolingKernel {
  const modelPath = join(directory, `${++files}.gguf`);
  write(modelPath);
  const bounds = { contextPerSlot: 128, maxSequences: 16, maxBatchTokens: 256, threads: 1, gpuLayers: 0 };
  return openNativePoolingKernel({ ...bounds, modelPath, type, ...changes });
}

const bert = (changes: Partial<PoolingShape>) => (path: string) => writeBert(path, changes);
const qwen = (changes: Partial<PoolingShape>) => (path: string) => writeQwen3(path, changes);
const yesNo = { labels: ["yes", "no"], pooling: RANK };

for (const architecture of OTHER_ENCODERS)
  poolingContract(`native, ${architecture}`, {
    open: () => open((path) => writeEncoder(path, architecture), "mean"),
    tolerance: TABLES,
  });

for (const [name, start] of [
  ["bert, mean", () => open(bert({ pooling: MEAN }), "mean")],
  ["bert, cls", () => open(bert({ pooling: CLS }), "cls")],
  ["bert, a reranker's head", () => open(bert({ pooling: RANK, labels: [] }), "rank")],
  ["bert, a classifier", () => open(bert({ pooling: RANK, labels: LABELS }), "rank")],
  ["qwen3, last", () => open(qwen({ pooling: LAST }), "last")],
  ["qwen3, yes and no", () => open(qwen(yesNo), "rank")],
  ["llama, which generates, last", () => open((path) => writeModel(path), "last")],
] as const)
  poolingContract(`native, ${name}`, { open: start, tolerance: COMPANY });

test("an encoder says what the same weights say in double precision", () => {
  const sequences = [
    Int32Array.of(2, 10, 20, 30, 40, 3),
    Int32Array.from({ length: 100 }, (_, i) => 5 + ((i * 7) % (WORDS - 5))),
    Int32Array.of(7),
  ];
  const expected: Readonly<Record<string, (hidden: Float64Array[], shape: PoolingShape) => Float64Array>> = {
    mean: (hidden) => meanOf(hidden),
    cls: ([first]) => first as Float64Array,
    last: (hidden) => hidden.at(-1) as Float64Array,
    rank: ([first], shape) => bertHead(bertWeights(shape), first as Float64Array),
    none: (hidden) => Float64Array.from(hidden.flatMap((row) => [...row])),
  };
  for (const seed of [1, 2, 3]) {
    const shape: PoolingShape = { ...TINY_POOLING, seed, labels: LABELS, pooling: RANK };
    const hidden = sequences.map((tokens) => bertHidden(bertWeights(shape), shape, tokens));
    for (const type of ["mean", "cls", "last", "rank", "none"] as const) {
      const kernel = open(bert(shape), type);
      const rows = kernel.pool(sequences, type === "none" ? "tokens" : "sequence");
      hidden.forEach((vectors, at) => {
        const want = Float32Array.from(expected[type]?.(vectors, shape) ?? []);
        const length = Math.hypot(...meanOf(vectors));
        closeTo(rows[at] as Float32Array, want, PRECISION * length);
      });
      kernel.close();
    }
  }
});

test("a causal model gives the same in pieces, whatever the pooling", () => {
  const long = Int32Array.from({ length: 1400 }, (_, i) => 5 + ((i * i * 7) % (WORDS - 5)));
  const short = Int32Array.of(9, 8, 7);
  const bounds = { contextPerSlot: 1400, maxBatchTokens: 3000 };
  const shape = { context: 2048, seed: 4 };
  const width = TINY_POOLING.width;
  const kernel = open(qwen(shape), "last", bounds);
  const [tokens] = kernel.pool([long], "tokens") as [Float32Array];
  kernel.close();
  const rows = Array.from({ length: long.length }, (_, at) =>
    Float64Array.from(tokens.subarray(at * width, (at + 1) * width)),
  );
  const expected = { last: rows.at(-1), cls: rows[0], mean: meanOf(rows) };
  for (const type of ["last", "cls", "mean"] as const) {
    const pooled = open(qwen(shape), type, bounds);
    const want = Float32Array.from(expected[type] ?? []);
    closeTo(pooled.pool([long], "sequence")[0] as Float32Array, want, COMPANY);
    closeTo(pooled.pool([short, long, short], "sequence")[1] as Float32Array, want, COMPANY);
    pooled.close();
  }
});

test("a full batch changes an embedding by less than anybody could notice", () => {
  const sequences = Array.from({ length: 20 }, (_, i) =>
    Int32Array.from({ length: 1 + ((i * 13) % 50) }, (_, at) => (at * at * 3 + i * 11) % WORDS),
  );
  for (const write of [bert({ seed: 5 }), bert({ seed: 6 }), qwen({ seed: 7 })]) {
    const kernel = open(write, "mean", { maxSequences: 64, maxBatchTokens: 1024 });
    const rows = kernel.pool(sequences, "sequence");
    sequences.forEach((tokens, at) => {
      const [alone] = kernel.pool([tokens], "sequence") as [Float32Array];
      closeTo(rows[at] as Float32Array, alone, CROWD * Math.hypot(...alone));
    });
    kernel.close();
  }
});

test("the head's labels and its own softmax", () => {
  const classifier = open(bert({ pooling: RANK, labels: LABELS }), "rank");
  assert.deepEqual(classifier.limits.labels, LABELS);
  assert.equal(classifier.limits.width, LABELS.length);
  classifier.close();
  const reranker = open(qwen(yesNo), "rank");
  assert.deepEqual(reranker.limits.labels, ["yes", "no"]);
  const [shares] = reranker.pool([Int32Array.of(3, 4, 5)], "sequence") as [Float32Array];
  assert.ok(Math.abs((shares[0] as number) + (shares[1] as number) - 1) < 1e-6);
  reranker.close();
});

test("what libllama would not survive is refused before it is asked", () => {
  const refused = (start: () => PoolingKernel, message: RegExp) => assert.throws(start, message);
  refused(() => open(bert({ pooling: RANK }), "rank"), /no classifier head/);
  refused(() => open(qwen({ pooling: RANK }), "rank"), /no classifier head/);
  refused(() => open((path) => writeModel(path), "rank"), /no classifier head/);
  refused(() => open(bert({}), "mean", { contextPerSlot: 129 }), /trained for 128/);
  refused(() => open(bert({}), "mean", { maxBatchTokens: 100 }), /less than a sequence/);
  refused(() => open(bert({}), "mean", { maxSequences: 257 }), /257 sequences/);
  // More sequences than tokens in a physical batch: libllama asserts that each has an output.
  const narrow = open(bert({ context: 8 }), "mean", { contextPerSlot: 8, maxBatchTokens: 8, maxSequences: 256 });
  assert.equal(narrow.limits.maxSequences, 8);
  narrow.close();
});

test("a header's odd pooling type does no harm, and no type at all neither", () => {
  for (const pooling of [77, undefined]) {
    const kernel = open(bert({ pooling }), "mean");
    assert.equal(kernel.pool([Int32Array.of(3)], "sequence").length, 1);
    kernel.close();
  }
});

test("a thousand batches leave the process no larger than a hundred did", () => {
  const kernel = open(bert({}), "mean");
  const run = (rounds: number): void => {
    for (let i = 0; i < rounds; i++) {
      kernel.pool([Int32Array.of(3, 4, 5), Int32Array.of(i % WORDS)], "sequence");
      kernel.pool([Int32Array.of(6, 7)], "tokens");
    }
  };
  run(100);
  globalThis.gc?.();
  const before = process.memoryUsage().rss;
  run(900);
  globalThis.gc?.();
  assert.ok(process.memoryUsage().rss - before < 32 << 20, "views, rows or contexts pile up");
  kernel.close();
  kernel.close();
  assert.throws(() => kernel.pool([Int32Array.of(3)], "sequence"), /closed/);
});
