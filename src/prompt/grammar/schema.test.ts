/**
 * JSON schemas: what a grammar lets through is valid, by a validator that is not ours (ajv).
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import type { Grammar } from "#core/grammar.ts";
import { accepts, randomOf, sample } from "../../../test/fixtures/grammar-walk.ts";
import { GrammarError } from "./builder.ts";
import { compileStructured } from "./compile.ts";

const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: false, logger: false });
const grammarOf = (schema: unknown): Grammar => compileStructured({ kind: "json_schema", schema }).grammar;

/** Random outputs of the grammar; each is JSON and valid. Returns how many walks came to an end. */
function checkOutputs(schema: object | boolean, count: number, seed = 1): number {
  const grammar = grammarOf(schema);
  const validate = ajv.compile(schema);
  const random = randomOf(seed);
  let made = 0;
  for (let i = 0; i < count; i++) {
    const text = sample(grammar, random);
    if (text === undefined) continue;
    made++;
    assert.ok(
      validate(JSON.parse(text)),
      `${text} under ${JSON.stringify(schema)}: ${ajv.errorsText(validate.errors)}`,
    );
  }
  return made;
}

const CASES: readonly {
  readonly schema: object | boolean;
  readonly yes: readonly string[];
  readonly no: readonly string[];
}[] = [
  {
    schema: {},
    yes: ["1", '"a\\n"', "[]", '{"a": [1, {"b": null}]}', "-0.5e+10", "true"],
    no: ["", "01", "[1,]", "{a: 1}", "'a'", '"\n"', "nul"],
  },
  {
    schema: {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "string" }, c: { type: "boolean" } },
      required: ["b"],
    },
    yes: ['{"b": "x"}', '{"a":1,"b":"x","c":true}', '{\n  "a": 1,\n  "b": "x"\n}', '{"b":"", "c":false}'],
    no: [
      "{}",
      '{"a":1}',
      '{"b":"x","a":1}',
      '{"b":1}',
      '{"b":"x","d":1}',
      '{"b":"x",}',
      '{"a":1 "b":"x"}',
      '{"a":1.5,"b":""}',
    ],
  },
  {
    schema: { type: "object", properties: { ab: { type: "integer" } }, additionalProperties: { type: "boolean" } },
    yes: ["{}", '{"ab":1}', '{"ab":1,"a":true}', '{"abc":true,"":false}', '{"x":true}'],
    no: ['{"ab":true}', '{"ab":1,"ab":true}', '{"x":1}', '{"\\u0061b":true}'],
  },
  {
    schema: { type: "array", items: { type: "integer" }, minItems: 2, maxItems: 3 },
    yes: ["[1,2]", "[ 1, 2, 3 ]"],
    no: ["[]", "[1]", "[1,2,3,4]", '["1",2]'],
  },
  {
    schema: { type: "array", prefixItems: [{ type: "string" }, { type: "integer" }], items: false },
    yes: ["[]", '["a"]', '["a",1]'],
    no: ['["a",1,2]', "[1]"],
  },
  { schema: { enum: ["a", 1, null, { x: [1] }] }, yes: ['"a"', "1", "null", '{"x":[1]}'], no: ['"b"', "2", ""] },
  { schema: { type: "string", enum: ["a", 1] }, yes: ['"a"'], no: ["1"] },
  { schema: { const: { a: 1 } }, yes: ['{"a":1}'], no: ["{}"] },
  { schema: { type: "string", minLength: 2, maxLength: 3 }, yes: ['"ab"', '"éé\\n"'], no: ['"a"', '"abcd"'] },
  { schema: { type: "string", pattern: "^[a-c]+$" }, yes: ['"abc"'], no: ['""', '"abd"'] },
  { schema: { type: "string", pattern: "b" }, yes: ['"abc"', '"\\"b"'], no: ['"ac"', '"ac'] },
  { schema: { type: "string", pattern: '^a"\\n$' }, yes: ['"a\\"\\n"'], no: ['"a"\\n"'] },
  {
    schema: { type: "string", format: "date-time" },
    yes: ['"2026-02-03T04:05:06Z"'],
    no: ['"2026-13-03T04:05:06Z"', '"now"'],
  },
  {
    schema: { type: "integer", minimum: -5, maximum: 120 },
    yes: ["-5", "0", "99", "120"],
    no: ["-6", "121", "007", "1.0", "-0"],
  },
  { schema: { type: "integer", exclusiveMinimum: 9, exclusiveMaximum: 1000 }, yes: ["10", "999"], no: ["9", "1000"] },
  { schema: { type: "number", minimum: 0, maximum: 1 }, yes: ["0", "1", "0.25", "0.999"], no: ["-0.1", "1.5", "2"] },
  { schema: { type: "number", exclusiveMinimum: -2 }, yes: ["-1.5", "-1", "3.25"], no: ["-2", "-2.5"] },
  { schema: { type: ["string", "null"] }, yes: ['"a"', "null"], no: ["1"] },
  {
    schema: { anyOf: [{ type: "integer" }, { type: "array", items: { type: "null" } }] },
    yes: ["1", "[null]"],
    no: ['"a"', "[1]"],
  },
  {
    schema: {
      oneOf: [
        { type: "object", properties: { kind: { const: "a" }, x: { type: "integer" } }, required: ["kind", "x"] },
        { type: "object", properties: { kind: { const: "b" } }, required: ["kind"] },
      ],
    },
    yes: ['{"kind":"a","x":1}', '{"kind":"b"}'],
    no: ['{"kind":"a"}', '{"kind":"c"}'],
  },
  {
    schema: {
      allOf: [
        { type: "object", properties: { a: { type: "integer" } } },
        { properties: { a: { minimum: 3 } }, required: ["a"] },
      ],
    },
    yes: ['{"a":3}'],
    no: ["{}", '{"a":2}'],
  },
  {
    schema: {
      $ref: "#/$defs/node",
      $defs: {
        node: {
          type: "object",
          properties: { value: { type: "integer" }, next: { $ref: "#/$defs/node" } },
          required: ["value"],
        },
      },
    },
    yes: ['{"value":1}', '{"value":1,"next":{"value":2,"next":{"value":3}}}'],
    no: ['{"next":{"value":1}}', '{"value":1,"next":{}}'],
  },
  {
    schema: { type: "object", properties: { 'a"b': { type: "null" } }, required: ['a"b'] },
    yes: ['{"a\\"b":null}'],
    no: ["{}"],
  },
];

for (const { schema, yes, no } of CASES) {
  test(JSON.stringify(schema).slice(0, 100), () => {
    const grammar = grammarOf(schema);
    const validate = ajv.compile(schema);
    for (const text of yes) {
      assert.ok(accepts(grammar, text), `${text} is let through`);
      assert.ok(validate(JSON.parse(text)), `${text} is valid`);
    }
    for (const text of no) assert.ok(!accepts(grammar, text), `${text} is not let through`);
    assert.ok(checkOutputs(schema, 40) > 5, "walks come to an end");
  });
}

test("keywords that are not supported are refused by name, not ignored", () => {
  for (const [schema, message] of [
    [{ not: { type: "string" } }, /keyword not /],
    [{ type: "array", uniqueItems: true }, /uniqueItems/],
    [{ type: "object", patternProperties: { a: {} } }, /patternProperties/],
    [{ type: "number", multipleOf: 2 }, /multipleOf/],
    [{ if: {} }, /keyword if/],
    [{ type: "array", contains: {} }, /contains/],
    [{ type: "object", minProperties: 1 }, /minProperties/],
    [{ oneOf: [{ type: "integer" }, { type: "number" }] }, /oneOf whose options may overlap/],
    [{ $ref: "https://example.com/schema" }, /\$ref has to be a pointer/],
    [{ $ref: "#/$defs/none" }, /leads nowhere/],
    [{ $ref: "#" }, /left recursion/],
    [{ type: "strin" }, /type strin/],
    [{ type: "string", pattern: "(?=a)" }, /look-ahead/],
    [{ type: "string", pattern: "a", minLength: 3 }, /together/],
    [{ type: "string", format: "uri-template" }, /format uri-template/],
    [{ format: "regex" }, /format regex/],
    [{ type: "integer", minimum: 5, maximum: 4 }, /no integer/],
    [{ type: "string", minLength: 5, maxLength: 4 }, /less than minLength/],
    [{ enum: [] }, /enum is a list/],
    [{ properties: { a: 5 } }, /a schema is an object/],
    ["text", /a schema is an object/],
  ] as const)
    assert.throws(
      () => grammarOf(schema),
      (error) => error instanceof GrammarError && message.test(error.message),
      `${JSON.stringify(schema)}: ${message}`,
    );
});

test("compact JSON has no line breaks between its parts", () => {
  const schema = { type: "object", properties: { a: { type: "array", items: { type: "integer" } } } };
  for (const wanted of [{ kind: "json_schema", schema }, { kind: "json_object" }] as const) {
    const [usual, compact] = [wanted, { ...wanted, compact: true } as const].map(
      (one) => compileStructured(one).grammar,
    );
    const broken = '{\n  "a": [\n    1\n  ]\n}';
    assert.ok(accepts(usual as Grammar, broken) && !accepts(compact as Grammar, broken));
    for (const text of ['{"a":[1]}', '{ "a": [1, 2] }']) assert.ok(accepts(compact as Grammar, text), text);
  }
});

test("schemas without measure are refused in time", () => {
  const deep = Array.from({ length: 200 }).reduce<object>((inner) => ({ type: "array", items: inner }), {});
  assert.throws(() => grammarOf(deep), /nested/);
  const wide = { anyOf: Array.from({ length: 6000 }, () => ({ type: "object", properties: {} })) };
  assert.throws(() => grammarOf(wide), /parts|large/);
  const doubling = Object.fromEntries(
    Array.from({ length: 40 }, (_, i) => [
      `a${i}`,
      { allOf: [{ $ref: `#/$defs/a${i + 1}` }, { $ref: `#/$defs/a${i + 1}`, title: `${i}` }] },
    ]),
  );
  const folded = grammarOf({ $ref: "#/$defs/a0", $defs: { ...doubling, a40: { type: "null" } } });
  assert.ok(accepts(folded, "null"), "what is the same is not written twice");
});

test("made schemas: every output is valid", () => {
  const { schema } = fc.letrec<{ schema: object }>((tie) => ({
    schema: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      fc.constantFrom<object>(
        { type: "integer" },
        { type: "string" },
        { type: "boolean" },
        { type: "number", minimum: -3, maximum: 250 },
        { type: "string", maxLength: 3 },
        { enum: ["x", 2, [null]] },
      ),
      fc.record({
        type: fc.constant("array"),
        items: tie("schema"),
        minItems: fc.nat(2),
        maxItems: fc.integer({ min: 2, max: 4 }),
      }),
      fc
        .record({
          properties: fc.dictionary(fc.string({ maxLength: 4 }), tie("schema"), { maxKeys: 4 }),
          additionalProperties: fc.constantFrom<unknown>(undefined, false, { type: "null" }),
          all: fc.boolean(),
        })
        .map(({ properties, additionalProperties, all }) => ({
          type: "object",
          properties: { ...properties },
          ...(additionalProperties === undefined ? {} : { additionalProperties }),
          required: all ? Object.keys(properties) : [],
        })),
      fc.record({ anyOf: fc.array(tie("schema"), { minLength: 1, maxLength: 3 }) }),
    ),
  }));
  let made = 0;
  fc.assert(
    fc.property(schema, fc.nat(1000), (one, seed) => {
      made += checkOutputs(one, 4, seed);
    }),
    { numRuns: 250 },
  );
  assert.ok(made > 500, `${made} walks came to an end`);
});

test("the JSON Schema test suite: what is invalid never gets through, what gets through is valid", async (t) => {
  const { corpus } = await import(new URL("../../../test/corpora.ts", import.meta.url).href);
  const folder = corpus(t, "json-schema-suite");
  if (folder === undefined) return;
  const files = join(folder, "tests/draft2020-12");
  const seen = { supported: 0, refused: 0, invalid: 0, valid: 0, accepted: 0 };
  for (const file of readdirSync(files).filter((name) => name.endsWith(".json"))) {
    for (const { schema, tests } of JSON.parse(readFileSync(join(files, file), "utf8")) as Suite[]) {
      let grammar: Grammar;
      try {
        grammar = grammarOf(schema);
      } catch (error) {
        assert.ok(error instanceof GrammarError, `${file}: ${error}`);
        seen.refused++;
        continue;
      }
      seen.supported++;
      for (const { data, valid, description } of tests) {
        const through = accepts(grammar, JSON.stringify(data));
        seen[valid ? "valid" : "invalid"]++;
        if (valid && through) seen.accepted++;
        assert.ok(
          valid || !through,
          `${file}: ${description}: ${JSON.stringify(data)} under ${JSON.stringify(schema)}`,
        );
      }
    }
  }
  t.diagnostic(JSON.stringify(seen));
  assert.ok(seen.supported > 150 && seen.invalid > 200, JSON.stringify(seen));
});

interface Suite {
  readonly schema: object | boolean;
  readonly tests: readonly { readonly data: unknown; readonly valid: boolean; readonly description: string }[];
}
