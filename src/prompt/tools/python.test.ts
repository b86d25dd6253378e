import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { keywordsToJson, pythonToJson } from "./_python.ts";
import { typedToJson } from "./_typed-value.ts";

const value = (text: string): unknown => JSON.parse(pythonToJson(text) ?? '"refused"');

test("literals become the JSON that they mean", () => {
  const told: readonly (readonly [string, unknown])[] = [
    ["True", true],
    ["False", false],
    ["None", null],
    ["-1", -1],
    ["+1_000", 1000],
    ["1.50", 1.5],
    ["-.5e2", -50],
    ["0x1F", 31],
    ["-0b11", -3],
    ["007", 7],
    ["'it\\'s \"so\"'", 'it\'s "so"'],
    ['"a\\n\\t\\x41\\u00e9\\U0001F600\\101\\q"', "a\n\tAé😀A\\q"],
    ["'\\ud83d\\ude00'", "😀"],
    ["'''a\n'b' \"\"c'''", "a\n'b' \"\"c"],
    ['""', ""],
    ["r'\\d+\\''", "\\d+\\'"],
    ["'a' \"b\"", "ab"],
    ["[1, [2, (3,)], (4), (), {'a': {1: None, True: 'x'}},]", [1, [2, [3]], 4, [], { a: { 1: null, true: "x" } }]],
    ["'<|python_end|> [TOOL_CALLS]'", "<|python_end|> [TOOL_CALLS]"],
  ];
  for (const [text, json] of told) assert.deepEqual(value(text), json, text);
  assert.equal(pythonToJson("12345678901234567890"), "12345678901234567890");
});

test("keyword arguments become an object", () => {
  assert.equal(keywordsToJson("a=1, b='x', c=[True],"), '{"a": 1, "b": "x", "c": [true]}');
  assert.equal(keywordsToJson(" \n "), "{}");
  for (const text of ["1", "a", "a=", "=1", "a=1 b=2", "*a", "**{'a': 1}", "a=1, 2", ",", "a b=1"])
    assert.equal(keywordsToJson(text), undefined, text);
});

test("what is no literal is refused, and nothing is run", () => {
  for (const text of [
    "__import__('os').system('id')", "open('x')", "a", "a.b", "1 + 1", "[x for x in y]", "lambda: 1", "f'{1}'", "b'x'", "{1, 2}",
    "{}.get", "(1", "'a", "'''a''", "[1 2]", "1e999", "nan", "1j", "--1", "", "'\\", "{[1]: 2}", "{'a' 1}", "1,2", "`x`",
  ]) assert.equal(pythonToJson(text), undefined, text); // biome-ignore format: one glance
  assert.equal(pythonToJson("[".repeat(100_000)), undefined);
  assert.equal(pythonToJson(`${"[".repeat(67)}${"]".repeat(67)}`), undefined);
  assert.notEqual(pythonToJson(`${"[".repeat(60)}${"]".repeat(60)}`), undefined);
});

test("any text is JSON or refused, and JSON is what it was", () => {
  const piece = fc.constantFrom(
    "'",
    '"',
    "\\",
    "'''",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    ",",
    ":",
    "1",
    ".",
    "e",
    "True",
    "r",
  );
  fc.assert(
    fc.property(fc.array(fc.oneof(piece, fc.string({ unit: "binary" })), { maxLength: 12 }), (parts) => {
      const json = pythonToJson(parts.join(""));
      if (json !== undefined) JSON.parse(json);
      const keywords = keywordsToJson(`a=${parts.join("")}`);
      if (keywords !== undefined) assert.ok("a" in (JSON.parse(keywords) as object));
    }),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), (json) => {
      assert.deepEqual(value(JSON.stringify(json)), JSON.parse(JSON.stringify(json)));
    }),
  );
});

test("a long row of digits that is no number is looked at once", () => {
  // With two ways to read each digit this would take minutes.
  const text = `${"1".repeat(300_000)}x`;
  assert.equal(typedToJson(text, { name: "number", nullable: false }), JSON.stringify(text));
  assert.equal(pythonToJson(text), undefined);
});
