import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { TOOL_FAMILIES, type ToolFamily } from "#core/parser-families.ts";
import { cut, inPieces, workOf } from "#prompt/_work-fixture.ts";
import { type Outcome, read, SAID, SAMPLES, TOOLS } from "./_samples-fixture.ts";
import { TOOL_FORMS, toolFamilyIn } from "./families.ts";

const said = (family: ToolFamily, chunks: readonly string[]): Omit<Outcome, "ids"> => {
  const { content, calls } = read(TOOL_FORMS[family].make(TOOLS), chunks);
  return { content, calls };
};

for (const family of TOOL_FAMILIES) {
  const { calls, before, almost, pieces } = SAMPLES[family];

  test(`${family}: two calls in its own form, with text before them and after`, () => {
    const { content, calls: found } = said(family, [`${before}${calls}`]);
    assert.equal(content, before);
    assert.deepEqual(
      found.map((call) => [call.name, JSON.parse(call.arguments)]),
      [
        ["get_weather", SAID],
        ["now", {}],
      ],
    );
    assert.deepEqual(said(family, [`${before}${calls}\n`]).calls, found);
  });

  test(`${family}: what is no call is content as it was written`, () => {
    for (const text of ["plain", "a < b [c] {d}", ...almost])
      assert.deepEqual(said(family, [text]), { content: text, calls: [] }, text);
  });

  test(`${family}: the same at every cut of two calls`, () => {
    const text = before + calls;
    const whole = said(family, [text]);
    assert.deepEqual(said(family, text.split("")), whole);
    for (let at = 1; at < text.length; at++)
      assert.deepEqual(said(family, [text.slice(0, at), text.slice(at)]), whole, `cut at ${at}`);
  });

  test(`${family}: any text, cut anywhere, is read the same, and none makes it throw`, () => {
    const piece = fc.oneof(
      fc.constantFrom(...pieces, "<", ">", "\n", '"', "\\", "{", "}", "[", "]", " ", "text", "😀"),
      fc.constant(calls),
      fc.string({ unit: "binary", maxLength: 6 }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 9 }), fc.array(fc.nat(), { maxLength: 12 }), (parts, places) => {
        const text = parts.join("");
        assert.deepEqual(said(family, cut(text, places)), said(family, [text]));
      }),
      { numRuns: 500 },
    );
  });

  test(`${family}: a call that is cut off anywhere keeps what had come of it`, () => {
    const text = before + calls;
    for (let at = 0; at <= text.length; at++) {
      const { calls: found } = said(family, [text.slice(0, at)]);
      for (const call of found) assert.ok(call.name === "get_weather" || call.name === "now", call.name);
      if (found.length === 2) assert.deepEqual(JSON.parse(found[0]?.arguments ?? ""), SAID);
    }
  });

  test(`${family}: work grows as the text does, in pieces and at once`, () => {
    const units = [...pieces, ...almost, calls, " ", "\n", '"', "\\", "[[{{", "((", "<", "a"];
    const starts = ["", ...pieces.slice(0, 3), calls.slice(0, calls.length / 4)];
    for (const unit of units)
      for (const start of starts) {
        const work = (length: number): number => {
          const text = start + unit.repeat(Math.ceil(length / unit.length));
          const chunks = inPieces(text);
          return workOf(() => {
            read(TOOL_FORMS[family].make(TOOLS), chunks);
            read(TOOL_FORMS[family].make(TOOLS), [text]);
          });
        };
        const [once, twice] = [work(1500), work(3000)];
        assert.ok(twice < 2.5 * once + 4000, `${start} + ${unit}…: ${once}, ${twice}`);
      }
  });
}

test("a template tells how its model writes calls", () => {
  const told: readonly (readonly [string, ToolFamily | undefined])[] = [
    ["<tool_call>\n{'name': …", "hermes"],
    ["<tool_call>\n<function=example>", "qwen3_coder"],
    ["<tool_call>{name}<arg_key>", "glm45"],
    ['{"name": function name, "parameters": dictionary of argument name and its value}', "llama3_json"],
    ["[TOOL_CALLS]", "mistral"],
    ["<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json", "deepseek_v3"],
    ["<｜tool▁call▁begin｜>f<｜tool▁sep｜>", "deepseek_v31"],
    ["<|tool_call|>", "granite"],
    ["<|tool_calls_section_begin|>", "kimi_k2"],
    ["<|channel|>commentary", "openai"],
    ["<|python_start|>", "llama4_pythonic"],
    ["{{ messages }}", undefined],
  ];
  for (const [template, family] of told) assert.equal(toolFamilyIn(template), family, template);
});
