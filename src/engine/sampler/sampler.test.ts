import assert from "node:assert/strict";
import { describe, it, test } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { Drawer, type Shape } from "./draw.ts";
import { expNegative } from "./exp.ts";
import { largest, largestAmong } from "./largest.ts";
import { philox, uniform } from "./random.ts";
import { Sampler, SamplingError, SequenceSampler } from "./sampler.ts";
import { Selector } from "./select.ts";

/** Indices by (value falling, index rising). */
function fullSort(row: ArrayLike<number>): number[] {
  return Array.from(row, (_, index) => index).sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
}

/** The naive sampler: everything by the book, nothing fast. Token → probability, for those that may be drawn. */
function referenceProbabilities(row: ArrayLike<number>, shape: Shape): Map<number, number> {
  const max = Math.max(...Array.from(row));
  const weight = (index: number) => Math.exp(((row[index] as number) - max) / shape.temperature);
  let kept = fullSort(row).filter((index) => row[index] !== -Infinity);
  kept = kept.filter(
    (index) => shape.minP === 0 || (row[index] as number) >= max + shape.temperature * Math.log(shape.minP),
  );
  if (shape.topK > 0) kept = kept.slice(0, shape.topK);
  const mass = kept.reduce((sum, index) => sum + weight(index), 0);
  let sum = 0;
  let length = 0;
  while (length < kept.length && (length === 0 || sum < shape.topP * mass)) sum += weight(kept[length++] as number);
  if (shape.topP < 1) kept = kept.slice(0, length);
  const total = kept.reduce((all, index) => all + weight(index), 0);
  return new Map(kept.map((index) => [index, weight(index) / total]));
}

/** How often each index comes up when u runs evenly over [0, 1). */
function drawnShares(row: Float32Array, shape: Shape, draws: number): Map<number, number> {
  const drawer = new Drawer(row.length);
  const shares = new Map<number, number>();
  for (let at = 0; at < draws; at++) {
    const index = Number(drawer.draw(row, row.length, shape, (at + 0.5) / draws));
    shares.set(index, (shares.get(index) ?? 0) + 1 / draws);
  }
  return shares;
}

const params = (changes: Partial<SamplingParams>): SamplingParams => ({ ...NEUTRAL_SAMPLING, ...changes });

function sampleOne(row: Float32Array, changes: Partial<SamplingParams>, prompt: number[] = [0], output: number[] = []) {
  const sequence = new SequenceSampler(params(changes), Int32Array.from(prompt), [2], changes.seed ?? 7);
  for (const token of output) sequence.edits.note(token);
  return new Sampler(row.length).sample(row, sequence, output);
}

/** Quarter steps: many ties, and sums that differ from any threshold by more than rounding. */
const logits = fc.array(
  fc.integer({ min: -40, max: 40 }).map((value) => value / 4),
  { minLength: 1, maxLength: 80 },
);

describe("philox", () => {
  it("gives the known answers of Random123 (kat_vectors, philox4x32 10)", () => {
    assert.deepEqual(philox([0, 0, 0, 0], [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    const ones = 0xffffffff;
    assert.deepEqual(philox([ones, ones, ones, ones], [ones, ones]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    assert.deepEqual(
      philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    );
  });

  it("draws from [0, 1), apart for every seed, negative and large ones too", () => {
    const seeds = [0, 1, -1, 2 ** 32, 2 ** 32 + 1, -(2 ** 40), Number.MAX_SAFE_INTEGER];
    const draws = seeds.map((seed) => uniform(seed, 3));
    assert.equal(new Set(draws).size, seeds.length);
    for (const draw of draws) assert.ok(draw >= 0 && draw < 1);
  });
});

describe("expNegative", () => {
  it("is within 1e-8 of Math.exp", () => {
    for (let x = 0; x > -50; x -= 0.00137) {
      const exact = Math.exp(x);
      assert.ok(Math.abs(expNegative(x) - exact) <= 1e-8 * exact, `exp(${x})`);
    }
    assert.equal(expNegative(-Infinity), 0);
    assert.equal(expNegative(0), 1);
  });
});

describe("Selector", () => {
  it("selects what a full sort selects, ties to the lower index", () => {
    fc.assert(
      fc.property(logits, fc.integer({ min: 1, max: 90 }), fc.boolean(), (values, k, masked) => {
        const row = Float32Array.from(values, (value, index) => (masked && index % 3 === 0 ? -Infinity : value));
        const expected = fullSort(row)
          .filter((index) => row[index] !== -Infinity)
          .slice(0, k);
        const selector = new Selector(row.length);
        const count = selector.select(row, row.length, Math.min(k, row.length));
        assert.deepEqual([...selector.indices.subarray(0, count)], expected);
      }),
    );
  });

  it("treats -0 and 0 as equal", () => {
    const selector = new Selector(2);
    selector.select(Float32Array.of(-0, 0), 2, 1);
    assert.equal(selector.indices[0], 0);
  });
});

describe("Drawer", () => {
  const shapes = fc.record({
    temperature: fc.constantFrom(0.01, 0.5, 1, 1.7),
    topK: fc.constantFrom(0, 1, 3, 20),
    topP: fc.constantFrom(1, 0.983, 0.871, 0.513, 0.037),
    minP: fc.constantFrom(0, 0, 0.0123, 0.31),
  });

  it("draws from the set of the naive sampler, in its proportions", () => {
    fc.assert(
      fc.property(logits, shapes, (values, shape) => {
        const row = Float32Array.from(values);
        const draws = 1000;
        const shares = drawnShares(row, shape, draws);
        const expected = referenceProbabilities(row, shape);
        for (const index of shares.keys()) assert.ok(expected.has(index), `${index} may not be drawn`);
        for (const [index, probability] of expected) {
          const share = shares.get(index) ?? 0;
          assert.ok(Math.abs(share - probability) <= 2 / draws, `${index}: ${share}, not ${probability}`);
        }
      }),
      { numRuns: 200 },
    );
  });

  it("keeps what a full sort keeps, on large rows too", () => {
    const length = 5000;
    for (const spread of [12, 1, 0.001]) {
      const row = Float32Array.from({ length }, (_, index) => uniform(11, index) * spread);
      const drawer = new Drawer(length);
      for (const topP of [0.05, 0.5, 0.9, 0.999]) {
        const shape = { temperature: 1, topK: 0, topP, minP: 0 };
        const count = drawer.keep(row, length, shape);
        const expected = [...referenceProbabilities(row, shape).keys()];
        assert.deepEqual(drawer.kept.slice(0, Number(count)).sort(), Int32Array.from(expected).sort());
      }
    }
  });

  it("passes a chi-square test over seeded draws", () => {
    const row = Float32Array.of(1, 2, 0.5, -1, 2.5, 0);
    const draws = 20_000;
    const counts = new Array<number>(row.length).fill(0);
    for (let index = 0; index < draws; index++) {
      const { token } = sampleOne(row.slice(), { temperature: 0.8, seed: index });
      counts[token] = (counts[token] as number) + 1;
    }
    const expected = referenceProbabilities(row, { temperature: 0.8, topK: 0, topP: 1, minP: 0 });
    let chiSquare = 0;
    for (const [token, probability] of expected) {
      chiSquare += ((counts[token] as number) - draws * probability) ** 2 / (draws * probability);
    }
    assert.ok(chiSquare < 20.5, `chi-square ${chiSquare} at 5 degrees of freedom (p = 0.001)`);
  });
});

describe("Sampler", () => {
  it("is greedy at temperature 0, ties to the lower id", () => {
    assert.equal(sampleOne(Float32Array.of(1, 3, 3, 2), { temperature: 0 }).token, 1);
  });

  it("applies repetition over prompt and output, the other penalties over the output only", () => {
    const row = Float32Array.of(4, -1, 3, 2);
    const changes = { temperature: 0, repetitionPenalty: 2, frequencyPenalty: 0.5, presencePenalty: 0.25 };
    sampleOne(row, changes, [0, 0, 1], [2, 2]);
    assert.deepEqual([...row], [2, -2, 1.5 - 0.5 * 2 - 0.25, 2]);
  });

  it("adds bias, bars tokens outside the allowed ones, keeps the true id", () => {
    const bias = [[3, 10]] as const;
    assert.equal(sampleOne(Float32Array.of(1, 3, 3, 2), { temperature: 0, logitBias: bias }).token, 3);
    const allowed = { temperature: 0, allowedTokenIds: [3, 0, 3] };
    assert.equal(sampleOne(Float32Array.of(1, 3, 3, 2), allowed).token, 3);
    const seen = new Set<number>();
    for (let seed = 0; seed < 50; seed++) {
      seen.add(sampleOne(Float32Array.of(1, 3, 3, 1), { allowedTokenIds: [3, 0], seed }).token);
    }
    assert.deepEqual([...seen].sort(), [0, 3]);
  });

  it("bars the last token of a bad run only after the rest of it", () => {
    const badWords = [[1, 3]];
    assert.equal(sampleOne(Float32Array.of(0, 1, 2, 9), { temperature: 0, badWords }, [0], [1]).token, 2);
    assert.equal(sampleOne(Float32Array.of(0, 1, 2, 9), { temperature: 0, badWords }, [0], [2]).token, 3);
    assert.equal(sampleOne(Float32Array.of(0, 1, 2, 9), { temperature: 0, badWords: [[3]] }).token, 2);
  });

  it("masks end-of-turn and stop tokens until min_tokens", () => {
    const changes = { temperature: 0, minTokens: 2, maxTokens: 9, stopTokenIds: [3] };
    assert.equal(sampleOne(Float32Array.of(0, 1, 8, 9), changes, [0], [1]).token, 1);
    assert.equal(sampleOne(Float32Array.of(0, 1, 8, 9), changes, [0], [1, 1]).token, 3);
  });

  it("reports raw logprobs, whatever the edits and the temperature", () => {
    const row = Float32Array.of(1, 2, 3, 2);
    const raw = [...row];
    const { token, logprobs } = sampleOne(row, { temperature: 0, logprobs: 3, logitBias: [[0, 50]] });
    const normalizer = Math.log(raw.reduce((sum, value) => sum + Math.exp(value), 0));
    assert.equal(token, 0);
    assert.equal(logprobs?.chosen.rank, 4);
    assert.ok(Math.abs((logprobs?.chosen.logprob ?? 0) - (1 - normalizer)) < 1e-7);
    assert.deepEqual(
      logprobs?.top.map((entry) => entry.token),
      [2, 1, 3],
    );
    assert.deepEqual(
      logprobs?.top.map((entry) => entry.rank),
      [1, 2, 3],
    );
    const all = sampleOne(Float32Array.of(1, 2, 3, 2), { temperature: 0, logprobs: -1 }).logprobs;
    const mass = all?.top.reduce((sum, entry) => sum + Math.exp(entry.logprob), 0) ?? 0;
    assert.ok(Math.abs(mass - 1) < 1e-7);
    assert.deepEqual(sampleOne(Float32Array.of(1, 2), { temperature: 0, logprobs: 0 }).logprobs?.top, []);
  });

  it("reports the raw logprobs of just the tokens that are asked for, in their order", () => {
    const row = Float32Array.of(1, 2, 3, 2);
    const normalizer = Math.log([1, 2, 3, 2].reduce((sum, value) => sum + Math.exp(value), 0));
    const changes = { temperature: 0, logprobs: 3, logprobTokenIds: [3, 0, 2], allowedTokenIds: [1] };
    const { token, logprobs } = sampleOne(row, changes);
    assert.equal(token, 1);
    assert.ok(Math.abs((logprobs?.chosen.logprob ?? 0) - (2 - normalizer)) < 1e-7);
    assert.deepEqual(
      logprobs?.top.map((entry) => [entry.token, entry.rank]),
      [
        [3, 0],
        [0, 0],
        [2, 0],
      ],
    );
    for (const [at, logit] of [2, 1, 3].entries())
      assert.ok(Math.abs((logprobs?.top[at]?.logprob ?? 0) - (logit - normalizer)) < 1e-7);
  });

  it("gives the same token for the same seed and index, and draws anew at the next index", () => {
    const row = Float32Array.from({ length: 64 }, (_, index) => Math.sin(index));
    const tokens = Array.from(
      { length: 20 },
      (_, index) => sampleOne(row.slice(), { seed: 5 }, [0], new Array(index).fill(1)).token,
    );
    const again = Array.from(
      { length: 20 },
      (_, index) => sampleOne(row.slice(), { seed: 5 }, [0], new Array(index).fill(1)).token,
    );
    assert.deepEqual(tokens, again);
    assert.ok(new Set(tokens).size > 5);
  });

  it("fails clearly on rows that cannot be sampled", () => {
    const failure = (row: Float32Array, changes: Partial<SamplingParams>) => {
      try {
        sampleOne(row, changes);
      } catch (error) {
        return error instanceof SamplingError ? error.code : error;
      }
      return undefined;
    };
    for (const temperature of [0, 1]) {
      assert.equal(failure(Float32Array.of(1, Number.NaN, 2), { temperature }), "model");
      assert.equal(failure(Float32Array.of(1, 2, Number.NaN), { temperature }), "model");
      assert.equal(failure(Float32Array.of(Number.NaN, 1, 2), { temperature }), "model");
      assert.equal(failure(Float32Array.of(1, Infinity, 2), { temperature }), "model");
      assert.equal(failure(new Float32Array(3).fill(-Infinity), { temperature }), "model");
      assert.equal(failure(Float32Array.of(1, 2, 3), { temperature, allowedTokenIds: [1], badWords: [[1]] }), "masked");
    }
  });
});

test("the largest among some is the largest of a row whose others are barred", () => {
  const value = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.constantFrom(Number.NaN, Infinity, -Infinity));
  const entries = fc.array(fc.tuple(value, fc.boolean()), { minLength: 1, maxLength: 100 });
  fc.assert(
    fc.property(entries, (list) => {
      const row = Float32Array.from(list, ([logit]) => logit);
      const mask = new Uint32Array(Math.ceil(list.length / 32) + 1);
      for (const [at, [, set]] of list.entries())
        if (set) mask[at >> 5] = ((mask[at >> 5] as number) | (1 << (at & 31))) >>> 0;
      const barred = Float32Array.from(list, ([logit, set]) => (set ? logit : -Infinity));
      assert.equal(largestAmong(row, mask), largest(barred, barred.length));
    }),
  );
});
