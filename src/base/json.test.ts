import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { corpus } from "#test/corpora.ts";
import { jsonFault } from "#test/fixtures/json-fault.ts";
import { JsonError, parseJson } from "./json.ts";

function fault(input: string | Uint8Array, limits = {}): JsonError {
  return jsonFault(input, () => parseJson(input, limits));
}

/** y_ files that we refuse on purpose, each with the reason. */
const STRICTER = new Map([
  ["y_object_duplicated_key.json", "the key stands twice in one object"],
  ["y_object_duplicated_key_and_value.json", "the key stands twice in one object"],
]);

/** i_ files (a reader may take or refuse them) that we take; every other i_ file is refused. */
const TAKEN = new Set([
  "i_number_double_huge_neg_exp.json",
  "i_number_real_underflow.json",
  "i_number_too_big_neg_int.json",
  "i_number_too_big_pos_int.json",
  "i_number_very_big_negative_int.json",
]);

test("JSONTestSuite: n_ refused, y_ taken but for duplicate keys, i_ as listed", (t) => {
  const folder = corpus(t, "json-test-suite");
  if (folder === undefined) return;
  const files = readdirSync(join(folder, "test_parsing"));
  assert.ok(files.length >= 300, "the corpus is there in full");
  for (const file of files) {
    const bytes: Buffer = readFileSync(join(folder, "test_parsing", file));
    const refusal = STRICTER.get(file);
    if (refusal !== undefined) assert.equal(fault(bytes).message, refusal, file);
    else if (file.startsWith("y_") || TAKEN.has(file))
      assert.deepEqual(parseJson(bytes), JSON.parse(bytes.toString()), file);
    else fault(bytes);
  }
});

test("agrees with JSON.parse on every value that JSON.stringify prints", () => {
  const noProto = fc.jsonValue({ maxDepth: 6 }).filter((value) => !JSON.stringify(value).includes("__proto__"));
  fc.assert(
    fc.property(noProto, fc.constantFrom(0, 2), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      const expected = JSON.parse(text);
      assert.deepEqual(parseJson(text), expected);
      assert.deepEqual(parseJson(Buffer.from(text)), expected);
    }),
  );
});

test("on any text: either what JSON.parse gives, or a JsonError", () => {
  const piece = fc.constantFrom(
    ...'[]{}:,"\\ \n\t0123456789.eE+-tfn',
    "true",
    "false",
    "null",
    "\\u00e9",
    "\\ud83d",
    '"a"',
    "é",
    "\0",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      const text = pieces.join("");
      let ours: unknown;
      try {
        ours = parseJson(text);
      } catch (error) {
        assert.ok(error instanceof JsonError);
        return;
      }
      assert.deepEqual(ours, JSON.parse(text));
    }),
    { numRuns: 3000 },
  );
});

test("integers keep their sign and their digits", () => {
  for (const text of [
    "0",
    "-0",
    "7",
    "-7",
    "123456789012345",
    "1234567890123456",
    "-999999999999999",
    "9007199254740993",
  ]) {
    assert.ok(Object.is(parseJson(text), JSON.parse(text)), text);
  }
  for (const text of ["00", "01", "-01", "-", "+1", "1.", ".5", "1e", "0x1", "1_000", "NaN", "Infinity", "-Infinity"])
    fault(text);
});

test("numbers out of a double's range are refused, not made infinite", () => {
  for (const text of ["1e999", "-1e999", `1${"0".repeat(400)}`])
    assert.equal(fault(text).message, "the number is out of range");
});

test("duplicate keys are refused, also when an escape spells the second one", () => {
  assert.equal(fault('{"a":1,"a":1}').path, "a");
  assert.equal(fault('{"a":1,"\\u0061":2}').message, "the key stands twice in one object");
  assert.equal(fault('{"x":[{"b":1},{"b":1,"b":2}]}').path, "x.1.b");
});

test("__proto__ is refused; other names of Object's prototype are ordinary keys", () => {
  assert.equal(fault('{"__proto__":{}}').message, "the key __proto__ is not allowed");
  assert.equal(fault('{"\\u005f_proto__":{}}').message, "the key __proto__ is not allowed");
  const value = parseJson('{"constructor":1,"toString":2,"hasOwnProperty":3}') as Record<string, unknown>;
  assert.deepEqual(Object.entries(value), [
    ["constructor", 1],
    ["toString", 2],
    ["hasOwnProperty", 3],
  ]);
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
});

test("lone surrogates are refused in every spelling, pairs are taken", () => {
  for (const text of ['"\\ud800"', '"\\udc00\\ud800"', '"\\ud800x"', '{"\\udfff":1}', '"\ud800"']) {
    assert.match(fault(text).message, /lone surrogate/);
  }
  assert.equal(parseJson('"\\ud83d\\ude00"'), "😀");
});

test("bytes that are not UTF-8, and a byte order mark, are refused", () => {
  for (const bytes of [
    [0x22, 0xff, 0x22],
    [0x22, 0xc0, 0xaf, 0x22],
    [0x22, 0xed, 0xa0, 0x80, 0x22],
    [0xef, 0xbb, 0xbf, 0x31],
  ]) {
    fault(Uint8Array.from(bytes));
  }
});

test("a fault in a string says which, and where", () => {
  assert.equal(fault('["ok\\n", "a\\x"]').message, "an unknown escape stands in a string");
  assert.equal(fault('"a\\u12g4"').message, "an unknown escape stands in a string");
  assert.equal(fault('"a\\n\u0001"').message, "a control character stands in a string");
  assert.equal(fault('"a\n"').offset, 2);
  for (const text of ['"', '"\\', '"a\\"', '"\\u12']) assert.match(fault(text).message, /does not end|unknown escape/);
});

test("depth and values are bounded while reading", () => {
  assert.deepEqual(parseJson("[".repeat(64) + "]".repeat(64), {}), JSON.parse("[".repeat(64) + "]".repeat(64)));
  assert.match(fault("[".repeat(65) + "]".repeat(65)).message, /deeper than 64/);
  assert.match(fault("[".repeat(1_000_000)).message, /deeper than 64/);
  assert.match(fault('{"a":'.repeat(1_000_000)).message, /deeper than 64/);
  assert.match(fault("[1,2,3]", { maxValues: 10 }).message, /too many values/);
  assert.deepEqual(parseJson("[1,2]", { maxValues: 10 }), [1, 2]);
});

/** Quadratic work on these sizes would take hours: that the test ends is the assertion. */
test("hostile shapes of megabytes come to an end", { timeout: 60_000 }, () => {
  const shapes: string[] = [
    `"${"\\".repeat(8_000_000)}"`,
    `"${"\\u0061".repeat(1_300_000)}`,
    `[${'"\\n",'.repeat(500_000)}1]`,
    `["${'\\u0000","\\n'.repeat(500_000)}`,
    "1".repeat(8_000_000),
    `0.${"1".repeat(8_000_000)}e`,
    `[${"[],".repeat(400_000)}1]`,
    `{${Array.from({ length: 400_000 }, (_, i) => `"${i * 7919}":1`).join()}}`,
    " ".repeat(8_000_000),
  ];
  const verdicts = shapes.map((text) => {
    try {
      parseJson(text);
      return "taken";
    } catch (error) {
      assert.ok(error instanceof JsonError);
      return error.message;
    }
  });
  assert.deepEqual(verdicts, [
    "taken",
    "a string does not end",
    "taken",
    "a string does not end",
    "the number is out of range",
    "there is text after the value",
    "taken",
    "taken",
    "the text ends where a value should stand",
  ]);
});
