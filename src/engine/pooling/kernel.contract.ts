/**
 * What every PoolingKernel must do: one set of tests, registered over each implementation by its own test file.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { KernelError } from "#engine/kernel.ts";
import type { PoolingKernel, PoolingOutput } from "./kernel.ts";

export interface PoolingContractOptions {
  /** At least 4 sequences in a batch. */
  open(): PoolingKernel;
  /** By how much a number may differ in company; 0 for to the bit. */
  readonly tolerance: number;
}

export function closeTo(actual: Float32Array, expected: Float32Array, tolerance: number): void {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, at) => {
    const off = Math.abs(value - (expected[at] as number));
    assert.ok(off <= tolerance, `number ${at} is off by ${off}`);
  });
}

export function poolingContract(name: string, { open, tolerance }: PoolingContractOptions): void {
  let kernel: PoolingKernel;
  const whole = (...sequences: readonly number[][]): readonly Float32Array[] =>
    kernel.pool(
      sequences.map((tokens) => Int32Array.from(tokens)),
      "sequence",
    );
  const alone = (tokens: readonly number[]): Float32Array => whole([...tokens])[0] as Float32Array;
  const refused = (sequences: readonly Int32Array[], output: PoolingOutput = "sequence"): void => {
    assert.throws(
      () => kernel.pool(sequences, output),
      (error) => error instanceof KernelError && error.code === "invalid",
    );
  };

  before(() => {
    kernel = open();
  });
  after(() => kernel.close());

  test(`${name}: gives one row a sequence, in their order`, () => {
    const rows = whole([3, 4, 5], [6], [7, 8]);
    assert.deepEqual(
      rows.map((row) => row.length),
      [kernel.limits.width, kernel.limits.width, kernel.limits.width],
    );
    assert.notDeepEqual(rows[0], rows[1]);
    closeTo(rows[1] as Float32Array, alone([6]), tolerance);
    closeTo(rows[2] as Float32Array, alone([7, 8]), tolerance);
  });

  test(`${name}: gives the same alone, in company, in whatever place, and again`, () => {
    const tokens = [3, 9, 4, 7, 5];
    const expected = alone(tokens);
    assert.deepEqual(alone(tokens), expected);
    const others = [[8, 8], [1, 2, 3, 4, 5, 6, 7, 8, 9], [5]];
    for (let place = 0; place <= others.length; place++) {
      const rows = whole(...others.slice(0, place), tokens, ...others.slice(place));
      closeTo(rows[place] as Float32Array, expected, tolerance);
    }
  });

  test(`${name}: what it gave is the caller's and stays as it is`, () => {
    const [first] = whole([3, 4]);
    const copy = first?.slice();
    whole([9, 9, 9], [8]);
    assert.deepEqual(first, copy);
  });

  test(`${name}: fills a batch to the last token and the last sequence`, () => {
    const { contextPerSlot, maxBatchTokens, maxSequences } = kernel.limits;
    const longest = new Int32Array(contextPerSlot).fill(3);
    assert.equal(kernel.pool([longest], "sequence").length, 1);
    assert.equal(kernel.pool(new Array(maxSequences).fill(Int32Array.of(4)), "sequence").length, maxSequences);
    const size = Math.floor(maxBatchTokens / 4);
    if (size <= contextPerSlot) kernel.pool(new Array(4).fill(longest.subarray(0, size)), "sequence");
  });

  test(`${name}: refuses what a native call would not survive`, () => {
    const { vocabularySize, contextPerSlot, maxBatchTokens, maxSequences } = kernel.limits;
    refused([]);
    refused([Int32Array.of(3), new Int32Array(0)]);
    refused([Int32Array.of(3, -1)]);
    refused([Int32Array.of(vocabularySize)]);
    refused([Int32Array.of(-(2 ** 31))]);
    refused([new Int32Array(contextPerSlot + 1).fill(3)]);
    refused(new Array(maxSequences + 1).fill(Int32Array.of(3)));
    const half = new Int32Array(Math.min(contextPerSlot, Math.ceil(maxBatchTokens / 2) + 1)).fill(3);
    refused(new Array(Math.floor(maxBatchTokens / half.length) + 1).fill(half));
    assert.equal(alone([3]).length, kernel.limits.width);
  });

  test(`${name}: gives a row a token where there is no head, and refuses where there is`, () => {
    const sequences = [Int32Array.of(3, 4, 5), Int32Array.of(6)];
    if (kernel.limits.type === "rank") return refused(sequences, "tokens");
    const { width } = kernel.limits;
    const rows = kernel.pool(sequences, "tokens");
    assert.deepEqual(
      rows.map((row) => row.length),
      [3 * width, width],
    );
    const [single] = kernel.pool([Int32Array.of(6)], "tokens");
    closeTo(rows[1] as Float32Array, single as Float32Array, tolerance);
    closeTo(single as Float32Array, alone([6]), tolerance);
  });
}
