import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FAKE_LIMITS, FakeKernel, openFakeKernel } from "./fake.ts";
import { type Batch, createBatch, KernelError, type KernelErrorCode } from "./kernel.ts";

type Entry = readonly [slot: number, position: number, token: number, output?: 1];

function batchOf(entries: readonly Entry[]): Batch {
  const batch = createBatch(Math.max(1, entries.length));
  batch.count = entries.length;
  entries.forEach(([slot, position, token, output], at) => {
    batch.slots[at] = slot;
    batch.positions[at] = position;
    batch.tokens[at] = token;
    batch.outputs[at] = output ?? 0;
  });
  return batch;
}

function errorOf(work: () => unknown): KernelErrorCode | undefined {
  try {
    work();
  } catch (error) {
    if (error instanceof KernelError) return error.code;
    throw error;
  }
  return undefined;
}

describe("FakeKernel", () => {
  it("gives rows that depend on the slot's tokens alone, in batch order", () => {
    const kernel = new FakeKernel();
    const [alone] = kernel
      .forward(
        batchOf([
          [0, 0, 7],
          [0, 1, 9, 1],
        ]),
      )
      .map((row) => row.slice());
    const rows = kernel
      .forward(
        batchOf([
          [1, 0, 5, 1],
          [3, 0, 7, 1],
          [3, 1, 9, 1],
        ]),
      )
      .map((row) => row.slice());
    assert.equal(rows.length, 3);
    assert.deepEqual(rows[2], alone);
    assert.notDeepEqual(rows[0], rows[1]);
    assert.equal(alone?.length, FAKE_LIMITS.vocabularySize);
    assert.ok(alone?.every((logit) => logit >= -4 && logit <= 4));
  });

  it("forgets a cleared slot", () => {
    const kernel = new FakeKernel();
    kernel.forward(
      batchOf([
        [2, 0, 7],
        [2, 1, 9],
      ]),
    );
    assert.equal(kernel.length(2), 2);
    kernel.truncate(2, 0);
    assert.equal(kernel.length(2), 0);
    assert.equal(
      errorOf(() => kernel.forward(batchOf([[2, 2, 1]]))),
      "invalid",
    );
  });

  it("refuses every batch that breaks an invariant and changes nothing", () => {
    const kernel = new FakeKernel({ contextPerSlot: 4, maxBatchTokens: 6 });
    kernel.forward(batchOf([[0, 0, 1]]));
    const bad: readonly (readonly Entry[])[] = [
      [],
      [[0, 0, 1]],
      [[0, 2, 1]],
      [[0, 1, -1]],
      [[0, 1, FAKE_LIMITS.vocabularySize]],
      [
        [1, 0, 1],
        [0, 1, 1],
      ],
      [[8, 0, 1]],
      [[-1, 0, 1]],
      [
        [0, 1, 1],
        [0, 3, 1],
      ],
      [
        [1, 0, 1],
        [1, 1, 1],
        [1, 2, 1],
        [1, 3, 1],
        [1, 4, 1],
      ],
      Array.from({ length: 7 }, (_, slot) => [slot, slot === 0 ? 1 : 0, 1] as const),
    ];
    for (const entries of bad)
      assert.equal(
        errorOf(() => kernel.forward(batchOf(entries))),
        "invalid",
        JSON.stringify(entries),
      );
    assert.deepEqual(
      [0, 1, 2].map((slot) => kernel.length(slot)),
      [1, 0, 0],
    );
  });

  it("is full when its cells are, and fails on command", () => {
    const kernel = new FakeKernel({ cells: 2, faults: [{ forward: 3, fault: "failed" }] });
    kernel.forward(
      batchOf([
        [0, 0, 1],
        [0, 1, 1],
      ]),
    );
    assert.equal(
      errorOf(() => kernel.forward(batchOf([[0, 2, 1]]))),
      "full",
    );
    assert.equal(kernel.length(0), 2);
    assert.equal(
      errorOf(() => kernel.forward(batchOf([[0, 2, 1]]))),
      "failed",
    );
    assert.equal(
      errorOf(() => openFakeKernel({ refuse: "no" })),
      "failed",
    );
    kernel.close();
    assert.equal(
      errorOf(() => kernel.length(0)),
      "failed",
    );
  });
});
