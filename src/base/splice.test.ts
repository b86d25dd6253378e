import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { scanJson } from "./json-scan.ts";
import { cut, cutsOf, inserted, spliced } from "./splice.ts";

function edited(text: string, edits: Readonly<Record<string, string | undefined>>): string {
  const bytes = Buffer.from(text);
  return Buffer.concat(spliced(bytes, cutsOf(scanJson(bytes), new Map(Object.entries(edits))))).toString();
}

test("first, middle, last, all: the commas come out right", () => {
  const text = '{ "a" : 1 , "b":2,\n"c":3 }';
  assert.equal(edited(text, { a: undefined }), '{ "b":2,\n"c":3 }');
  assert.equal(edited(text, { b: undefined }), '{ "a" : 1,\n"c":3 }');
  assert.equal(edited(text, { c: undefined }), '{ "a" : 1 , "b":2 }');
  assert.equal(edited(text, { a: undefined, b: undefined }), '{ "c":3 }');
  assert.equal(edited(text, { b: undefined, c: undefined }), '{ "a" : 1 }');
  assert.equal(edited(text, { a: undefined, c: undefined }), '{ "b":2 }');
  assert.equal(edited(text, { a: undefined, b: undefined, c: undefined }), "{  }");
  assert.equal(edited(text, { x: undefined }), text);
});

test("set: in its place, or in front; an empty object takes it too", () => {
  assert.equal(edited('{"a":1,"\\u0062":[2]}', { b: '"x"' }), '{"a":1,"\\u0062":"x"}');
  assert.equal(edited('{"a":1}', { b: "2", c: "3" }), '{"b":2,"c":3,"a":1}');
  assert.equal(edited("{ }", { b: "2" }), '{"b":2 }');
  assert.equal(edited('{"a":1}', { a: undefined, b: "2" }), '{"b":2}');
});

/** What the scanner takes: one name is refused wherever it stands. */
const json = (maxDepth: number) =>
  fc.jsonValue({ maxDepth }).filter((value) => !JSON.stringify(value).includes('"__proto__"'));
const name = fc.constantFrom("a", "b", "c", "d", "model", 'q"\\', "é");
const object = fc.dictionary(name, json(2));
const edits = fc.dictionary(name, fc.option(json(1), { nil: undefined }));

test("equals: parse, edit, print", () => {
  fc.assert(
    fc.property(object, edits, fc.constantFrom(0, 1, "\t"), (value, changes, indent) => {
      const texts = Object.entries(changes).map(([key, entry]) => [
        key,
        entry === undefined ? undefined : JSON.stringify(entry),
      ]);
      const after: Record<string, unknown> = { ...value };
      for (const [key, entry] of Object.entries(changes)) {
        if (entry === undefined) delete after[key];
        else after[key] = entry;
      }
      const result = edited(JSON.stringify(value, null, indent), Object.fromEntries(texts));
      assert.deepEqual(JSON.parse(result), JSON.parse(JSON.stringify(after)));
    }),
    { numRuns: 2000 },
  );
});

test("inserted: as edits of what is not there, whatever the length", () => {
  for (const text of ["{}", "{ }", '{"a":1}', ' \n {"é":"ü"} ', `{"long":"${"x".repeat(70_000)}"}`]) {
    const bytes = Buffer.from(text);
    const added = Buffer.concat(inserted(bytes, scanJson(bytes), '"b":"é","c":3')).toString();
    assert.equal(added, edited(text, { b: '"é"', c: "3" }));
    assert.equal(Buffer.concat(inserted(bytes, scanJson(bytes), "")).toString(), text);
  }
});

test("what stays is not copied; cuts that overlap are refused", () => {
  const bytes = Buffer.from('{"model":"x","messages":"long"}');
  const pieces = spliced(bytes, [cut(9, 12, '"y"')]);
  assert.deepEqual(pieces.map(String), ['{"model":', '"y"', ',"messages":"long"}']);
  assert.equal(pieces[2]?.buffer, bytes.buffer);
  assert.throws(() => spliced(bytes, [cut(1, 5, ""), cut(4, 6, "")]), RangeError);
  assert.throws(() => spliced(bytes, [cut(1, 500, "")]), RangeError);
  assert.deepEqual(spliced(bytes, []).map(String), [bytes.toString()]);
});
