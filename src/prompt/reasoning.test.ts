import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { REASONING_FAMILIES, type ReasoningFamily } from "#core/parser-families.ts";
import { cut, inPieces, workOf } from "./_work-fixture.ts";
import { REASONING_FORMS, type ReasoningParser, reasoningFamilyIn } from "./reasoning.ts";

function run(parser: ReasoningParser, chunks: readonly string[]): { reasoning: string; content: string } {
  let [reasoning, content] = ["", ""];
  for (const part of [...chunks.map((chunk) => () => parser.push(chunk)), () => parser.end()].map((step) => step())) {
    reasoning += part.reasoning;
    content += part.content;
  }
  return { reasoning, content };
}

const parser = (family: ReasoningFamily, prompt = "", readsCalls = false): ReasoningParser =>
  REASONING_FORMS[family].make({ prompt, readsCalls });

test("the tags, and the line breaks beside them, are neither thought nor answer", () => {
  const qwen = (text: string) => run(parser("qwen3"), [text]);
  assert.deepEqual(qwen("<think>\nhm, so\n</think>\n\nHello\n"), { reasoning: "hm, so", content: "Hello\n" });
  assert.deepEqual(qwen("  \n<think>a</think>b"), { reasoning: "a", content: "b" });
  assert.deepEqual(qwen("no thought at all"), { reasoning: "", content: "no thought at all" });
  assert.deepEqual(qwen("<thin air"), { reasoning: "", content: "<thin air" });
  assert.deepEqual(qwen("  <thin air"), { reasoning: "", content: "  <thin air" });
  assert.deepEqual(qwen("a <think>b</think>"), { reasoning: "", content: "a <think>b</think>" });
  assert.deepEqual(qwen("<think>never ends </thin"), { reasoning: "never ends </thin", content: "" });
  assert.deepEqual(run(parser("glm45"), ["<think>a</think>\nb"]), { reasoning: "a", content: "b" });
});

test("a prompt that opened the tag leaves the thought at the beginning", () => {
  const opened = parser("qwen3", "…assistant\n<think>\n");
  assert.equal(opened.thinking, true);
  assert.deepEqual(run(opened, ["so\n</think>\n\nyes"]), { reasoning: "so", content: "yes" });
  assert.deepEqual(run(parser("deepseek_r1"), ["so</think>yes"]), { reasoning: "so", content: "yes" });
  assert.deepEqual(run(parser("deepseek_r1"), ["<think>so</think>yes"]), { reasoning: "so", content: "yes" });
});

test("Mistral's and Granite's marks are theirs", () => {
  assert.deepEqual(run(parser("mistral"), ["[THINK]so [/thing][/THINK]yes"]), {
    reasoning: "so [/thing]",
    content: "yes",
  });
  assert.deepEqual(run(parser("mistral"), ["yes [THINK]"]), { reasoning: "", content: "yes [THINK]" });
  for (const is of [" is", "'s"])
    assert.deepEqual(
      run(parser("granite"), [`Here${is} my thought process: so. Here it goes.\n\nHere${is} my response: yes`]),
      { reasoning: " so. Here it goes.", content: " yes" },
    );
  assert.deepEqual(run(parser("granite"), ["Here is my dog:"]), { reasoning: "", content: "Here is my dog:" });
});

const HARMONY =
  "<|channel|>analysis<|message|>They ask.\nSo.<|end|><|start|>assistant<|channel|>commentary<|message|>Let me look.<|end|>" +
  '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "<|end|>"}<|call|>' +
  "<|start|>assistant<|channel|>final<|message|>Done.";

test("gpt-oss thinks in the analysis channel, and calls go on as they were where they are read", () => {
  assert.deepEqual(run(parser("openai_gptoss"), [HARMONY]), {
    reasoning: "They ask.\nSo.",
    content: 'Let me look.{"a": "<|end|>"}Done.',
  });
  assert.deepEqual(run(parser("openai_gptoss", "", true), [HARMONY]), {
    reasoning: "They ask.\nSo.",
    content:
      "Let me look.<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>" +
      '{"a": "<|end|>"}<|call|>Done.',
  });
  const toPython = "<|channel|>commentary to=python code<|message|>1+1<|end|>";
  assert.deepEqual(run(parser("openai_gptoss", "", true), [toPython]), { reasoning: "1+1", content: "" });
});

test("text without a header, half a header, and one that never ends", () => {
  const harmony = (text: string) => run(parser("openai_gptoss"), [text]);
  assert.deepEqual(harmony('{"a": 1}'), { reasoning: "", content: '{"a": 1}' });
  assert.deepEqual(harmony(" to be or not"), { reasoning: "", content: " to be or not" });
  assert.deepEqual(harmony("to="), { reasoning: "", content: "to=" });
  assert.deepEqual(harmony("<|channel|>analys"), { reasoning: "", content: "" });
  const long = `<|channel|>${"x".repeat(600)}`;
  assert.deepEqual(harmony(long), { reasoning: "", content: long });
  assert.deepEqual(harmony("<|channel|>analysis<|message|>a<|channel|>final<|message|>b<|return|>"), {
    reasoning: "a",
    content: "b",
  });
});

const pieces: Readonly<Record<ReasoningFamily, readonly string[]>> = {
  deepseek_r1: ["<think>", "</think>"],
  qwen3: ["<think>", "</think>"],
  glm45: ["<think>", "</think>"],
  mistral: ["[THINK]", "[/THINK]"],
  granite: ["Here is my thought process:", "Here's my response:", "Here is my response:", "Here"],
  openai_gptoss: [
    "<|start|>", "assistant", "<|channel|>", "analysis", "commentary", "final", "<|message|>", "<|end|>", "<|call|>",
    " to=functions.f", " <|constrain|>json", HARMONY,
  ],
}; // biome-ignore format: one glance

for (const family of REASONING_FAMILIES) {
  test(`${family}: the split does not depend on how the text was cut, and no text makes it throw`, () => {
    const piece = fc.oneof(
      fc.constantFrom(...pieces[family], "<", "</", "think>", "\n", " ", "word", "😀"),
      fc.string(),
    );
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 10 }),
        fc.array(fc.nat(), { maxLength: 8 }),
        fc.boolean(),
        fc.boolean(),
        (parts, places, opened, readsCalls) => {
          const text = parts.join("");
          const prompt = opened ? (REASONING_FORMS[family].tags?.open ?? "") : "";
          const make = (): ReasoningParser => parser(family, prompt, readsCalls);
          assert.deepEqual(run(make(), cut(text, places)), run(make(), [text]));
        },
      ),
      { numRuns: 600 },
    );
  });

  test(`${family}: work grows as the text does`, () => {
    for (const unit of [...pieces[family], " ", "\n", "word ", "<thin", "Here is my "]) {
      const work = (length: number, start: string): number => {
        const chunks = inPieces(start + unit.repeat(Math.ceil(length / unit.length)));
        return workOf(() => run(parser(family), chunks));
      };
      for (const start of ["", pieces[family][0] ?? ""])
        assert.ok(work(20_000, start) < 2.5 * work(10_000, start), start + unit);
    }
  });
}

test("a template tells how its model thinks", () => {
  assert.equal(reasoningFamilyIn("{{ '<think>' }}"), "qwen3");
  assert.equal(reasoningFamilyIn("{{ '[THINK]' }}"), "mistral");
  assert.equal(reasoningFamilyIn("{{ '<|channel|>analysis<|message|>' }}"), "openai_gptoss");
  assert.equal(reasoningFamilyIn("under 'Here is my thought process:'"), "granite");
  assert.equal(reasoningFamilyIn("{{ messages[0].content }}"), undefined);
});
