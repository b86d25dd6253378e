import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { matches, matchesAny } from "./name-patterns.ts";

test("stars, question marks and plain names", () => {
  for (const [pattern, name] of [
    ["llama", "llama"],
    ["*", ""],
    ["*", "a/b"],
    ["llama-*", "llama-70b"],
    ["*/llama-?b", "org/llama-8b"],
    ["a*b*c", "aXXbYbc"],
    ["**a", "a"],
  ] as const)
    assert.ok(matches(pattern, name), `${pattern} ${name}`);
  for (const [pattern, name] of [
    ["llama", "Llama"],
    ["llama", "llama2"],
    ["?", ""],
    ["a*b", "ab "],
    ["", "a"],
    [".*", "a"],
    ["[a]", "a"],
  ] as const)
    assert.ok(!matches(pattern, name), `${pattern} ${name}`);
});

test("agrees with the regular expression of the same meaning", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "*", "?", "."), maxLength: 8 });
  const names = fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 8 });
  fc.assert(
    fc.property(letters, names, (pattern, name) => {
      const expected = new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", ".*").replaceAll("?", ".")}$`);
      assert.equal(matches(pattern, name), expected.test(name));
    }),
    { numRuns: 2000 },
  );
});

test("an absent list allows all, an empty one nothing", () => {
  assert.ok(matchesAny(undefined, "x"));
  assert.ok(!matchesAny([], "x"));
  assert.ok(matchesAny(["a", "x*"], "x1"));
});
