import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ToolDefinition } from "#core/chat.ts";
import { TOOL_FAMILIES } from "#core/parser-families.ts";
import type { CallableTool, CallForm } from "#core/structured.ts";
import { TOOL_FORMS } from "#prompt/tools/families.ts";
import { accepts, randomOf, sample } from "../../../test/fixtures/grammar-walk.ts";
import { canWrite } from "./arguments.ts";
import { compileStructured } from "./compile.ts";

const tools = [
  { name: "add", parameters: { type: "object", properties: { a: { type: "integer" } }, required: ["a"] } },
  { name: "now", parameters: { type: "object", properties: {}, additionalProperties: false } },
];
const HELD = TOOL_FAMILIES.flatMap((family) => {
  const { calls, older, make } = TOOL_FORMS[family];
  const forms = [{ family: family as string, form: calls, make }];
  return older === undefined ? forms : [...forms, { family: `${family}, older`, form: older.calls, make }];
});
const definitions = (all: readonly CallableTool[]): ToolDefinition[] =>
  all.map(({ name, parameters }) => ({ name, parameters, raw: {} }));

/** What the family's own parser makes of it, in pieces of that many characters: content, and names with arguments. */
function parsed(
  make: (typeof HELD)[number]["make"],
  text: string,
  of: readonly CallableTool[] = tools,
  piece = text.length,
): { content: string; calls: [string, string][] } {
  const parser = make(definitions(of));
  const calls: [string, string][] = [];
  let content = "";
  const pieces: string[] = [];
  for (let at = 0; at < text.length; at += piece) pieces.push(text.slice(at, at + piece));
  for (const part of [...pieces.flatMap((one) => parser.push(one)), ...parser.end()]) {
    if (part.type === "text") content += part.text;
    else if (part.name !== undefined) calls.push([part.name, part.arguments]);
    else (calls[part.index] as [string, string])[1] += part.arguments;
  }
  return { content, calls };
}

for (const { family, form, make } of HELD) {
  test(`${family}: what a grammar of calls lets through, the family's parser reads whole`, () => {
    let most = 0;
    for (const many of [false, true]) {
      const { grammar } = compileStructured({ kind: "tool_calls", tools, many, form });
      for (let seed = 0; seed < 60; seed++) {
        const text = sample(grammar, randomOf(seed), 900);
        if (text === undefined) continue;
        const { content, calls } = parsed(make, text);
        assert.equal(content, "", text);
        assert.ok(calls.length >= 1 && (many || calls.length === 1), text);
        assert.deepEqual(parsed(make, text, tools, 3), { content, calls }, "in pieces");
        most = Math.max(most, calls.length);
        for (const [name, args] of calls)
          assert.deepEqual(Object.keys(JSON.parse(args) as object), name === "add" ? ["a"] : [], text);
      }
    }
    assert.equal(most > 1, form.single !== true, "some samples have several calls");
  });

  test(`${family}: held calls stand among text where a mark tells them, and only whole`, () => {
    if (form.mark === "") {
      assert.throws(() => compileStructured({ kind: "text_with_calls", tools, form }), /cannot be told from text/);
      return;
    }
    const { grammar } = compileStructured({ kind: "text_with_calls", tools, form });
    const one = compileStructured({ kind: "tool_calls", tools, many: false, form }).grammar;
    const call = sample(one, randomOf(1), 900) ?? sample(one, randomOf(2), 900) ?? "";
    assert.notEqual(call, "");
    for (const text of ["", "plain {}", `a ${call}`, `a ${call} b`, form.mark.slice(0, -1)])
      assert.ok(accepts(grammar, text), text);
    for (const text of [form.mark, `${form.mark}x`, call.slice(0, -1), call.replace(/add|now/, "sub")])
      assert.ok(!accepts(grammar, text), text);
  });
}

const RICH: CallableTool = {
  name: "rich",
  parameters: {
    type: "object",
    $defs: { point: { type: "object", properties: { x: { type: "number" } }, required: ["x"] } },
    properties: {
      text: { type: "string", description: "any <text>" },
      kind: { type: "string", enum: ["red one", "blue"] },
      days: { type: "integer", minimum: 1, maximum: 9 },
      on: { type: "boolean" },
      note: { type: ["null", "integer"] },
      at: { type: "array", items: { $ref: "#/$defs/point" }, maxItems: 2 },
      more: { type: "object", properties: { tag: { type: "string" } }, additionalProperties: false },
    },
    required: ["kind", "on"],
  },
};
const PLAIN_RICH: CallableTool = withText(undefined);
const PYTHON = TOOL_FORMS.pythonic;
const QWEN = TOOL_FORMS.qwen3_coder;
const GLM = TOOL_FORMS.glm45;

/** RICH, and what its text is, which no random walk would ever end: absent. */
function withText(text: object | undefined): CallableTool {
  const { text: _, ...others } = (RICH.parameters as { properties: Record<string, object> }).properties;
  const description = { text: { type: "string" } };
  const properties = text === undefined ? others : { ...description, ...others, text };
  return { name: "rich", parameters: { ...(RICH.parameters as object), properties } };
}

interface Said {
  readonly text?: string;
  readonly kind: string;
  readonly days?: number;
  readonly on: boolean;
  readonly note?: number | null;
  readonly at?: readonly { readonly x: number }[];
  readonly more?: { readonly tag?: string };
}

const holds = (said: Said): boolean =>
  ["red one", "blue"].includes(said.kind) &&
  typeof said.on === "boolean" &&
  (said.days === undefined || (Number.isInteger(said.days) && said.days >= 1 && said.days <= 9)) &&
  (said.note === undefined || said.note === null || Number.isInteger(said.note)) &&
  (said.at === undefined || (said.at.length <= 2 && said.at.every(({ x }) => typeof x === "number"))) &&
  (said.more?.tag === undefined || typeof said.more.tag === "string");

for (const [family, { calls: form, make }] of Object.entries({ pythonic: PYTHON, qwen3_coder: QWEN, glm45: GLM }))
  test(`${family}: whatever is let through is valid by the function's schema, and every value can be said`, () => {
    const tool = family === "pythonic" ? RICH : PLAIN_RICH;
    assert.ok(canWrite(form.arguments, tool));
    const { grammar } = compileStructured({ kind: "tool_calls", tools: [tool], many: false, form });
    const seen = new Set<string>();
    for (let seed = 0; seed < 300; seed++) {
      const text = sample(grammar, randomOf(seed), 1500);
      if (text === undefined) continue;
      for (const piece of [1, text.length]) {
        const { content, calls } = parsed(make, text, [tool], piece);
        assert.deepEqual([content, calls.length, calls[0]?.[0]], ["", 1, "rich"], text);
        const said = JSON.parse(calls[0]?.[1] ?? "") as Said;
        assert.ok(holds(said), text);
        for (const key of Object.keys(said)) seen.add(key);
      }
    }
    for (const key of Object.keys((tool.parameters as { properties: object }).properties))
      assert.ok(seen.has(key), key);
  });

const tagged = (form: CallForm, values: readonly (readonly [string, string])[]): string => {
  const { arguments: style, begin, mark, middle, close, end } = form;
  assert.ok(style?.kind === "tagged");
  const body = values.map(([key, value]) => `${style.open}${key}${style.middle}${value}${style.close}${style.after}`);
  return `${begin}${mark}rich${middle}${body.join("")}${close}${end}`;
};

for (const [family, { calls: form, make }] of Object.entries({ qwen3_coder: QWEN, glm45: GLM }))
  test(`${family}: a text that is let through comes out as it went in, and only tags are kept from it`, () => {
    const tool = { name: "rich", parameters: { type: "object", properties: { text: { type: "string" } } } };
    const { grammar } = compileStructured({ kind: "tool_calls", tools: [tool], many: false, form });
    const pieces = [
      "a",
      " ",
      "\n",
      "<",
      "</",
      "é",
      "😀",
      '"',
      "null",
      "</parameter>",
      "<parameter=",
      "</function>",
      "</tool_call>",
      "</arg_value>",
      "\\",
    ];
    let passed = 0;
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 6 }), (parts) => {
        const value = parts.join("");
        const text = tagged(form, [["text", value]]);
        const lets = accepts(grammar, text);
        if (!/<\/?(?:parameter|function|arg_value)/.test(value)) assert.ok(lets, JSON.stringify(value));
        if (!lets) return;
        passed++;
        for (const piece of [1, text.length])
          assert.deepEqual(parsed(make, text, [tool], piece), {
            content: "",
            calls: [["rich", JSON.stringify({ text: value }).replace(":", ": ")]],
          });
      }),
      { numRuns: 2000 },
    );
    assert.ok(passed > 500);
  });

test("what a schema does not allow is not let through", () => {
  const python = compileStructured({ kind: "tool_calls", tools: [RICH], many: false, form: PYTHON.calls }).grammar;
  assert.ok(
    accepts(
      python,
      '[rich(text="it\'s \\"\\u00e9\\n", kind="blue", days=9, on=True, note=None, at=[{"x": -1.5}])]'.replace(
        "\\u00e9",
        "é",
      ),
    ),
  );
  assert.ok(accepts(python, '[rich(kind="red one", on=False)]'));
  for (const args of [
    'kind="green", on=True',
    'kind="blue"',
    'on=True, kind="blue"',
    'kind="blue", on=true',
    'kind="blue", on=True, x=1',
    'kind="blue", days=10, on=True',
    'kind=f("x"), on=True',
    'kind="blue", on=True, ',
  ])
    assert.ok(!accepts(python, `[rich(${args})]`), args);
  for (const { calls: form } of [QWEN, GLM]) {
    const { grammar } = compileStructured({ kind: "tool_calls", tools: [RICH], many: false, form });
    const lets = (...values: [string, string][]): boolean => accepts(grammar, tagged(form, values));
    assert.ok(
      lets(
        ["text", "x"],
        ["kind", "blue"],
        ["days", "3"],
        ["on", "true"],
        ["at", '[{"x": 1}]'],
        ["more", '{"tag": "\\u003cb>"}'],
      ),
    );
    assert.ok(!lets(["kind", "green"], ["on", "true"]));
    assert.ok(!lets(["kind", "blue"]));
    assert.ok(!lets(["kind", "blue"], ["days", "ten"], ["on", "true"]));
    assert.ok(!lets(["kind", "blue"], ["on", "true"], ["more", '{"tag": "<b>"}']));
    assert.ok(!lets(["kind", "blue"], ["on", "true"], ["other", "1"]));
  }
});

test("a function of which nothing is known may be called with anything", () => {
  const tool = { name: "rich", parameters: undefined };
  const python = compileStructured({ kind: "tool_calls", tools: [tool], many: false, form: PYTHON.calls }).grammar;
  for (const args of ["", "a=1", 'a=1, b={"x": [True, None]}']) assert.ok(accepts(python, `[rich(${args})]`), args);
  const { grammar } = compileStructured({ kind: "tool_calls", tools: [tool], many: false, form: QWEN.calls });
  assert.ok(accepts(grammar, tagged(QWEN.calls, [])) && accepts(grammar, tagged(QWEN.calls, [["a", "any\ntext"]])));
});

test("arguments that a form cannot write, and so is not used for", () => {
  const [python, tags] = [PYTHON.calls.arguments, QWEN.calls.arguments];
  const one = (schema: unknown, more: object = {}): CallableTool => ({
    name: "f",
    parameters: { type: "object", properties: { a: schema }, ...more },
  });
  const of = (tool: CallableTool): boolean[] => [
    canWrite(undefined, tool),
    canWrite(python, tool),
    canWrite(tags, tool),
  ];
  for (const tool of [
    one({ type: "string" }),
    one({ type: "number" }),
    one({ type: "array" }),
    { name: "f", parameters: undefined },
  ])
    assert.deepEqual(of(tool), [true, true, true], JSON.stringify(tool));
  for (const schema of [
    {},
    { type: "string", minLength: 2 },
    { type: "string", pattern: "^a" },
    { type: ["string", "null"] },
    { type: ["string", "integer"] },
    { anyOf: [{ type: "string" }, { type: "integer" }] },
    { type: "string", enum: ["a\nb"] },
    { type: "object", properties: { "<": {} } },
    { $ref: "#/$defs/x" },
  ])
    assert.deepEqual(of(one(schema)), [true, true, false], JSON.stringify(schema));
  for (const more of [
    { $defs: { x: { type: "string", pattern: "^a" } } },
    { definitions: { x: { type: "object", properties: { "</a>": {} } } } },
  ])
    assert.deepEqual(of(one({ type: "string" }, more)), [true, true, false], JSON.stringify(more));
  assert.deepEqual(of(one({ type: "array", items: { $ref: "#" } })), [true, false, false]);
  for (const more of [
    { additionalProperties: { type: "integer" } },
    { minProperties: 1 },
    { required: ["b"] },
    { allOf: [] },
    { $ref: "#" },
  ])
    assert.deepEqual(of(one({ type: "string" }, more)), [true, false, false], JSON.stringify(more));
  for (const key of ["a b", "é", ""])
    assert.deepEqual(
      of({ name: "f", parameters: { properties: { [key]: { type: "string" } } } }),
      [true, false, false],
      key,
    );
  assert.deepEqual(of({ name: "9f", parameters: {} }), [true, false, true]);
});

test("marks that are control tokens are written as those, and text that spells them is none", () => {
  const form = { ...TOOL_FORMS.mistral.calls, tokens: { "[TOOL_CALLS]": 5, "[ARGS]": 70_000 } };
  const { grammar } = compileStructured({ kind: "tool_calls", tools, many: true, form });
  const call = Buffer.concat([
    Buffer.of(0xff, 0, 0, 5),
    Buffer.from("add"),
    Buffer.of(0xff, 1, 0x11, 0x70),
    Buffer.from('{"a":1}'),
  ]);
  assert.ok(accepts(grammar, call));
  assert.ok(accepts(grammar, Buffer.concat([call, call])));
  assert.ok(!accepts(grammar, '[TOOL_CALLS]add[ARGS]{"a":1}'));
  assert.throws(() => compileStructured({ kind: "text_with_calls", tools, form }), /cannot be told from text/);
});
