import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Batch, createBatch, NO_ADAPTER } from "#engine/kernel.ts";
import { BLOCK, groupForward, type Span, segmentsOf, spansOf } from "./groups.ts";

/** A batch that brings `counts[slot]` tokens to each slot; 0 leaves the slot out. */
function batchOf(counts: readonly number[]): Batch {
  const batch = createBatch(counts.reduce((sum, count) => sum + count, 1));
  counts.forEach((count, slot) => {
    for (let i = 0; i < count; i++) batch.slots[batch.count++] = slot;
  });
  return batch;
}

const spans = (counts: readonly number[]): readonly Span[] =>
  spansOf(batchOf(counts), NO_ADAPTER).get(NO_ADAPTER) ?? [];

const shape = (counts: readonly number[], blocks = true, physical = 512) => {
  const { calls, singles } = groupForward(spans(counts), blocks, physical);
  return [...calls, singles].map((spans) => spans.map(({ slot, count }) => `${slot}:${count}`).join(" "));
};

test("blocks first, then chunks, then a token a slot", () => {
  assert.deepEqual(shape([1, 130, 1, 5, 5, 64, 65]), ["1:128", "5:64 6:64", "1:2", "3:5 4:5", "0:1 2:1 6:1"]);
  assert.deepEqual(shape([128, 128, 128, 128, 128]), ["0:128 1:128 2:128 3:128", "4:128", ""]);
  assert.deepEqual(shape([1024, 1024]), ["0:1024", "1:1024", ""]);
  assert.deepEqual(shape([130, 70], false), ["0:44", "1:35", "0:43", "1:35", "0:43", ""]);
});

test("every token comes once, in order within its slot, and no call mixes ways of computing", () => {
  const counts = fc.array(fc.oneof(fc.constantFrom(0, 1, 63, 64, 65, 128), fc.integer({ min: 0, max: 700 })), {
    minLength: 1,
    maxLength: 12,
  });
  fc.assert(
    fc.property(counts, fc.boolean(), fc.constantFrom(128, 512), (all, blocks, physical) => {
      if (!all.some((count) => count > 0)) return;
      const { calls, singles } = groupForward(spans(all), blocks, physical);
      const found = [...calls.flat(), ...singles];
      const taken = all.map(() => 0);
      const start = all.map((_, slot) => all.slice(0, slot).reduce((sum, count) => sum + count, 0));
      for (const { slot, from, count } of found) {
        assert.equal(from, (start[slot] as number) + (taken[slot] as number));
        taken[slot] = (taken[slot] as number) + count;
      }
      assert.deepEqual(taken, all);
      for (const call of calls) {
        const [first] = call;
        assert.ok(first !== undefined && call.every(({ count }) => count === first.count && count > 1));
        assert.equal(segmentsOf(call.map(({ slot }) => slot)).length, 1);
        const isBlock = first.count % BLOCK === 0;
        if (!isBlock) assert.ok(first.count < BLOCK);
        if (!blocks) assert.ok(first.count < BLOCK, "no blocks where none are wanted");
        assert.ok(call.length === 1 || call.length * first.count <= physical);
      }
      assert.ok(singles.every(({ count }) => count === 1));
      assert.equal(new Set(singles.map(({ slot }) => slot)).size, singles.length);
    }),
  );
});

test("segments are runs of neighbours", () => {
  assert.deepEqual(segmentsOf([0, 1, 3, 7, 8, 9]), [[0, 1], [3], [7, 8, 9]]);
  assert.deepEqual(segmentsOf([]), []);
});

test("each adapter's spans stand apart, the one in use first", () => {
  const batch = batchOf([1, 2, 1, 1]);
  for (const at of [1, 2, 4]) batch.adapters[at] = 7;
  const shown = (first: number) =>
    [...spansOf(batch, first)].map(([adapter, list]) => [adapter, list.map(({ slot, from }) => `${slot}@${from}`)]);
  assert.deepEqual(shown(7), [
    [7, ["1@1", "3@4"]],
    [0, ["0@0", "2@3"]],
  ]);
  assert.deepEqual(
    shown(9).map(([adapter]) => adapter),
    [0, 7],
  );
});
