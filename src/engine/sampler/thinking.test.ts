import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING, type SamplingParams, type ThinkingBudget } from "#core/sampling.ts";
import { Engine } from "#engine/engine.ts";
import { FakeKernel, type FakeRow } from "#engine/fake.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import type { TokenReport } from "#engine/report.ts";
import { buildGrammar, choice, literal } from "#prompt/grammar/builder.ts";
import { ThinkingLimit } from "./thinking.ts";

const [OPEN, SLASH, CLOSE, WORD, OTHER, EOS] = [10, 11, 12, 33, 34, 2];
const hasher = await createBlockHasher("sha256");

function limitOf(changes: Partial<ThinkingBudget> = {}): ThinkingBudget {
  return { tokens: 3, open: true, start: [OPEN], end: [SLASH, CLOSE], ...changes };
}

/** What comes when the model would say `wish(said)`. */
function talk(budget: ThinkingBudget, wish: (said: readonly number[]) => number, length: number): number[] {
  const limit = new ThinkingLimit(budget);
  const said: number[] = [];
  while (said.length < length) {
    const token = limit.due ?? wish(said);
    limit.note(token);
    said.push(token);
  }
  return said;
}

function generate(row: FakeRow, sampling: Partial<SamplingParams>): TokenReport[] {
  const limits = { maxNumSeqs: 2, maxNumBatchedTokens: 64, contextLength: 256, schedulingPolicy: "fcfs" as const };
  const engine = new Engine(new FakeKernel({}, row), { ...limits, prefixCache: NO_PREFIX_CACHE }, hasher);
  const params = { ...NEUTRAL_SAMPLING, temperature: 0, maxTokens: 8, ...sampling };
  engine.submit({ request: 1, prompt: Int32Array.of(1, 3), sampling: params, samples: 1, priority: 0 });
  const tokens: TokenReport[] = [];
  for (let report = engine.step(); report !== undefined; report = engine.step()) {
    assert.deepEqual(report.failures, []);
    tokens.push(...report.tokens);
  }
  return tokens;
}

const likes =
  (token: number): FakeRow =>
  () =>
    Float32Array.from({ length: 64 }, (_, index) => (index === token ? 5 : 0));

describe("ThinkingLimit", () => {
  it("ends an opened thought after its budget, and says nothing about what follows", () => {
    assert.deepEqual(
      talk(limitOf(), () => WORD, 7),
      [WORD, WORD, WORD, SLASH, CLOSE, WORD, WORD],
    );
    assert.deepEqual(
      talk(limitOf({ tokens: 0 }), () => OPEN, 4),
      [SLASH, CLOSE, OPEN, OPEN],
    );
  });

  it("counts from where the model opens the thought, and not at all before", () => {
    const said = talk(limitOf({ open: false, tokens: 1 }), (all) => (all.length === 4 ? OPEN : WORD), 9);
    assert.deepEqual(said, [WORD, WORD, WORD, WORD, OPEN, WORD, SLASH, CLOSE, WORD]);
  });

  it("goes on with an end that the model has begun, and leaves a thought alone that ends in time", () => {
    assert.deepEqual(
      talk(limitOf(), (all) => (all.length === 2 ? SLASH : WORD), 5),
      [WORD, WORD, SLASH, CLOSE, WORD],
    );
    const early = [WORD, SLASH, CLOSE, WORD, WORD, WORD, WORD];
    assert.deepEqual(
      talk(limitOf({ tokens: 3 }), (all) => early[all.length] as number, 7),
      early,
    );
  });

  it("never lets more than the budget stand before the end, for any end and any speech", () => {
    const runs = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(
        runs,
        fc.integer({ min: 0, max: 6 }),
        fc.array(fc.integer({ min: 0, max: 3 })),
        (end, tokens, speech) => {
          const said = talk(limitOf({ tokens, end }), (all) => speech[all.length] ?? 3, 24);
          const at = said.findIndex((_, from) => end.every((token, i) => said[from + i] === token));
          assert.ok(at >= 0 && at <= tokens, `${said} ends its thought at ${at}`);
        },
      ),
    );
  });
});

describe("the engine with a thinking budget", () => {
  it("reports the model's own logprobs for tokens that were due", () => {
    const tokens = generate(likes(WORD), { thinking: limitOf({ tokens: 2 }), logprobs: 1, maxTokens: 5 });
    assert.deepEqual(
      tokens.map(({ token }) => token),
      [WORD, WORD, SLASH, CLOSE, WORD],
    );
    const [best, rest] = [5, 0].map((logit) => logit - Math.log(Math.exp(5) + 63));
    for (const { token, logprobs } of tokens) {
      assert.ok(Math.abs((logprobs?.chosen.logprob ?? 0) - (token === WORD ? (best ?? 0) : (rest ?? 0))) < 1e-6);
      assert.equal(logprobs?.top[0]?.token, WORD);
    }
  });

  it("closes the thought before a grammar that begins behind it, whatever barred its tokens", () => {
    const grammar = buildGrammar(new Map([["root", choice(literal('"#'), literal("##"))]]), "root");
    const constraint = { grammar, key: "k", after: [SLASH, CLOSE] };
    const barred = { allowedTokenIds: [33, 34, 35, EOS], badWords: [[CLOSE]], ignoreEos: true };
    const tokens = generate(likes(WORD), { thinking: limitOf({ tokens: 1 }), constraint, ...barred });
    assert.deepEqual(
      tokens.map(({ token }) => token),
      [WORD, SLASH, CLOSE, OTHER, 35],
    );
  });

  it("waits for a grammar that holds and does not let the end come", () => {
    const grammar = buildGrammar(new Map([["root", literal("!!!")]]), "root");
    const tokens = generate(likes(OTHER), { thinking: limitOf({ tokens: 1 }), constraint: { grammar, key: "k2" } });
    assert.deepEqual(
      tokens.map(({ token }) => token),
      [WORD, WORD, WORD, EOS],
    );
  });

  it("stops at a stop token that was due", () => {
    const tokens = generate(likes(WORD), { thinking: limitOf({ tokens: 1 }), stopTokenIds: [CLOSE] });
    assert.deepEqual(
      tokens.map(({ token }) => token),
      [WORD, SLASH, CLOSE],
    );
  });
});
