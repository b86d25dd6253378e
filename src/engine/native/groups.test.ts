import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Batch, createBatch, NO_ADAPTER } from "#engine/kernel.ts";
import { BLOCK, groupForward, type Span, segmentsOf, spansOf } from "./groups.ts";

/** Tokens that a slot brings: those in blocks, and those by themselves. */
type Share = readonly [body: number, rest: number];

/** A batch that brings `shares[slot]` to each slot; nothing leaves the slot out. */
function batchOf(shares: readonly Share[]): Batch {
  const batch = createBatch(shares.reduce((sum, [body, rest]) => sum + body + rest, 1));
  shares.forEach(([body, rest], slot) => {
    for (let i = 0; i < body + rest; i++) {
      batch.blocks[batch.count] = i < body ? 1 : 0;
      batch.slots[batch.count++] = slot;
    }
  });
  return batch;
}

const spans = (shares: readonly Share[]): readonly Span[] => spansOf(batchOf(shares), NO_ADAPTER).get(NO_ADAPTER) ?? [];

const shape = (shares: readonly Share[], physical = 512) => {
  const { calls, singles } = groupForward(spans(shares), physical);
  return [...calls, singles].map((spans) => spans.map(({ slot, count }) => `${slot}:${count}`).join(" "));
};

test("blocks first, then chunks, then a token a slot", () => {
  const mixed: readonly Share[] = [
    [0, 1],
    [128, 2],
    [0, 1],
    [0, 5],
    [0, 5],
    [64, 0],
    [64, 1],
  ];
  assert.deepEqual(shape(mixed), ["1:128", "5:64 6:64", "1:2", "3:5 4:5", "0:1 2:1 6:1"]);
  const equal = Array.from({ length: 5 }, () => [100, 0] as const);
  assert.deepEqual(shape(equal), ["0:100 1:100 2:100 3:100 4:100", ""]);
  assert.deepEqual(shape(equal, 256), ["0:100 1:100", "2:100 3:100", "4:100", ""]);
  assert.deepEqual(
    shape([
      [1000, 0],
      [513, 0],
    ]),
    ["0:500", "1:257", "0:500", "1:256", ""],
  );
  assert.deepEqual(
    shape([
      [0, 130],
      [0, 70],
    ]),
    ["0:44", "1:35", "0:43", "1:35", "0:43", ""],
  );
});

test("every token comes once, in order within its slot, and no call mixes ways of computing", () => {
  const body = fc.oneof(fc.constantFrom(0, 64, 65, 127, 128, 129, 512, 513), fc.integer({ min: 64, max: 1100 }));
  const rest = fc.oneof(fc.constantFrom(0, 1, 2, 32, 63, 64, 65), fc.integer({ min: 0, max: 700 }));
  const shares = fc.array(fc.tuple(body, rest), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(shares, fc.constantFrom(128, 200, 512), (brought, physical) => {
      const all = brought.map(([ours, others]) => ours + others);
      if (!all.some((count) => count > 0)) return;
      const { calls, singles } = groupForward(spans(brought), physical);
      const found = [...calls.flat(), ...singles];
      const taken = all.map(() => 0);
      const start = all.map((_, slot) => all.slice(0, slot).reduce((sum, count) => sum + count, 0));
      for (const { slot, from, count } of found) {
        const inBlock = (taken[slot] as number) < (brought[slot]?.[0] ?? 0);
        const end = (taken[slot] as number) + count;
        assert.equal(inBlock, count >= BLOCK, "the batch says what is a block, and each piece of it is one");
        if (inBlock) assert.ok(end <= (brought[slot]?.[0] ?? 0), "and nothing else is in it");
        assert.equal(from, (start[slot] as number) + (taken[slot] as number));
        taken[slot] = (taken[slot] as number) + count;
      }
      assert.deepEqual(taken, all);
      for (const call of calls) {
        const [first] = call;
        assert.ok(first !== undefined && call.every(({ count }) => count === first.count && count > 1));
        assert.equal(segmentsOf(call.map(({ slot }) => slot)).length, 1);
        assert.ok(call.length * first.count <= physical);
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
  const batch = batchOf([1, 2, 1, 1].map((rest) => [0, rest]));
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
