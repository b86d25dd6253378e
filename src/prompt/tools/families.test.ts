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

test("what spells a mark in a string of the arguments is part of the string", () => {
  for (const family of TOOL_FAMILIES) {
    // The end of a tagged value cannot stand in one: nothing there quotes it.
    const marks = [...TOOL_FORMS[family].marks, "]", "}", ")"].filter((mark) => mark !== "</arg_value>");
    const city = `a ${marks.join(" ")} b`;
    const text = SAMPLES[family].calls
      .replaceAll(JSON.stringify(SAID.city), JSON.stringify(city))
      .replaceAll(`'São "Paulo" \\\\ 😀 {['`, JSON.stringify(city))
      .replaceAll(SAID.city, city);
    const { content, calls } = said(family, [text]);
    assert.deepEqual(
      [content, ...calls.map((call) => [call.name, JSON.parse(call.arguments)])],
      ["", ["get_weather", { ...SAID, city }], ["now", {}]],
      family,
    );
    assert.deepEqual(said(family, text.split("")), { content, calls });
  }
});

test("values in tags become what the function's schema says they are, or stay text", () => {
  const value = (key: string, text: string): unknown => {
    const call = `<function=get_weather>\n<parameter=${key}>\n${text}\n</parameter>\n</function>`;
    return (JSON.parse(said("qwen3_coder", [call]).calls[0]?.arguments ?? "") as Record<string, unknown>)[key];
  };
  const told: readonly (readonly [string, string, unknown])[] = [
    ["city", "null", "null"],
    ["city", "\n 1 \n", "\n 1 \n"],
    ["city", "a </function> b <parameter=x> c", "a </function> b <parameter=x> c"],
    ["note", "None", null],
    ["note", "x", "x"],
    ["days", "+12", 12],
    ["days", "null", null],
    ["days", "three", "three"],
    ["limit", "3.0", 3],
    ["limit", "1e3", 1000],
    ["limit", "1e999", "1e999"],
    ["metric", "True", true],
    ["metric", "yes", false],
    ["where", "{'a': None}", { a: null }],
    ["where", '{"a": [1', '{"a": [1'],
    ["tags", "(1, 2)", [1, 2]],
    ["unknown", "12", "12"],
  ];
  for (const [key, text, json] of told) assert.deepEqual(value(key, text), json, `${key} ${text}`);
  assert.equal(
    said("qwen3_coder", ["<function=get_weather><parameter=days>12345678901234567890</parameter></function>"]).calls[0]
      ?.arguments,
    '{"days": 12345678901234567890}',
  );
});

test("closing tags may be missing", () => {
  const cut = "<function=get_weather>\n<parameter=city>\nRome\n<parameter=days>\n3\n</function>";
  assert.deepEqual(said("qwen3_coder", [cut]).calls, [
    { name: "get_weather", arguments: '{"city": "Rome", "days": 3}' },
  ]);
  const end = "<tool_call>\n<function=get_weather>\n<parameter=city>\nRo";
  assert.deepEqual(said("qwen3_coder", [end]).calls, [{ name: "get_weather", arguments: '{"city": "Ro"}' }]);
});

test("Mistral's older list, its call ids, and ids that its templates take", () => {
  const list = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": "]"}}, {"name": "g", "arguments": {}}] and so on';
  const outcome = read(TOOL_FORMS.mistral.make([]), [list]);
  assert.deepEqual(outcome.calls, [
    { name: "f", arguments: '{"a": "]"}' },
    { name: "g", arguments: "{}" },
  ]);
  for (const id of outcome.ids) assert.match(id, /^[A-Za-z0-9]{9}$/);
  for (const text of ['[TOOL_CALLS]f{"a": 1}', '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}'])
    assert.deepEqual(said("mistral", [text]).calls, [{ name: "f", arguments: '{"a": 1}' }], text);
  assert.deepEqual(said("mistral", ['[TOOL_CALLS]{"name": "f", "arguments": {"a": 1}}']).calls, [
    { name: "f", arguments: '{"a": 1}' },
  ]);
});

test("Kimi's ids are the model's, Qwen3-Coder's and the others' are made", () => {
  const ids = (family: ToolFamily): readonly string[] =>
    read(TOOL_FORMS[family].make(TOOLS), [SAMPLES[family].calls]).ids;
  assert.deepEqual(ids("kimi_k2"), ["functions.get_weather:0", "functions.now:1"]);
  for (const id of ids("qwen3_coder")) assert.match(id, /^call_[0-9a-f]{24}$/);
  for (const id of ids("openai")) assert.match(id, /^chatcmpl-tool-[0-9a-f]{32}$/);
});

test("gpt-oss: preambles and the final channel are content, the analysis and empty calls are nothing", () => {
  const text =
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>Look.<|end|>" +
    "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>\n {}<|call|>" +
    "<|start|>assistant<|channel|>commentary to=functions.g<|message|><|call|>" +
    "<|start|>assistant<|channel|>commentary to=functions.g<|message|>not json<|call|>";
  assert.deepEqual(said("openai", [text]), { content: "Look.not json", calls: [{ name: "f", arguments: "{}" }] });
});

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
