import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Heap } from "./heap.ts";

interface Item {
  key: number;
}

const ACTION = fc.record({ kind: fc.constantFrom("add", "pop", "remove", "change"), at: fc.nat(), key: fc.nat(20) });

test("the first by the order is on top, whatever comes, goes and changes", () => {
  fc.assert(
    fc.property(fc.array(ACTION, { maxLength: 100 }), (actions) => {
      const heap = new Heap<Item>((a, b) => a.key < b.key);
      const present: Item[] = [];
      for (const { kind, at, key } of actions) {
        const item = present[at % Math.max(1, present.length)];
        if (kind === "add") {
          const made = { key };
          present.push(made);
          heap.add(made);
        } else if (item !== undefined && kind === "change") {
          item.key = key;
          // Either says it.
          if (at % 2 === 0) heap.update(item);
          else heap.add(item);
        } else if (item !== undefined) {
          const gone = kind === "pop" ? (heap.top() ?? assert.fail("it is empty")) : item;
          heap.remove(gone);
          present.splice(present.indexOf(gone), 1);
        }
        heap.checkIntegrity();
        assert.equal(heap.size, present.length);
        assert.equal(heap.top()?.key, present.length === 0 ? undefined : Math.min(...present.map((each) => each.key)));
      }
    }),
  );
});

test("what is not in it changes nothing", () => {
  const heap = new Heap<Item>((a, b) => a.key < b.key);
  heap.add({ key: 1 });
  heap.remove({ key: 1 });
  heap.update({ key: 0 });
  heap.checkIntegrity();
  assert.deepEqual([heap.size, heap.top()], [1, { key: 1 }]);
});
