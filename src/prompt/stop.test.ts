import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { StopStrings } from "./stop.ts";

interface Outcome {
  readonly text: string;
  readonly stop: string | undefined;
}

function run(stops: readonly string[], include: boolean, chunks: readonly string[]): Outcome {
  const matcher = new StopStrings(stops, include);
  let text = "";
  for (const chunk of chunks) {
    const result = matcher.push(chunk, true);
    if (typeof result !== "string") return { text: text + result.text, stop: result.stop };
    text += result;
  }
  return { text: text + matcher.flush(), stop: undefined };
}

/** The definition: the match that completes first; of those that complete together, the one that began first. */
function naive(stops: readonly string[], include: boolean, text: string): Outcome {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0];
    if (ending !== undefined) return { text: text.slice(0, include ? end : end - ending.length), stop: ending };
  }
  return { text, stop: undefined };
}

const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 });
const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 5 }), {
  minLength: 1,
  maxLength: 3,
});

test("however the text is cut, the first stop string to complete ends it", () => {
  fc.assert(
    fc.property(stops, fc.boolean(), fc.array(letters, { maxLength: 8 }), (needles, include, chunks) => {
      assert.deepEqual(run(needles, include, chunks), naive(needles, include, chunks.join("")));
    }),
    { numRuns: 2000 },
  );
});

test("only what may become a stop string is held back", () => {
  const matcher = new StopStrings(["END"], false);
  assert.equal(matcher.push("abcE", true), "abc");
  assert.equal(matcher.push("N", true), "");
  assert.equal(matcher.push("x", true), "ENx");
  assert.equal(matcher.push("EN", true), "");
  assert.deepEqual(matcher.push("D more", true), { text: "", stop: "END" });
});

test("a match does not count before it may, and one that completes later does", () => {
  const matcher = new StopStrings(["ab"], false);
  assert.equal(matcher.push("xabx", false), "xabx");
  assert.equal(matcher.push("a", false), "");
  assert.deepEqual(matcher.push("b", true), { text: "", stop: "ab" });
});
