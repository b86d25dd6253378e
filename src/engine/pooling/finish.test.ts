import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolingInfo, PoolOutput } from "#core/pool.ts";
import { CLASSIFIES, EMBEDS } from "./_fixture.ts";
import { type Finishing, finish } from "./finish.ts";

const run = (raw: readonly number[], width: number, asked: Finishing, info: PoolingInfo = EMBEDS): PoolOutput => {
  const output = finish(Float32Array.from(raw), width, asked, info);
  assert.ok(output);
  return output;
};
const rounded = ({ values }: PoolOutput): number[] => [...values].map((value) => Math.round(value * 1e6) / 1e6);

test("an embedding has length 1, or the model's own where that is asked for", () => {
  assert.deepEqual(rounded(run([3, 4], 2, { task: "embed" })), [0.6, 0.8]);
  assert.deepEqual(rounded(run([3, 4], 2, { task: "embed", useActivation: false })), [3, 4]);
  const quiet = { ...EMBEDS, defaults: { useActivation: false } };
  assert.deepEqual(rounded(run([3, 4], 2, { task: "embed" }, quiet)), [3, 4]);
  assert.deepEqual(rounded(run([3, 4], 2, { task: "embed", useActivation: true }, quiet)), [0.6, 0.8]);
});

test("a vector of zeros stays one; large and small ones keep their direction", () => {
  assert.deepEqual(rounded(run([0, 0], 2, { task: "embed" })), [0, 0]);
  assert.deepEqual(rounded(run([3e30, 4e30], 2, { task: "embed" })), [0.6, 0.8]);
  assert.deepEqual(rounded(run([3e-5, 4e-5], 2, { task: "embed" })), [0.6, 0.8]);
});

test("fewer dimensions are the first ones, of length 1 again", () => {
  const cut = run([3, 4, 12, 1], 4, { task: "embed", dimensions: 2 });
  assert.deepEqual([rounded(cut), cut.width, cut.rows], [[0.6, 0.8], 2, 1]);
  assert.deepEqual(rounded(run([3, 4, 12, 1], 4, { task: "embed", dimensions: 3, useActivation: false })), [3, 4, 12]);
  const byDefault = { ...EMBEDS, defaults: { useActivation: true, dimensions: 2 } };
  assert.deepEqual(rounded(run([3, 4, 12, 1], 4, { task: "embed" }, byDefault)), [0.6, 0.8]);
});

test("vectors of tokens are each finished by themselves", () => {
  const all = run([3, 4, 9, 0, 5, 9], 3, { task: "token_embed", dimensions: 2 });
  assert.deepEqual([rounded(all), all.rows, all.width], [[0.6, 0.8, 0, 1], 2, 2]);
});

test("several classes get a softmax, one gets a sigmoid", () => {
  assert.deepEqual(
    rounded(run([Math.log(1), Math.log(2), Math.log(5)], 3, { task: "classify" }, CLASSIFIES)),
    [0.125, 0.25, 0.625],
  );
  assert.deepEqual(rounded(run([1000, 0, -1000], 3, { task: "classify" }, CLASSIFIES)), [1, 0, 0]);
  assert.deepEqual(rounded(run([1, -2, 3], 3, { task: "classify", useActivation: false }, CLASSIFIES)), [1, -2, 3]);
  const reranker: PoolingInfo = { ...CLASSIFIES, tasks: ["classify", "score"], classes: 1 };
  assert.deepEqual(rounded(run([Math.log(3)], 1, { task: "score" }, reranker)), [0.75]);
  assert.deepEqual(rounded(run([Math.log(3)], 1, { task: "classify" }, reranker)), [0.75]);
  assert.deepEqual(rounded(run([-2], 1, { task: "score", useActivation: false }, reranker)), [-2]);
});

test("a head with its own softmax is left as it is; its score is the first share", () => {
  const yesNo: PoolingInfo = { ...CLASSIFIES, classes: 2, labels: ["yes", "no"], head: "softmax" };
  assert.deepEqual(rounded(run([0.75, 0.25], 2, { task: "classify" }, yesNo)), [0.75, 0.25]);
  assert.deepEqual(rounded(run([0.75, 0.25], 2, { task: "score" }, yesNo)), [0.75]);
});

test("numbers that are none are no answer", () => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
    assert.equal(finish(Float32Array.of(1, bad), 2, { task: "embed" }, EMBEDS), undefined);
});
