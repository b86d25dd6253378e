/**
 * What is kept of many keys, and what is not.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Recent } from "./recent.ts";

const MOST = 8;

test("never another's value, nothing that was deleted, all of the last half, no more than the bound", () => {
  const step = fc.record({ do: fc.constantFrom("get", "set", "delete"), key: fc.nat(20), value: fc.nat() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const recent = new Recent<number, { value: number }>(MOST);
      const all = new Map<number, { value: number }>();
      /** Keys from the one that was touched last. */
      let touched: number[] = [];
      for (const { do: what, key, value } of steps) {
        if (what === "delete") {
          recent.delete(key);
          all.delete(key);
          continue;
        }
        if (what === "set") {
          all.set(key, { value });
          recent.set(key, { value });
        }
        const found = recent.get(key);
        if (touched.slice(0, MOST / 2).includes(key)) assert.deepEqual(found, all.get(key));
        if (found !== undefined) {
          assert.deepEqual(found, all.get(key));
          touched = [key, ...touched.filter((other) => other !== key)];
        }
      }
      const left = Array.from({ length: 21 }, (_, key) => key).filter((key) => recent.has(key));
      assert.ok(left.length <= MOST, `${left.length} are kept`);
    }),
    { numRuns: 500 },
  );
});
