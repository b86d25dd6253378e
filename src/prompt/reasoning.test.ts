import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { REASONING_PARSERS, type ReasoningParser } from "./reasoning.ts";

function run(parser: ReasoningParser, chunks: readonly string[]): { reasoning: string; content: string } {
  let [reasoning, content] = ["", ""];
  for (const part of [...chunks.map((chunk) => () => parser.push(chunk)), () => parser.end()].map((step) => step())) {
    reasoning += part.reasoning;
    content += part.content;
  }
  return { reasoning, content };
}

/** Cuts `text` at the given places. */
const cut = (text: string, places: readonly number[]): string[] => {
  const at = [...new Set(places.map((place) => place % (text.length + 1)))].sort((a, b) => a - b);
  return [...at, text.length].map((end, i) => text.slice(i === 0 ? 0 : at[i - 1], end));
};

test("the tags, and the line breaks beside them, are neither thought nor answer", () => {
  const qwen = (text: string) => run(REASONING_PARSERS.qwen3(""), [text]);
  assert.deepEqual(qwen("<think>\nhm, so\n</think>\n\nHello\n"), { reasoning: "hm, so", content: "Hello\n" });
  assert.deepEqual(qwen("  \n<think>a</think>b"), { reasoning: "a", content: "b" });
  assert.deepEqual(qwen("no thought at all"), { reasoning: "", content: "no thought at all" });
  assert.deepEqual(qwen("<thin air"), { reasoning: "", content: "<thin air" });
  assert.deepEqual(qwen("a <think>b</think>"), { reasoning: "", content: "a <think>b</think>" });
  assert.deepEqual(qwen("<think>never ends </thin"), { reasoning: "never ends </thin", content: "" });
});

test("a prompt that opened the tag leaves the thought at the beginning", () => {
  const opened = REASONING_PARSERS.qwen3("…assistant\n<think>\n");
  assert.equal(opened.thinking, true);
  assert.deepEqual(run(opened, ["so\n</think>\n\nyes"]), { reasoning: "so", content: "yes" });
  assert.deepEqual(run(REASONING_PARSERS.deepseek_r1(""), ["so</think>yes"]), { reasoning: "so", content: "yes" });
});

test("the split does not depend on how the text was cut", () => {
  const piece = fc.constantFrom("<think>", "</think>", "<", "</", "think>", "\n", " ", "word", "é");
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 10 }),
      fc.array(fc.nat(), { maxLength: 8 }),
      fc.boolean(),
      (pieces, places, opened) => {
        const text = pieces.join("");
        const prompt = opened ? "<think>" : "";
        assert.deepEqual(
          run(REASONING_PARSERS.qwen3(prompt), cut(text, places)),
          run(REASONING_PARSERS.qwen3(prompt), [text]),
        );
      },
    ),
    { numRuns: 1000 },
  );
});
