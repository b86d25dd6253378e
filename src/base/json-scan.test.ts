import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { corpus } from "#test/corpora.ts";
import { jsonFault } from "#test/fixtures/json-fault.ts";
import { JsonError, parseJson } from "./json.ts";
import { WatchedKeys } from "./json-keys.ts";
import { type JsonMember, type JsonScan, scanJson } from "./json-scan.ts";

const WATCHED = new WatchedKeys(["uuid", "image_url", "file"]);
const UUID = WATCHED.bit("uuid");
const FILE = WATCHED.bit("file");

function scan(text: string | Uint8Array, limits = {}): JsonScan {
  return scanJson(typeof text === "string" ? Buffer.from(text) : text, WATCHED, limits);
}

function fault(text: string | Uint8Array, limits = {}): JsonError {
  return jsonFault(text, () => scan(text, limits));
}

function verdict(read: () => unknown): "taken" | "refused" {
  try {
    read();
    return "taken";
  } catch (error) {
    assert.ok(error instanceof JsonError, String(error));
    return "refused";
  }
}

function member(text: string, name: string): JsonMember {
  const found = scan(text).members.find((entry) => entry.name === name);
  assert.ok(found, `no member ${name}`);
  return found;
}

test("JSONTestSuite: taken and refused as parseJson takes and refuses them", (t) => {
  const folder = corpus(t, "json-test-suite");
  if (folder === undefined) return;
  const files = readdirSync(join(folder, "test_parsing"));
  assert.ok(files.length >= 300, "the corpus is there in full");
  for (const file of files) {
    const bytes: Buffer = readFileSync(join(folder, "test_parsing", file));
    const strict = verdict(() => parseJson(bytes));
    for (const vectors of [true, false])
      assert.equal(
        verdict(() => scan(bytes, { vectors })),
        strict,
        file,
      );
  }
});

/** JSON text of a value, with white space and escapes wherever they may stand. */
function spelled(value: unknown, next: () => number): string {
  const gap = (): string => ["", "", "", " ", "\n", "\t\r ", "  "][next() % 7] ?? "";
  const character = (c: string): string => {
    const units = [...Array(c.length).keys()]
      .map((i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, "0")}`)
      .join("");
    return next() % 4 === 0
      ? next() % 2 === 0
        ? units
        : units.toUpperCase().replaceAll("\\U", "\\u")
      : JSON.stringify(c).slice(1, -1);
  };
  const string = (text: string): string => `"${[...text].map(character).join("")}"`;
  const list = (entries: readonly string[]): string => entries.map((entry) => gap() + entry + gap()).join(",");
  if (typeof value === "string") return string(value);
  if (Array.isArray(value)) return `[${list(value.map((entry) => spelled(entry, next))) || gap()}]`;
  if (typeof value === "object" && value !== null)
    return `{${list(Object.entries(value).map(([name, entry]) => `${string(name)}${gap()}:${gap()}${spelled(entry, next)}`)) || gap()}}`;
  return JSON.stringify(value);
}

const text = fc.string({ unit: "binary", maxLength: 60 }).map((value) => value.toWellFormed());
const names = fc
  .oneof(fc.constantFrom("model", "uuid", "file", "messages", "é", "constructor"), text)
  .filter((name) => name !== "__proto__");
const { value: anyValue } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    text,
    fc.integer(),
    fc.double({ noDefaultInfinity: true, noNaN: true }),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 5 }),
    fc.dictionary(names, tie("value"), { maxKeys: 5 }),
  ),
}));
const objects = fc.dictionary(names, anyValue as fc.Arbitrary<unknown>, { maxKeys: 6 });
const dice = fc.array(fc.nat(1000), { minLength: 7, maxLength: 50 });

function roller(rolls: readonly number[]): () => number {
  let at = 0;
  return () => rolls[at++ % rolls.length] ?? 0;
}

function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

function sizeOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 1;
  return (
    1 +
    Object.values(value)
      .map(sizeOf)
      .reduce((sum, size) => sum + size, 0)
  );
}

function holds(value: unknown, name: string): boolean {
  if (typeof value !== "object" || value === null) return false;
  return (
    (!Array.isArray(value) && Object.hasOwn(value, name)) || Object.values(value).some((entry) => holds(entry, name))
  );
}

test("offsets give back exactly the members, however they are spelled", () => {
  fc.assert(
    fc.property(objects, dice, (value, rolls) => {
      const bytes = Buffer.from(` ${spelled(value, roller(rolls))}\n`);
      const { members, kind } = scan(bytes);
      assert.equal(kind, "object");
      assert.deepEqual(members.map(({ name }) => name).sort(), Object.keys(value).sort());
      for (const found of members) {
        const expected = value[found.name];
        const slice = bytes.toString("utf8", found.start, found.end);
        assert.equal(slice, slice.trim());
        assert.deepEqual(JSON.parse(slice), JSON.parse(JSON.stringify(expected)));
        const key = bytes.toString("utf8", found.keyStart, found.start).trim().replace(/\s*:$/, "");
        assert.equal(JSON.parse(key), found.name);
        assert.equal(found.depth, depthOf(expected));
        assert.equal(found.values, sizeOf(expected));
        assert.equal(found.count, typeof expected === "object" && expected !== null ? Object.keys(expected).length : 0);
        assert.equal((found.watched & UUID) !== 0, holds(expected, "uuid"));
        assert.equal((found.watched & FILE) !== 0, holds(expected, "file"));
      }
    }),
    { numRuns: 1500 },
  );
});

/** What no boundary depends on: see json-scan.ts. */
const UNSEEN = "the key stands twice in one object";

test("a body that was damaged is never taken where parseJson refuses it", () => {
  const byte = fc.constantFrom(...Buffer.from('{}[]:,"\\ \n0123456789.eE+-tfnu\u0000\u00ff'), 0xff, 0xc3, 0xed, 0xef);
  const edits = fc.array(fc.tuple(fc.nat(), byte, fc.constantFrom("set", "insert", "delete")), {
    minLength: 1,
    maxLength: 3,
  });
  let refused = 0;
  fc.assert(
    fc.property(objects, dice, edits, (value, rolls, changes) => {
      let bytes = [...Buffer.from(spelled(value, roller(rolls)))];
      for (const [where, what, how] of changes) {
        const at = where % (bytes.length + 1);
        bytes = [
          ...bytes.slice(0, at),
          ...(how === "delete" ? [] : [what]),
          ...bytes.slice(how === "insert" ? at : at + 1),
        ];
      }
      const damaged = Buffer.from(bytes);
      let reason = "";
      try {
        parseJson(damaged);
      } catch (error) {
        assert.ok(error instanceof JsonError);
        reason = error.message;
      }
      if (reason === "")
        assert.equal(
          verdict(() => scan(damaged)),
          "taken",
        );
      else if (reason === UNSEEN) verdict(() => scan(damaged));
      else {
        assert.equal(
          verdict(() => scan(damaged)),
          "refused",
          `${reason}: ${JSON.stringify(damaged.toString())}`,
        );
        refused++;
      }
    }),
    { numRuns: 4000 },
  );
  assert.ok(refused > 500);
});

test("a key that stands twice: refused on the first level, and where it is watched, in every spelling", () => {
  assert.equal(fault('{"model":"a","model":"b"}').path, "model");
  assert.equal(fault('{"model":"a","\\u006dodel":"b"}').message, "the key stands twice in one object");
  assert.equal(fault('{"m":[{"uuid":1,"x":{"uuid":2},"\\u0075uid":3}]}').message, "the key stands twice in one object");
  assert.equal(scan('{"m":[{"uuid":1},{"uuid":2}]}').members.length, 1);
  // No boundary and no policy depends on these.
  assert.equal(scan('{"m":{"a":1,"a":2}}').members.length, 1);
});

test("watched keys are known by any spelling, and only as keys", () => {
  assert.equal(member('{"m":[{"\\u0075\\u0075id":1}]}', "m").watched, UUID);
  assert.equal(member('{"m":["uuid","\\"uuid\\":1",{"uuids":1}]}', "m").watched, 0);
  assert.equal(member('{"uuid":{"a":1}}', "uuid").watched, 0);
  assert.equal(member('{"a":{"file":1},"m":[{"uuid":1}],"z":1}', "z").watched, 0);
});

test("counts: children, all values, levels, and the widest list of each level", () => {
  const found = member('{"x":1,"messages":[{"content":[1,2,3]},{"content":[{},{}],"y":[]}],"z":[[[]]]}', "messages");
  assert.deepEqual(
    { count: found.count, values: found.values, depth: found.depth, widest: found.widest, first: found.first },
    { count: 2, values: 11, depth: 4, widest: [2, 0, 3], first: "object" },
  );
  assert.equal(member('{"prompt":[1,2,3]}', "prompt").first, "number");
  assert.equal(member('{"prompt":[]}', "prompt").first, undefined);
  assert.deepEqual(member('{"a":[1,2,3],"b":{"c":[1]}}', "b").widest, [0, 1]);
});

test("an outermost list gives its elements", () => {
  const bytes = Buffer.from('[1, "a" ,{"b":2}]');
  assert.deepEqual(
    scanJson(bytes).members.map(({ start, end }) => bytes.toString("utf8", start, end)),
    ["1", '"a"', '{"b":2}'],
  );
  assert.deepEqual(scan("[]").members, []);
  assert.deepEqual(scan(" 7 "), { kind: "number", start: 1, end: 2, members: [] });
});

test("byte order marks, UTF-16, words that are no JSON, and bytes that are no UTF-8 are refused", () => {
  fault(Buffer.from("\ufeff{}"));
  fault(Buffer.from('{"a":1}', "utf16le"));
  for (const bad of [
    "NaN",
    "Infinity",
    "-Infinity",
    "[1,]",
    '{"a":1,}',
    "{,}",
    "[,1]",
    "'a'",
    "{a:1}",
    "01",
    "1.",
    "-",
    "+1",
    "0x1",
    "1e",
    "truE",
    "nul",
    "",
    " ",
    "1 2",
    "{} {}",
    "/**/1",
  ])
    fault(bad);
  for (const bytes of [
    [0x22, 0xff, 0x22],
    [0x22, 0xc0, 0xaf, 0x22],
    [0x22, 0xed, 0xa0, 0x80, 0x22],
  ])
    fault(Uint8Array.from(bytes));
});

test("strings: control characters, bad escapes and lone surrogates", () => {
  assert.equal(fault('{"a":"x\ny"}').message, "a control character stands in a string");
  assert.equal(fault(`{"\\u0061${"a".repeat(100)}\n":1}`).message, "a control character stands in a string");
  assert.equal(fault(`"${"a".repeat(100_000)}\n"`).message, "a control character stands in a string");
  assert.equal(fault('"\\x"').message, "an unknown escape stands in a string");
  assert.equal(fault('"\\u00g0"').message, "an unknown escape stands in a string");
  assert.equal(fault('"\\u00:0"').message, "an unknown escape stands in a string");
  for (const bad of [
    '"\\ud800"',
    '"\\udc00"',
    '"\\ud800\\u0041"',
    '"\\ud800x"',
    '{"\\udfff":1}',
    '"\\ud83d\\ud83d\\ude00"',
  ])
    assert.equal(fault(bad).message, "a string has a lone surrogate", bad);
  for (const bad of ['"', '"\\', '"a\\"', `"${"a".repeat(100)}`, `"${"a".repeat(100)}\\"`])
    assert.equal(fault(bad).message, "a string does not end", bad);
  for (const good of [
    '"\\ud83d\\ude00"',
    `"${"a".repeat(100)}\\""`,
    `"${'\\"'.repeat(100)}"`,
    `"${"a".repeat(30)}\\\\"`,
  ])
    assert.equal(scan(good).end, good.length);
});

test("numbers out of a double's range", () => {
  for (const bad of ["1e999", "-1e999", `1${"0".repeat(400)}`, `1${"0".repeat(400)}.5`])
    assert.equal(fault(bad).message, "the number is out of range");
  for (const good of ["1e-999", "123456789012345678901234567890", "-0", "0.1", "1E+2"])
    assert.equal(scan(good).kind, "number");
});

test("attacks: depth, keys, values, __proto__", () => {
  assert.match(fault("[".repeat(1_000_000)).message, /deeper than 64/);
  assert.match(fault('{"a":'.repeat(1_000_000)).message, /deeper than 64/);
  assert.equal(scan("[".repeat(64) + "]".repeat(64)).kind, "array");
  assert.equal(
    fault(`{${Array.from({ length: 1_000_000 }, (_, i) => `"${i}":1`).join()}}`).message,
    "there are more than 1024 members",
  );
  assert.equal(
    member(`{"a":{${Array.from({ length: 1_000_000 }, (_, i) => `"${i}":1`).join()}}}`, "a").count,
    1_000_000,
  );
  assert.equal(fault("[[1,2,3]]", { maxValues: 4 }).message, "the text holds too many values");
  assert.equal(fault('{"a":[{"\\u005f_proto__":1}]}').message, "the key __proto__ is not allowed");
  assert.equal(fault('{"__proto__":1}').message, "the key __proto__ is not allowed");
});

/** Quadratic work on these would take hours: that the test ends is the assertion. */
test("hostile shapes of megabytes come to an end", { timeout: 60_000 }, () => {
  const shapes = [
    `"${"\\".repeat(8_000_000)}"`,
    `"${'\\"'.repeat(4_000_000)}"`,
    `"${`${"a".repeat(30)}\\"`.repeat(250_000)}"`,
    `[${`"${"a".repeat(30)}",`.repeat(250_000)}1]`,
    `[${'"\\n",'.repeat(500_000)}1]`,
    `["${'\\u0000","\\n'.repeat(500_000)}`,
    "1".repeat(8_000_000),
    `[[${"[],".repeat(400_000)}1]]`,
    " ".repeat(8_000_000),
  ];
  const limits = { maxMembers: 1_000_000 };
  assert.deepEqual(
    shapes.map((shape) => verdict(() => scan(shape, limits))),
    ["taken", "taken", "taken", "taken", "taken", "refused", "refused", "taken", "refused"],
  );
});
