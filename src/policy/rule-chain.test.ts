import assert from "node:assert/strict";
import { test } from "node:test";
import { ruleChain } from "./rule-chain.ts";

test("a mark is of its rule, of those before it in their order, and of whose they are", () => {
  const [a, b, c] = [{ a: 1 }, { b: 1 }, { c: 1 }];
  const marks = ruleChain("one", [a, b, c]);
  assert.equal(new Set(marks).size, 3);
  assert.deepEqual(ruleChain("one", [a, b]), marks.slice(0, 2));
  assert.notEqual(ruleChain("one", [b, a])[1], marks[1]);
  assert.notEqual(ruleChain("two", [a])[0], marks[0]);
  assert.deepEqual(ruleChain("one", []), []);
});
