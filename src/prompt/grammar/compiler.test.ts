/**
 * The compiler's bounds: nobody waits for a large grammar but who asked for it, and whatever a client sends is a grammar
 * or a refusal.
 */
import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import fc from "fast-check";
import { Fault } from "#core/fault.ts";
import type { StructuredOutput } from "#core/structured.ts";
import { accepts } from "../../../test/fixtures/grammar-walk.ts";
import { GrammarError } from "./builder.ts";
import { grammarOf } from "./compile.ts";
import { type CompilerBounds, GrammarCompiler } from "./compiler.ts";

const compilers: GrammarCompiler[] = [];
after(() => Promise.all(compilers.map((compiler) => compiler.close())));

function compilerOf(bounds: Partial<CompilerBounds> = {}): GrammarCompiler {
  const compiler = new GrammarCompiler(bounds);
  compilers.push(compiler);
  return compiler;
}

const regex = (pattern: string): StructuredOutput => ({ kind: "regex", pattern });
/** Little to write, much to build. */
const LARGE = regex("([a-z]{1000}){20}");

async function refusal(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof GrammarError || error instanceof Fault, String(error));
  return error instanceof Fault ? error.kind : error.message;
}

describe("GrammarCompiler", () => {
  it("compiles in the thread what is large, while the event loop goes on; what comes back is the same", async () => {
    const compiler = compilerOf();
    let [turns, done] = [0, false];
    const turn = (): void => {
      turns++;
      if (!done) setImmediate(turn);
    };
    turn();
    const [one, again] = await Promise.all([compiler.compile(LARGE), compiler.compile({ ...LARGE })]);
    done = true;
    assert.ok(turns > 10, `${turns} turns`);
    assert.deepEqual(one.grammar, grammarOf(LARGE));
    assert.equal(again, one, "the same source is compiled once");
    assert.equal(await compiler.compile(LARGE), one, "and remembered");
    assert.deepEqual({ ...compiler.counters(), bytes: 0 }, { kept: 1, bytes: 0, underWay: 0 });
  });

  it("compiles at once what is small, and says what is wrong from either place", async () => {
    const compiler = compilerOf();
    const { grammar } = await compiler.compile(regex("ab+"));
    assert.ok(accepts(grammar, "abb") && !accepts(grammar, "a"));
    assert.match(await refusal(compiler.compile(regex("(a)\\1"))), /not supported/);
    const schema = { description: "x".repeat(5000), type: "array", uniqueItems: true };
    assert.match(await refusal(compiler.compile({ kind: "json_schema", schema })), /uniqueItems/);
    assert.match(await refusal(compiler.compile(regex("(((a{1000}){1000}){1000})"))), /too large/);
  });

  it("ends a thread that takes too long, and the next source gets another", async () => {
    const hasty = compilerOf({ timeMs: 1 });
    assert.match(await refusal(hasty.compile(LARGE)), /too much time/);
    const compiler = compilerOf({ sourceAtOnce: 0 });
    const quick = regex("[a-z]{3}");
    // The time of merging grows with the square of the parts.
    const allOf = Array.from({ length: 4900 }, (_, i) => ({
      properties: { [`p${i}`]: { type: "integer" } },
      additionalProperties: { type: "integer" },
    }));
    const slow = compiler.compile({ kind: "json_schema", schema: { allOf } });
    const next = compiler.compile(quick);
    assert.match(await refusal(slow), /too much time|parts/);
    assert.deepEqual((await next).grammar, grammarOf(quick));
  });

  it("lets few wait", async () => {
    const compiler = compilerOf({ waiting: 2 });
    const waiting = [1, 2].map((n) => compiler.compile(regex(`([a-z]{1000}){2${n}}`)));
    assert.equal(await refusal(compiler.compile(LARGE)), "overloaded");
    await Promise.all(waiting);
    await compiler.compile(LARGE);
  });

  it("remembers no more than it may, the last ones", async () => {
    const few = compilerOf({ kept: 3 });
    const made = [];
    for (let n = 1; n < 20; n++) made.push(await few.compile(regex(`a{${n}}`)));
    assert.equal(few.counters().kept, 3);
    assert.equal(await few.compile(regex("a{19}")), made.at(-1));
    assert.notEqual(await few.compile(regex("a{1}")), made[0]);
    const small = compilerOf({ keptBytes: 100_000 });
    for (let n = 1; n < 40; n++) await small.compile(regex(`b{${n * 10}}`));
    const { kept, bytes } = small.counters();
    assert.ok(kept > 1 && bytes > 50_000 && bytes <= 100_000, `${kept} grammars, ${bytes} bytes`);
  });
});

describe("grammarOf", () => {
  it("refuses what is not formed like a schema, and what never ends", () => {
    for (const [schema, message] of [
      [{ $ref: "#/%" }, /leads nowhere/],
      [{ allOf: [null] }, /a schema is an object/],
      [{ allOf: [5, { type: "string" }] }, /a schema is an object/],
      [{ allOf: [{ required: 5 }, { required: ["a"] }] }, /required .* list of names/],
      [{ allOf: [{ properties: { a: null } }, { properties: { a: {} } }] }, /a schema is an object/],
      [{ properties: null }, /properties .* object/],
      [{ properties: "ab" }, /properties .* object/],
      [{ required: [{}] }, /required .* list of names/],
      [{ type: "string", format: 5 }, /format .* name/],
      [{ type: "integer", minimum: "1" }, /minimum .* number/],
      [{ allOf: [{ $ref: "#/$defs/a" }], $defs: { a: { $ref: "#/$defs/a" } } }, /parts/],
      [{ anyOf: [{ $ref: "#" }] }, /parts|nested/],
      [{ properties: { ["a".repeat(20_000)]: {} }, additionalProperties: {} }, /nested too deep/],
    ] as const)
      assert.throws(
        () => grammarOf({ kind: "json_schema", schema }),
        (error) => error instanceof GrammarError && message.test(error.message),
        JSON.stringify(schema).slice(0, 100),
      );
    const chain = Array.from({ length: 8000 }, (_, i) => `r${i} ::= ${i === 7999 ? '"a"' : `r${i + 1}`}`);
    assert.ok(grammarOf({ kind: "grammar", source: `root ::= r0\n${chain.join("\n")}` }).ends.length > 8000);
    const endless = `root ::= "a"${"?".repeat(50_000)}`;
    assert.throws(() => grammarOf({ kind: "grammar", source: endless }), GrammarError);
    for (const keyword of ["constructor", "toString", "hasOwnProperty"])
      assert.throws(() => grammarOf({ kind: "json_schema", schema: { type: "object", [keyword]: 1 } }), GrammarError);
    assert.throws(() => grammarOf(regex("([acegikmoqsuwy]{1000}){50}")), /edges/);
  });

  it("makes a grammar or a refusal of any JSON that stands where a schema should", () => {
    const keyword = fc.constantFrom(
      ...["type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems"],
      ...["minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "enum", "const"],
      ...["anyOf", "oneOf", "allOf", "$ref", "$defs", "title", "uniqueItems", "not"],
    );
    const { schema } = fc.letrec<{ schema: unknown }>((tie) => ({
      schema: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom<unknown>(true, false, null, 0, -1, 2.5, 1e300, "", "string", "object", "#", "#/$defs/a", "[a"),
        fc.array(tie("schema"), { maxLength: 3 }),
        fc.dictionary(fc.oneof(keyword, keyword, fc.constantFrom("a", "b", "__proto__", "")), tie("schema"), {
          maxKeys: 4,
        }),
      ),
    }));
    let made = 0;
    fc.assert(
      fc.property(schema, (one) => {
        try {
          grammarOf({ kind: "json_schema", schema: one });
          made++;
        } catch (error) {
          if (!(error instanceof GrammarError)) throw error;
        }
      }),
      { numRuns: 6000 },
    );
    assert.ok(made > 300, `${made} were grammars`);
  });
});
