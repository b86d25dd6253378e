import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { Engine, type EngineLimits } from "#engine/engine.ts";
import { FakeKernel, type FakeRow } from "#engine/fake.ts";
import { type Batch, KernelError } from "#engine/kernel.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import type { StepReport } from "#engine/report.ts";
import { lookup } from "./lookup.ts";
import type { SpeculationOptions } from "./proposer.ts";

const hasher = await createBlockHasher("sha256");
const NGRAM: SpeculationOptions = { method: "ngram", tokens: 4, lookupMax: 3, lookupMin: 1 };
const DRAFT: SpeculationOptions = { ...NGRAM, method: "draft_model" };
const LIMITS: EngineLimits = {
  maxNumSeqs: 8,
  maxNumBatchedTokens: 64,
  contextLength: 256,
  schedulingPolicy: "fcfs",
  prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
};

/** Likes what stood two tokens after the last token's class: texts repeat, but not always. */
const repetitive =
  (period: number): FakeRow =>
  (tokens) => {
    const at = tokens.length;
    const row = Float32Array.from({ length: 64 }, (_, token) => ((token * 7 + at) % 11) / 10);
    row[3 + (at % period)] = 7;
    return row;
  };

interface Run {
  readonly tokens: readonly number[][];
  readonly steps: number;
  readonly engine: Engine;
}

function run(
  engine: Engine,
  samplings: readonly Partial<SamplingParams>[],
  prompt: readonly number[] = [1, 3, 4, 1, 3],
): Run {
  const tokens: number[][] = samplings.map(() => []);
  samplings.forEach((changes, request) => {
    const sampling = { ...NEUTRAL_SAMPLING, ignoreEos: true, maxTokens: 40, ...changes };
    engine.submit({ request, prompt: Int32Array.from(prompt), sampling, samples: 1, priority: 0 });
  });
  for (let steps = 0; steps < 2000; steps++) {
    const report: StepReport | undefined = engine.step();
    engine.checkIntegrity();
    if (report === undefined) return { tokens, steps, engine };
    assert.deepEqual(report.failures, []);
    for (const { request, token } of report.tokens) tokens[request]?.push(token);
  }
  throw new Error("the engine did not become idle");
}

function engineOf(row: FakeRow | undefined, speculation?: SpeculationOptions, draft?: FakeKernel): Engine {
  const limits = speculation === undefined ? LIMITS : { ...LIMITS, speculation };
  return new Engine(new FakeKernel({}, row), limits, hasher, draft === undefined ? {} : { draft });
}

const MIXED: readonly Partial<SamplingParams>[] = [
  { temperature: 0 },
  { temperature: 1, seed: 1 },
  { temperature: 0.7, seed: 2, topP: 0.9, frequencyPenalty: 0.5 },
  { temperature: 1, seed: 3, maxTokens: 1 },
  { temperature: 1, seed: 4, logprobs: 2, minTokens: 5, ignoreEos: false },
  { temperature: 0, repetition: { minSize: 1, maxSize: 8, minCount: 3 } },
  { temperature: 0, stopTokenIds: [7], maxTokens: 200 },
  { temperature: 1, seed: 5, maxTokens: 300 },
];

describe("speculative decoding", () => {
  it("draws the tokens that are drawn without it, in fewer steps", () => {
    const plain = run(engineOf(repetitive(5)), MIXED);
    const draft = new FakeKernel({}, repetitive(5));
    for (const engine of [engineOf(repetitive(5), NGRAM), engineOf(repetitive(5), DRAFT, draft)]) {
      const guessed = run(engine, MIXED);
      assert.deepEqual(guessed.tokens, plain.tokens);
      assert.ok(guessed.steps < plain.steps * 0.8, `${guessed.steps} steps, ${plain.steps} without`);
      const { drafts, draftTokens, acceptedTokens } = engine.gauges;
      const accepted = acceptedTokens.reduce((sum, count) => sum + count, 0);
      assert.ok(drafts > 0 && accepted > 0 && accepted <= draftTokens && draftTokens <= 4 * drafts);
      assert.equal(acceptedTokens.length, 4);
      assert.ok(acceptedTokens.every((count, at) => at === 0 || count <= (acceptedTokens[at - 1] as number)));
    }
  });

  it("draws the same also where every guess is wrong", () => {
    const plain = run(engineOf(undefined), MIXED);
    const wrong = new FakeKernel({}, repetitive(3));
    const guessed = run(engineOf(undefined, DRAFT, wrong), MIXED);
    assert.deepEqual(guessed.tokens, plain.tokens);
  });

  it("keeps the model's distribution (chi-square over 20,000 draws)", () => {
    // What comes third after [1] depends on the second; the draft model believes in token 5 for each place.
    const logits = (last: number): number[] => [0, 1, 2, 3].map((i) => ((last * 3 + i * i) % 5) / 2);
    const row: FakeRow = (tokens) => {
      const values = new Float32Array(64).fill(-Infinity);
      logits(tokens.at(-1) as number).forEach((value, i) => {
        values[4 + i] = value;
      });
      return values;
    };
    const believer: FakeRow = () => Float32Array.from({ length: 64 }, (_, token) => (token === 5 ? 1 : 0));
    const draft = new FakeKernel({}, believer);
    const engine = engineOf(row, { ...DRAFT, tokens: 2 }, draft);
    const counts = new Map<string, number>();
    const draws = 20_000;
    for (let from = 0; from < draws; from += 8) {
      const seeds = Array.from({ length: 8 }, (_, i) => ({ temperature: 1, seed: from + i, maxTokens: 3 }));
      for (const tokens of run(engine, seeds, [1]).tokens)
        counts.set(tokens.join(), (counts.get(tokens.join()) ?? 0) + 1);
    }
    const share = (last: number): number[] => {
      const weights = logits(last).map(Math.exp);
      const sum = weights.reduce((total, weight) => total + weight, 0);
      return weights.map((weight) => weight / sum);
    };
    let chi = 0;
    let cells = 0;
    for (const [a, pa] of share(1).entries())
      for (const [b, pb] of share(4 + a).entries())
        for (const [c, pc] of share(4 + b).entries()) {
          const expected = pa * pb * pc * draws;
          chi += ((counts.get([4 + a, 4 + b, 4 + c].join()) ?? 0) - expected) ** 2 / expected;
          cells++;
        }
    // 63 degrees of freedom: 103.4 is passed once in a thousand; the seeds are fixed, so this never flickers.
    assert.equal(cells, 64);
    assert.ok(chi < 103.4, `chi-square ${chi}`);
    assert.ok((engine.gauges.acceptedTokens[0] ?? 0) > 1000);
  });

  it("makes no guesses while more sequences decode than it is told", () => {
    const engine = engineOf(repetitive(5), { ...NGRAM, disableAbove: 1 });
    const sampling = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true, maxTokens: 200 };
    for (const request of [100, 101])
      engine.submit({ request, prompt: Int32Array.of(1, 3, request - 90), sampling, samples: 1, priority: 0 });
    for (let step = 0; step < 50; step++) engine.step();
    assert.deepEqual([engine.gauges.running, engine.gauges.drafts], [2, 0]);
    engine.abort(100);
    for (let step = 0; step < 10; step++) engine.step();
    assert.ok(engine.gauges.drafts > 0);
  });

  it("guesses for nothing where a lone long sequence would get a companion", () => {
    const lone = (): Engine => new Engine(new FakeKernel({ loneFrom: 20 }, repetitive(5)), LIMITS, hasher);
    const plain = run(engineOf(repetitive(5)), [{ temperature: 0, maxTokens: 60 }]);
    const engine = lone();
    const guessed = run(engine, [{ temperature: 0, maxTokens: 60 }]);
    assert.deepEqual(guessed.tokens, plain.tokens);
    assert.ok(guessed.steps < plain.steps && engine.gauges.drafts > 10 && engine.gauges.drafts <= 45);
    const two = lone();
    run(two, [{ temperature: 0 }, { temperature: 0 }]);
    assert.ok(two.gauges.drafts <= 1, "only the one that is left at the end may guess");
    const short = lone();
    run(short, [{ temperature: 0, maxTokens: 10 }]);
    assert.equal(short.gauges.drafts, 0);
  });

  it("reads a long prompt in turns, and a window that ends early ends only the guesses", () => {
    const prompt = Array.from({ length: 200 }, (_, i) => 3 + (i % 5));
    const plain = run(engineOf(repetitive(5)), [{ temperature: 0, maxTokens: 50 }], prompt);
    const draft = new FakeKernel({ contextPerSlot: 220, maxBatchTokens: 16 }, repetitive(5));
    const guessed = run(engineOf(repetitive(5), DRAFT, draft), [{ temperature: 0, maxTokens: 50 }], prompt);
    assert.deepEqual(guessed.tokens, plain.tokens);
    assert.ok((guessed.engine.gauges.acceptedTokens[0] ?? 0) > 0);
    assert.equal(draft.length(0), 0, "what ended leaves nothing behind");
  });

  it("goes on without guesses when the draft model fails", () => {
    class Failing extends FakeKernel {
      calls = 0;
      override forward(batch: Batch): readonly Float32Array[] {
        if (++this.calls % 3 === 0) throw new KernelError("failed", "scripted");
        return super.forward(batch);
      }
    }
    const plain = run(engineOf(repetitive(5)), MIXED);
    const guessed = run(engineOf(repetitive(5), DRAFT, new Failing({}, repetitive(5))), MIXED);
    assert.deepEqual(guessed.tokens, plain.tokens);
    assert.ok(guessed.engine.gauges.drafts > 0);
  });

  it("refuses a draft model of another vocabulary, or with too few slots, or none", () => {
    assert.throws(() => engineOf(undefined, DRAFT, new FakeKernel({ vocabularySize: 63 })), /another vocabulary/);
    assert.throws(() => engineOf(undefined, DRAFT, new FakeKernel({ maxSequences: 4 })), /fewer sequences/);
    assert.throws(() => engineOf(undefined, DRAFT), /needs one/);
    assert.throws(() => engineOf(undefined, { ...NGRAM, tokens: 33 }), RangeError);
    assert.throws(() => engineOf(undefined, { ...NGRAM, lookupMin: 4 }), RangeError);
  });
});

describe("lookup", () => {
  const at = (text: readonly number[], min: number, max: number) => lookup(Int32Array.from(text), min, max);

  it("finds where the text goes on, the longest run first, then the latest", () => {
    assert.equal(at([1, 2, 3, 9, 1, 2, 3], 2, 3), 3);
    assert.equal(at([1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 1, 3), 3);
    assert.equal(at([2, 3, 7, 2, 3, 8, 2, 3], 1, 3), 5);
    assert.equal(at([1, 2, 3, 4], 1, 3), -1);
    assert.equal(at([5, 1, 2, 1], 2, 3), -1);
    assert.equal(at([1], 1, 3), -1);
    assert.equal(at([], 1, 3), -1);
  });

  it("is what a plain search finds", () => {
    const plain = (text: readonly number[], min: number, max: number): number => {
      for (let size = max; size >= min; size--)
        for (let start = text.length - size - 1; start >= 0; start--) {
          const run = text.slice(text.length - size);
          if (text.length > size && run.every((token, i) => text[start + i] === token)) return start + size;
        }
      return -1;
    };
    const texts = fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 30 });
    fc.assert(
      fc.property(texts, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 3 }), (text, min, more) => {
        assert.equal(at(text, min, min + more), plain(text, min, min + more));
      }),
    );
  });
});
