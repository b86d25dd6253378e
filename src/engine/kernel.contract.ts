/**
 * What every Kernel must do: one set of tests, registered over each implementation by its own test file.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Batch, createBatch, type Kernel, KernelError } from "./kernel.ts";

export interface ContractOptions {
  open(): Kernel | Promise<Kernel>;
  /** By how much logits may differ with the shape of a batch; not at all if absent. */
  readonly tolerance?: number;
}

type Entry = readonly [slot: number, token: number, output: boolean];

/** Builds the batch from entries; positions go on where each slot ends. */
export function batchOf(kernel: Kernel, entries: readonly Entry[]): Batch {
  const batch = createBatch(Math.max(entries.length, kernel.limits.maxBatchTokens));
  const next = new Map<number, number>();
  for (const [slot, token, output] of entries) {
    const exists = slot >= 0 && slot < kernel.limits.maxSequences;
    const position = next.get(slot) ?? (exists ? kernel.length(slot) : 0);
    next.set(slot, position + 1);
    const i = batch.count++;
    batch.tokens[i] = token;
    batch.positions[i] = position;
    batch.slots[i] = slot;
    batch.outputs[i] = output ? 1 : 0;
  }
  return batch;
}

const run = (slot: number, tokens: readonly number[], from = tokens.length - 1): Entry[] =>
  tokens.map((token, i) => [slot, token, i >= from] as const);
const copy = (rows: readonly Float32Array[]): number[][] => rows.map((row) => Array.from(row));

export function kernelContract(name: string, options: ContractOptions): void {
  let kernel: Kernel;
  const forward = (entries: readonly Entry[]): number[][] => copy(kernel.forward(batchOf(kernel, entries)));
  const same = (actual: readonly number[][], expected: readonly number[][]): void => {
    const { tolerance = 0 } = options;
    if (tolerance === 0) assert.deepEqual(actual, expected);
    assert.equal(actual.length, expected.length);
    actual.forEach((row, at) => {
      row.forEach((value, token) => {
        assert.ok(Math.abs(value - (expected[at]?.[token] ?? Number.NaN)) <= tolerance, `row ${at}, token ${token}`);
      });
    });
  };
  const clearAll = (): void => {
    for (let slot = 0; slot < kernel.limits.maxSequences; slot++) kernel.truncate(slot, 0);
  };
  const refused = (batch: Batch): void => {
    const before = Array.from({ length: kernel.limits.maxSequences }, (_, slot) => kernel.length(slot));
    assert.throws(
      () => kernel.forward(batch),
      (error) => error instanceof KernelError && error.code === "invalid",
    );
    assert.deepEqual(
      Array.from({ length: kernel.limits.maxSequences }, (_, slot) => kernel.length(slot)),
      before,
    );
  };
  const it = (what: string, body: () => void): void => {
    test(`${name}: ${what}`, () => {
      clearAll();
      body();
    });
  };

  before(async () => {
    kernel = await options.open();
  });
  after(() => kernel.close());

  it("gives one row an output, in batch order", () => {
    const rows = forward([...run(0, [3, 4, 5], 1), ...run(1, [6])]);
    assert.equal(rows.length, 3);
    for (const row of rows) assert.equal(row.length, kernel.limits.vocabularySize);
    assert.notDeepEqual(rows[0], rows[1]);
  });

  it("gives the same row in one piece, in chunks and token by token", () => {
    const tokens = [3, 9, 4, 7, 5, 8];
    const whole = forward(run(0, tokens));
    clearAll();
    forward(run(0, tokens.slice(0, 4), 4));
    const chunked = forward(run(0, tokens.slice(4)));
    clearAll();
    let last: number[][] = [];
    for (const token of tokens) last = forward([[0, token, true]]);
    same(chunked, whole);
    same(last, whole);
  });

  it("gives the same row alone and in a full batch, in whatever slot", () => {
    const alone = forward(run(0, [3, 9, 4]));
    clearAll();
    const last = kernel.limits.maxSequences - 1;
    const others = Array.from({ length: last }, (_, slot) => run(slot, [slot % 7, 5, 6], 3)).flat();
    same(forward([...others, ...run(last, [3, 9, 4])]).slice(-1), alone);
  });

  it("keeps slots apart and forgets what is cleared", () => {
    const first = forward(run(0, [3, 4]));
    forward(run(1, [8, 8, 8]));
    kernel.truncate(0, 0);
    assert.equal(kernel.length(0), 0);
    assert.equal(kernel.length(1), 3);
    assert.deepEqual(forward(run(0, [3, 4])), first);
    kernel.truncate(0, 0);
    kernel.truncate(0, 0);
  });

  it("refuses what breaks the invariants, and changes nothing", () => {
    forward(run(0, [3, 4]));
    const limits = kernel.limits;
    refused(batchOf(kernel, []));
    refused(batchOf(kernel, [[0, limits.vocabularySize, true]]));
    refused(batchOf(kernel, [[0, -1, true]]));
    refused(batchOf(kernel, [[limits.maxSequences, 1, true]]));
    refused(batchOf(kernel, [[-1, 1, true]]));
    refused(
      batchOf(kernel, [
        [1, 1, true],
        [0, 1, true],
      ]),
    );
    refused(
      batchOf(kernel, [
        [0, 1, true],
        [1, 1, true],
        [0, 1, true],
      ]),
    );
    const gap = batchOf(kernel, [[0, 1, true]]);
    gap.positions[0] = 5;
    refused(gap);
    refused(
      batchOf(
        kernel,
        run(
          1,
          Array.from({ length: limits.maxBatchTokens + 1 }, () => 1),
        ),
      ),
    );
    assert.throws(() => kernel.truncate(limits.maxSequences, 0), KernelError);
  });

  it("goes on from a truncated or copied prefix as if it had computed it", () => {
    const whole = forward(run(0, [3, 9, 4, 7, 5]));
    kernel.truncate(0, 2);
    assert.equal(kernel.length(0), 2);
    assert.deepEqual(forward(run(0, [4, 7, 5])), whole);
    forward(run(2, [6, 6]));
    kernel.copy(0, 2, 3);
    kernel.copy(2, 3, 1);
    kernel.truncate(0, 0);
    assert.deepEqual(
      [0, 2, 3].map((slot) => kernel.length(slot)),
      [0, 3, 1],
    );
    assert.deepEqual(forward([...run(2, [7, 5]), ...run(3, [9, 4, 7, 5])]), [whole[0], whole[0]]);
    for (const wrong of [
      () => kernel.truncate(2, 6),
      () => kernel.truncate(2, -1),
      () => kernel.copy(2, 2, 1),
      () => kernel.copy(2, kernel.limits.maxSequences, 1),
      () => kernel.copy(-1, 2, 0),
      () => kernel.copy(3, 1, 6),
    ])
      assert.throws(wrong, (error) => error instanceof KernelError && error.code === "invalid");
  });

  it("goes on from a restored slot as if it had computed it, in whatever slot", () => {
    const whole = forward(run(0, [3, 9, 4, 7, 5]));
    kernel.truncate(0, 3);
    const saved = kernel.save(0);
    kernel.truncate(0, 0);
    forward(run(2, [6, 6]));
    kernel.restore(2, saved, 3);
    assert.deepEqual([kernel.length(0), kernel.length(2)], [0, 3]);
    // Two tokens and not one: half-precision weights give a lone row other last digits (docs/divergences.md).
    assert.deepEqual(forward(run(2, [7, 5])), whole);
    kernel.restore(0, saved, 3);
    kernel.truncate(0, 2);
    assert.deepEqual(forward(run(0, [4, 7, 5])), whole);
    assert.throws(() => kernel.save(kernel.limits.maxSequences), KernelError);
    assert.throws(() => kernel.restore(-1, saved, 3), KernelError);
  });

  it("holds as many tokens as it promises, and not one more", () => {
    const { contextPerSlot, maxBatchTokens } = kernel.limits;
    for (let held = 0; held < contextPerSlot; held = kernel.length(0)) {
      forward(
        run(
          0,
          Array.from({ length: Math.min(maxBatchTokens, contextPerSlot - held) }, (_, i) => i % 7),
        ),
      );
    }
    assert.equal(kernel.length(0), contextPerSlot);
    refused(batchOf(kernel, [[0, 1, true]]));
    forward(run(1, [1]));
  });
}
