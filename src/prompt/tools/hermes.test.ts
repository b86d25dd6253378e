import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { hermesParser } from "./hermes.ts";
import type { ToolPart } from "./parser.ts";

interface Outcome {
  readonly content: string;
  readonly calls: readonly { readonly name: string; readonly arguments: string }[];
}

function run(chunks: readonly string[]): Outcome {
  const parser = hermesParser();
  const parts: ToolPart[] = [...chunks.flatMap((chunk) => parser.push(chunk)), ...parser.end()];
  let content = "";
  const calls: { name: string; arguments: string }[] = [];
  for (const part of parts) {
    if (part.type === "text") content += part.text;
    else if (part.name !== undefined) {
      assert.equal(part.index, calls.length, "calls come in order");
      assert.match(part.id ?? "", /^chatcmpl-tool-[0-9a-f]{32}$/);
      calls.push({ name: part.name, arguments: part.arguments });
    } else {
      const call = calls[part.index];
      assert.ok(call, "fragments follow their call");
      call.arguments += part.arguments;
    }
  }
  return { content, calls };
}

const call = (name: string, args: string): string =>
  `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": ${args}}\n</tool_call>`;

test("calls are read with their arguments' own text, text before them is content, text after is dropped", () => {
  const two = `Let me see.${call("get_weather", '{"city": "Lisbon", "n": [1, {"a": "}]"}]}')}\n${call("stop", "{}")} trailing`;
  assert.deepEqual(run([two]), {
    content: "Let me see.",
    calls: [
      { name: "get_weather", arguments: '{"city": "Lisbon", "n": [1, {"a": "}]"}]}' },
      { name: "stop", arguments: "{}" },
    ],
  });
});

test("keys may come in either order, and a call without arguments has none", () => {
  assert.deepEqual(run(['<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>']).calls, [
    { name: "f", arguments: '{"a": 1}' },
  ]);
  assert.deepEqual(run(['<tool_call>{"name": "f"}</tool_call>']).calls, [{ name: "f", arguments: "{}" }]);
  assert.deepEqual(run(['<tool_call>{"name": "f\\u00e9\\"", "parameters": {}}']).calls, [
    { name: 'fé"', arguments: "{}" },
  ]);
});

test("what is no call is content as it was written", () => {
  for (const text of [
    "plain",
    "<tool_call>not json</tool_call>",
    '<tool_call>{"nome": 1}</tool_call> x',
    "a < b <tool",
    '<tool_call>{"name": 3, "arguments": {}}',
    "<tool_call>",
  ]) {
    assert.deepEqual(run([text]), { content: text, calls: [] }, text);
  }
});

test("a last call without its end counts as far as it came", () => {
  assert.deepEqual(run(['<tool_call>{"name": "f", "arguments": {"a": "b']).calls, [
    { name: "f", arguments: '{"a": "b' },
  ]);
});

test("the name and the arguments leave as soon as they are known", () => {
  const parser = hermesParser();
  assert.deepEqual(parser.push('hi<tool_call>{"name": "f", "argum'), [{ type: "text", text: "hi" }]);
  const [head] = parser.push('ents": {"a"');
  assert.equal(head?.type === "call" && head.name, "f");
  assert.equal(head?.type === "call" && head.arguments, '{"a"');
  assert.deepEqual(parser.push(": 1}"), [{ type: "call", index: 0, arguments: ": 1}" }]);
});

test("the outcome does not depend on how the text was cut", () => {
  const piece = fc.constantFrom(
    "<tool_call>",
    "</tool_call>",
    call("f", '{"a": 1}'),
    call("g", '{"b": "x\\"}"}'),
    '{"name":',
    '"f"',
    ', "arguments": {',
    "}",
    "]",
    "<",
    "\n",
    "text",
    '"',
    "\\",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 10 }), (pieces, places) => {
      const text = pieces.join("");
      const at = [...new Set(places.map((place) => place % (text.length + 1)))].sort((a, b) => a - b);
      const chunks = [...at, text.length].map((end, i) => text.slice(i === 0 ? 0 : at[i - 1], end));
      assert.deepEqual(run(chunks), run([text]));
    }),
    { numRuns: 1500 },
  );
});

test("adversarial output of any length is read to its end", () => {
  for (const unit of ["<tool_call>", '<tool_call>{"name": "f", "arguments": {', "[[[[{{{{", '"\\"\\"', "<tool_cal"]) {
    const text = unit.repeat(Math.ceil(200_000 / unit.length));
    const { content, calls } = run(text.match(/.{1,4}/gs) ?? []);
    assert.equal(content.length + calls.reduce((sum, call) => sum + call.arguments.length, 0) > 0, true);
  }
});
