/**
 * Grammars that ask for too much while they run: each fails its own request, at whatever moment that shows, and the
 * engine with everybody else goes on (CVE-2026-105757).
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { Engine } from "#engine/engine.ts";
import { FakeKernel } from "#engine/fake.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import type { StepReport } from "#engine/report.ts";
import { GrammarError } from "#prompt/grammar/builder.ts";
import { compileStructured } from "#prompt/grammar/compile.ts";

const hasher = await createBlockHasher("sha256");
const LIMITS = {
  maxNumSeqs: 4,
  maxNumBatchedTokens: 32,
  contextLength: 256,
  schedulingPolicy: "fcfs",
  prefixCache: NO_PREFIX_CACHE,
} as const;
/** Thousands of places at once: too many to begin with, or too much work for a mask. */
const WIDE = "(0?){1000}(0?){1000}(0?){1000}";
const SLOW = "((0|1|.)*(2|3|.)*){600}";

function submit(engine: Engine, request: number, changes: Partial<SamplingParams>): void {
  const sampling = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true, maxTokens: 12, ...changes };
  engine.submit({ request, prompt: Int32Array.of(5, 9, request + 1), sampling, samples: 1, priority: 0 });
}

function drain(engine: Engine): StepReport[] {
  const reports: StepReport[] = [];
  for (let step = 0; step < 500; step++) {
    const report = engine.step();
    engine.checkIntegrity();
    if (report === undefined) return reports;
    reports.push(report);
  }
  throw new Error("the engine did not become idle");
}

const constraintOf = (pattern: string) => compileStructured({ kind: "regex", pattern });
const tokensOf = (reports: readonly StepReport[], request: number): number[] =>
  reports.flatMap(({ tokens }) => tokens.filter((one) => one.request === request).map(({ token }) => token));

for (const [when, pattern, changes] of [
  ["at its start", WIDE, {}],
  ["after some tokens", `[0-9]{4}${WIDE}`, {}],
  ["after some tokens, where cuts need a mask", `[0-9]{4}${SLOW}`, { temperature: 1, topK: 5, seed: 3 }],
  ["where the whole vocabulary is looked at", SLOW, { temperature: 1, topP: 0.9, seed: 1 }],
  ["behind the end of a thought", `[0-9]{4}${WIDE}`, { after: true }],
] as const) {
  test(`a grammar that is too much ${when} fails its request and nothing else`, () => {
    const engine = new Engine(new FakeKernel(), LIMITS, hasher);
    const { after, ...sampling } = { after: false, ...changes };
    const alone = new Engine(new FakeKernel(), LIMITS, hasher);
    submit(alone, 1, {});
    submit(alone, 2, {});
    const free = drain(alone);
    const expected = tokensOf(free, 1);
    const behind = after ? { after: tokensOf(free, 2).slice(1, 3) } : {};
    submit(engine, 1, {});
    submit(engine, 2, { ...sampling, constraint: { ...constraintOf(pattern), ...behind } });
    const reports = drain(engine);
    const failures = reports.flatMap((report) => report.failures);
    assert.deepEqual(
      failures.map(({ request, kind }) => [request, kind]),
      [[2, "invalid_request"]],
    );
    assert.match(failures[0]?.message ?? "", /^the grammar /);
    if (after) assert.deepEqual(tokensOf(reports, 2).slice(0, 3), tokensOf(free, 2).slice(0, 3));
    assert.deepEqual(tokensOf(reports, 1), expected);
    submit(engine, 3, {});
    assert.equal(tokensOf(drain(engine), 3).length, 12);
    engine.close();
  });
}

test("no regular expression that compiles ends the engine", () => {
  const atom = fc.constantFrom("0", "[0-9]", ".", "\\d", "(0|1)", "[^0]", "é");
  const { pattern } = fc.letrec<{ pattern: string }>((tie) => ({
    pattern: fc.oneof(
      { maxDepth: 3 },
      atom,
      fc.tuple(tie("pattern"), fc.constantFrom("*", "?", "+", "{0,40}", "{30}")).map(([of, sign]) => `(${of})${sign}`),
      fc.array(tie("pattern"), { minLength: 1, maxLength: 3 }).map((parts) => parts.join("")),
      fc.tuple(tie("pattern"), tie("pattern")).map(([a, b]) => `(${a}|${b})`),
    ),
  }));
  const engine = new Engine(new FakeKernel(), LIMITS, hasher);
  let request = 10;
  fc.assert(
    fc.property(pattern, fc.boolean(), fc.nat(50), (source, drawn, seed) => {
      try {
        submit(engine, request++, { constraint: constraintOf(source), temperature: drawn ? 1 : 0, seed, maxTokens: 6 });
      } catch (error) {
        if (!(error instanceof GrammarError)) throw error;
      }
      for (const { kind } of drain(engine).flatMap(({ failures }) => failures)) assert.equal(kind, "invalid_request");
    }),
    { numRuns: 120 },
  );
  assert.equal(engine.openRequests, 0);
});
