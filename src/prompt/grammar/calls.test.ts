import assert from "node:assert/strict";
import { test } from "node:test";
import { TOOL_FAMILIES } from "#core/parser-families.ts";
import { TOOL_FORMS } from "#prompt/tools/families.ts";
import { accepts, randomOf, sample } from "../../../test/fixtures/grammar-walk.ts";
import { compileStructured } from "./compile.ts";

const tools = [
  { name: "add", parameters: { type: "object", properties: { a: { type: "string" } }, required: ["a"] } },
  { name: "now", parameters: { type: "object", properties: {}, additionalProperties: false } },
];
const HELD = TOOL_FAMILIES.flatMap((family) => {
  const { calls, make } = TOOL_FORMS[family];
  return calls === undefined ? [] : [{ family, form: calls, make }];
});

/** What the family's own parser makes of it: content, and names with arguments. */
function parsed(make: (typeof HELD)[number]["make"], text: string): { content: string; calls: [string, string][] } {
  const parser = make([]);
  const calls: [string, string][] = [];
  let content = "";
  for (const part of [...parser.push(text), ...parser.end()]) {
    if (part.type === "text") content += part.text;
    else if (part.name !== undefined) calls.push([part.name, part.arguments]);
    else (calls[part.index] as [string, string])[1] += part.arguments;
  }
  return { content, calls };
}

test("these families' calls can be held", () => {
  assert.deepEqual(
    HELD.map(({ family }) => family),
    ["hermes", "llama3_json", "deepseek_v3", "deepseek_v31", "granite", "kimi_k2"],
  );
});

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
        most = Math.max(most, calls.length);
        for (const [name, args] of calls)
          assert.deepEqual(Object.keys(JSON.parse(args) as object), name === "add" ? ["a"] : [], text);
      }
    }
    assert.ok(most > 1, "some samples have several calls");
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
