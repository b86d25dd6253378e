import assert from "node:assert/strict";
import { describe, it, test } from "node:test";
import fc from "fast-check";
import type { StructuredOutput } from "#core/structured.ts";
import { HERMES_CALLS } from "#prompt/tools/hermes.ts";
import { accepts, randomOf, sample } from "../../../test/fixtures/grammar-walk.ts";
import { buildGrammar, type Expr, GrammarError, literal, repeat, rule, sequence, utf8Ranges } from "./builder.ts";
import { compileStructured } from "./compile.ts";

const grammarOf = (wanted: StructuredOutput) => compileStructured(wanted).grammar;
const regex = (pattern: string) => grammarOf({ kind: "regex", pattern });
const ebnf = (source: string) => grammarOf({ kind: "grammar", source });

function refused(wanted: StructuredOutput, message: RegExp): void {
  assert.throws(
    () => compileStructured(wanted),
    (error) => error instanceof GrammarError && message.test(error.message),
    `${JSON.stringify(wanted)} is refused with ${message}`,
  );
}

describe("builder", () => {
  it("splits ranges of code points into bytes, as UTF-8 has them", () => {
    const points = fc.integer({ min: 0, max: 0x10_ffff });
    fc.assert(
      fc.property(points, points, points, (a, b, probe) => {
        if (probe >= 0xd800 && probe <= 0xdfff) return;
        const [low, high] = a < b ? [a, b] : [b, a];
        const bytes = Buffer.from(String.fromCodePoint(probe));
        const matched = utf8Ranges(low, high).filter(
          (run) =>
            run.length === bytes.length &&
            run.every(([from, to], at) => (bytes[at] as number) >= from && (bytes[at] as number) <= to),
        );
        assert.equal(matched.length, probe >= low && probe <= high ? 1 : 0);
      }),
      { numRuns: 2000 },
    );
  });

  it("refuses left recursion, unknown rules and grammars without measure", () => {
    const build = (rules: Record<string, Expr>) => buildGrammar(new Map(Object.entries(rules)), "root");
    assert.throws(() => build({ root: sequence(rule("root"), literal("a")) }), /left recursion/);
    assert.throws(
      () => build({ root: sequence(rule("e"), rule("root")), e: repeat(literal("a"), 0) }),
      /left recursion/,
    );
    assert.throws(() => build({ root: rule("none") }), /no rule none/);
    assert.throws(() => build({ root: repeat(repeat(literal("abc"), 900), 900) }), /too large/);
    assert.ok(accepts(build({ root: sequence(literal("("), repeat(rule("root"), 0), literal(")")) }), "(()(()))"));
  });

  it("refuses what costs much and says little: repetitions of nothing", () => {
    const root = repeat(repeat(repeat(sequence(), 1000), 1000), 1000);
    assert.throws(() => buildGrammar(new Map([["root", root]]), "root"), /repeats too much/);
  });

  it("finds what may read nothing through chains of rules, in either order", () => {
    const chain = Array.from({ length: 5000 }, (_, i) => [`r${i}`, rule(`r${i + 1}`)] as const);
    for (const rules of [chain, chain.toReversed()]) {
      const all = new Map<string, Expr>([
        ["root", sequence(rule("r0"), literal("x"))],
        ...rules,
        ["r5000", repeat(literal("a"), 0)],
      ]);
      assert.ok(accepts(buildGrammar(all, "root"), "aax"));
      all.set("r5000", sequence(repeat(literal("a"), 0), rule("root")));
      assert.throws(() => buildGrammar(all, "root"), /left recursion/);
    }
  });
});

test("a regular expression that is nested without measure is refused, not a crash", () => {
  for (const depth of [200, 1500, 4000])
    refused(
      { kind: "regex", pattern: `${"(".repeat(depth)}a${"*)".repeat(depth)}`.slice(0, 8192) },
      /nested|cannot be read/,
    );
});

describe("regular expressions", () => {
  const patterns = [
    "a|bc*",
    "[a-c]{2,3}x?",
    "(foo|ba(r|z))+",
    "\\d{3}-\\w+",
    "[^a-y\\s]+",
    "é+[à-ü]",
    ".{0,4}",
    "(?:ab)*c",
    "\\u{1f600}?!",
  ];
  const texts = [
    "a",
    "b",
    "bcc",
    "aax",
    "abcx",
    "foo",
    "foobaz",
    "123-ab_9",
    "z",
    "zz!",
    "éü",
    "",
    "abcd",
    "ababc",
    "c",
    "\u{1f600}!",
    "!",
    "\n",
    "éé",
  ];

  it("lets through what JavaScript's own engine matches as a whole", () => {
    for (const pattern of patterns) {
      const own = new RegExp(`^(?:${pattern})$`, "u");
      for (const text of texts)
        assert.equal(accepts(regex(pattern), text), own.test(text), `${pattern} on ${JSON.stringify(text)}`);
      const random = randomOf(pattern.length);
      for (let i = 0; i < 30; i++) {
        const made = sample(regex(pattern), random);
        if (made !== undefined) assert.match(made, own);
      }
    }
  });

  it("refuses what is no regular language, and what is too much", () => {
    for (const [pattern, message] of [
      ["(a)\\1", /not supported/],
      ["(?=a)b", /look-ahead/],
      ["(?<!a)b", /look-behind/],
      ["a\\b", /word border/],
      ["a^b", /\^ that is not at the start/],
      ["(", /cannot be read/],
      ["a{5000}", /beyond 1000/],
      ["(((a{1000}){1000}){1000})", /too large/],
      ["\\p{L}", /not supported/],
    ] as const)
      refused({ kind: "regex", pattern }, message);
  });
});

describe("grammars of clients", () => {
  it("reads GBNF: texts, sets, groups, counts, comments, recursion", () => {
    const arithmetic = ebnf(`
      # sums of numbers
      root ::= term (("+" | "-") term)*
      term ::= number | "(" root ")"
      number ::= [0-9]{1,3} ("." [0-9]+)?`);
    for (const text of ["1", "12+3", "(1-2)+3.5", "((7))"]) assert.ok(accepts(arithmetic, text), text);
    for (const text of ["", "1+", "1234", "(1", "1.", "a"]) assert.ok(!accepts(arithmetic, text), text);
    const odd = ebnf('root ::= [^"\\\\\\n]+ "\\x41\\u00e9\\"" .?');
    assert.ok(accepts(odd, 'xAé"?'));
    assert.ok(!accepts(odd, '"Aé"'));
  });

  it("says what is wrong, and where", () => {
    for (const [source, message] of [
      ["", /no rule named root/],
      ["root ::= ", /./],
      ['root ::= "a', /missing/],
      ["root ::= (a", /\) is missing/],
      ['root ::= "a"\nroot ::= "b"', /twice \(line 2\)/],
      ["root ::= other", /no rule other/],
      ["root ::= root", /left recursion/],
      ["root ::= [z-a]", /ends before/],
      ['root ::= "a"{9999}', /beyond 2000/],
      ["start: value", /Lark/],
      [`root ::= ${"(".repeat(100)}`, /nested/],
    ] as const) {
      if (source === "root ::= ") assert.ok(accepts(ebnf(source), ""));
      else refused({ kind: "grammar", source }, message);
    }
  });
});

test("choice lets through its options and nothing else", () => {
  const grammar = grammarOf({ kind: "choice", options: ["yes", "yesterday", "é"] });
  for (const text of ["yes", "yesterday", "é"]) assert.ok(accepts(grammar, text));
  for (const text of ["", "ye", "yest", "no"]) assert.ok(!accepts(grammar, text));
});

test("text with calls: any text, and what begins like a call is one", () => {
  const tools = [
    { name: "add", parameters: { type: "object", properties: { a: { type: "integer" } }, required: ["a"] } },
  ];
  const grammar = grammarOf({ kind: "text_with_calls", tools, form: HERMES_CALLS });
  const call = '<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>';
  for (const text of [
    "",
    "Hello <b>!",
    "<",
    "<tool",
    "<tool_<tool_cal",
    "<<tool_cal>",
    call,
    `a ${call} b`,
    `${call}\n${call}`,
    `<${call}`,
    "é<",
  ])
    assert.ok(accepts(grammar, text), text);
  for (const text of [
    "<tool_call>",
    "a<tool_call>x",
    call.replace("add", "sub"),
    call.replace("7", "x"),
    `<<tool_call>`,
    `${call}<tool_call>`,
  ])
    assert.ok(!accepts(grammar, text), text);
});

test("tool calls: names of the tools with their arguments, one or many", () => {
  const tools = [
    { name: "add", parameters: { type: "object", properties: { a: { type: "integer" } }, required: ["a"] } },
    { name: "now", parameters: undefined },
  ];
  const one = grammarOf({ kind: "tool_calls", tools, many: false, form: HERMES_CALLS });
  const many = grammarOf({ kind: "tool_calls", tools, many: true, form: HERMES_CALLS });
  const call = '<tool_call>\n{"name": "add", "arguments": {"a":7}}\n</tool_call>';
  const other = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>';
  for (const grammar of [one, many]) assert.ok(accepts(grammar, call) && accepts(grammar, other));
  assert.ok(accepts(many, `${call}\n${other}`) && !accepts(one, `${call}\n${other}`));
  for (const text of ["", "hello", call.replace("add", "sub"), call.replace("7", '"7"'), other.replace("{}}", "7}")])
    assert.ok(!accepts(many, text), text);
});
