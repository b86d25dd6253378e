/**
 * The prefix cache through the engine: what is shared, between whom, and that nobody can tell by the answer.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { Engine, type EngineLimits } from "#engine/engine.ts";
import { FakeKernel, type FakeScript } from "#engine/fake.ts";
import type { Batch } from "#engine/kernel.ts";
import type { StepReport } from "#engine/report.ts";
import type { Submission } from "#engine/requests.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "./hash.ts";

const LIMITS: EngineLimits = {
  maxNumSeqs: 8,
  maxNumBatchedTokens: 64,
  contextLength: 256,
  schedulingPolicy: "fcfs",
  prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
};
const hasher = await createBlockHasher("sha256");

/** Counts what the kernel computes and copies, and how many runs of consecutive slots its batches have. */
class CountingKernel extends FakeKernel {
  computed = 0;
  copies = 0;
  segments: number[] = [];

  override forward(batch: Batch): readonly Float32Array[] {
    this.computed += batch.count;
    const slots = [...new Set(batch.slots.subarray(0, batch.count))];
    this.segments.push(slots.filter((slot, at) => at === 0 || slot !== (slots[at - 1] as number) + 1).length);
    return super.forward(batch);
  }

  override copy(from: number, to: number, length: number): void {
    this.copies++;
    super.copy(from, to, length);
  }
}

function setting(
  script: FakeScript = {},
  limits: Partial<EngineLimits> = {},
): { engine: Engine; kernel: CountingKernel } {
  const kernel = new CountingKernel(script);
  return { kernel, engine: new Engine(kernel, { ...LIMITS, ...limits }, hasher) };
}

const text = (length: number, seed = 0): number[] => Array.from({ length }, (_, i) => 3 + ((i * 7 + seed * 13) % 60));

function submission(request: number, prompt: readonly number[], changes: Partial<Submission> = {}): Submission {
  const sampling = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true, maxTokens: 4 };
  return { request, prompt: Int32Array.from(prompt), sampling, samples: 1, priority: 0, cacheSalt: "a", ...changes };
}

function drain(engine: Engine): StepReport[] {
  const reports: StepReport[] = [];
  for (let at = 0; at < 5000; at++) {
    const report = engine.step();
    engine.checkIntegrity();
    if (report === undefined) return reports;
    reports.push(report);
  }
  throw new Error("the engine did not become idle");
}

function cachedOf(reports: readonly StepReport[], request: number): number | undefined {
  return reports.flatMap(({ prompts }) => prompts).find((prompt) => prompt.request === request)?.cachedTokens;
}

function tokensOf(reports: readonly StepReport[], request: number): Record<number, number[]> {
  const out: Record<number, number[]> = {};
  for (const { request: of, sample, token } of reports.flatMap(({ tokens }) => tokens)) {
    if (of !== request) continue;
    out[sample] = [...(out[sample] ?? []), token];
  }
  return out;
}

describe("prefix cache", () => {
  it("computes what two prompts share once, to the token, and at least one token again", () => {
    const { engine, kernel } = setting();
    engine.submit(submission(1, text(30)));
    drain(engine);
    kernel.computed = 0;
    engine.submit(submission(2, [...text(21), 1, 1]));
    const second = drain(engine);
    assert.equal(cachedOf(second, 2), 21);
    assert.equal(kernel.computed, 2 + 3, "the rest of the prompt, and three of four new tokens");
    engine.submit(submission(3, text(20)));
    assert.equal(cachedOf(drain(engine), 3), 19, "the last token is computed for its row");
    assert.deepEqual([engine.gauges.prefixQueries, engine.gauges.prefixHits], [30 + 23 + 20, 21 + 19]);
  });

  it("shares nothing of texts that begin with less than a block in common, or with another salt", () => {
    const { engine } = setting();
    engine.submit(submission(1, text(30)));
    drain(engine);
    engine.submit(submission(2, [...text(3), 1, 1, ...text(20, 3)]));
    assert.equal(cachedOf(drain(engine), 2), 0, "three tokens have no name");
    engine.submit(submission(3, text(30), { cacheSalt: "b" }));
    assert.equal(cachedOf(drain(engine), 3), 0);
  });

  it("takes over what is computed by itself only where both texts have it so", () => {
    const { engine } = setting({ prefillBlock: 8 });
    // Of 40 tokens 36 are computed in blocks, of 44 as many as 40: half a block is the measure.
    const cases = [
      { length: 40, shared: 38, cached: 38, why: "the bodies end alike" },
      { length: 40, shared: 33, cached: 28, why: "three of the body are left: a block is computed" },
      { length: 44, shared: 38, cached: 32, why: "36 are alike, and less than a block of the body would be left" },
      { length: 60, shared: 39, cached: 36, why: "what came by itself there comes in a block here" },
      { length: 36, shared: 35, cached: 32, why: "what came in a block there comes by itself here" },
      { length: 60, shared: 30, cached: 30, why: "all of it is body" },
    ];
    for (const [at, { length, shared, cached, why }] of cases.entries()) {
      engine.resetPrefixCache();
      engine.submit(submission(2 * at, text(40)));
      drain(engine);
      engine.submit(submission(2 * at + 1, [...text(shared), ...Array.from({ length: length - shared }, () => 1)]));
      assert.equal(cachedOf(drain(engine), 2 * at + 1), cached, why);
    }
  });

  it("knows an answer as the start of the next turn", () => {
    const { engine } = setting();
    engine.submit(submission(1, text(9), { sampling: { ...submission(1, []).sampling, maxTokens: 12 } }));
    const answer = tokensOf(drain(engine), 1)[0] ?? [];
    engine.submit(submission(2, [...text(9), ...answer, 5, 5]));
    assert.equal(cachedOf(drain(engine), 2), 20);
  });

  it("shares nothing between salts: neither counters nor steps tell of another tenant's prompts", () => {
    const alone = setting();
    const beside = setting();
    beside.engine.submit(submission(1, text(40), { cacheSalt: "b" }));
    drain(beside.engine);
    const before = { ...beside.engine.gauges, computed: beside.kernel.computed };
    const [first, second] = [alone, beside].map(({ engine }) => {
      engine.submit(submission(2, text(40)));
      return drain(engine).map(({ prompts, tokens, failures }) => ({ prompts, tokens, failures }));
    });
    assert.deepEqual(second, first);
    assert.equal(beside.engine.gauges.prefixHits, 0);
    assert.equal(beside.engine.gauges.steps - before.steps, alone.engine.gauges.steps);
    assert.equal(beside.kernel.computed - before.computed, alone.kernel.computed);
  });

  it("prefills the prompt of n samples once, with the cache and without", () => {
    for (const enabled of [true, false]) {
      const { engine, kernel } = setting({}, { prefixCache: { ...LIMITS.prefixCache, enabled } });
      engine.submit(submission(1, text(41), { samples: 8 }));
      drain(engine);
      assert.equal(kernel.computed, 41 + 7 + 8 * 3, "one prompt, one token of it for each other sample, the answers");
      assert.equal(kernel.copies, 7);
      assert.equal(engine.gauges.prefixHits > 0, enabled);
      if (enabled) continue;
      engine.submit(submission(2, text(41)));
      assert.equal(cachedOf(drain(engine), 2), 0, "nothing outlives its request");
    }
  });

  it("prefills the prompt of a group's requests once where there is no cache, and shares it with nobody else", () => {
    const { engine, kernel } = setting({}, { prefixCache: { ...LIMITS.prefixCache, enabled: false } });
    for (let request = 1; request <= 8; request++) engine.submit(submission(request, text(41), { group: "one" }));
    drain(engine);
    assert.equal(kernel.computed, 41 + 7 + 8 * 3);
    for (const group of ["other", "1", undefined]) {
      engine.submit(submission(10, text(41), group === undefined ? {} : { group }));
      assert.equal(cachedOf(drain(engine), 10), 0);
    }
  });

  it("lets a prompt wait for another that starts alike, and others pass it", () => {
    const { engine, kernel } = setting({ maxBatchTokens: 16 });
    engine.submit(submission(1, text(60)));
    engine.submit(submission(2, [...text(58), 1, 2]));
    engine.submit(submission(3, text(10, 5)));
    const reports = drain(engine);
    assert.equal(cachedOf(reports, 2), 58);
    assert.equal(kernel.computed, 60 + 2 + 10 + 3 * 3);
  });

  it("computes every prompt row again where prompt logprobs are asked for", () => {
    const { engine } = setting();
    engine.submit(submission(1, text(30)));
    drain(engine);
    engine.submit(submission(2, text(30), { sampling: { ...submission(1, []).sampling, promptLogprobs: 1 } }));
    const reports = drain(engine);
    assert.equal(cachedOf(reports, 2), 0);
    assert.equal(reports.flatMap(({ prompts }) => prompts)[0]?.logprobs?.length, 30);
  });

  it("forgets the least recently used first, and all on reset", () => {
    const { engine } = setting({ maxSequences: 3 });
    for (const seed of [1, 2, 3]) {
      engine.submit(submission(seed, text(20, seed)));
      drain(engine);
    }
    engine.submit(submission(11, text(20, 1)));
    assert.equal(cachedOf(drain(engine), 11), 19, "now the second is the oldest");
    engine.submit(submission(4, text(20, 4)));
    drain(engine);
    for (const [seed, cached] of [
      [3, 19],
      [1, 19],
      [2, 0],
    ] as const) {
      engine.submit(submission(20 + seed, text(20, seed)));
      assert.equal(cachedOf(drain(engine), 20 + seed), cached, `prompt ${seed}`);
    }
    engine.resetPrefixCache();
    engine.checkIntegrity();
    engine.submit(submission(30, text(20, 3)));
    assert.equal(cachedOf(drain(engine), 30), 0);
  });

  it("does not keep what a failed row computed", () => {
    const { engine } = setting({ faults: [{ forward: 1, fault: "nan" }] });
    engine.submit(submission(1, text(20)));
    drain(engine);
    engine.submit(submission(2, text(20)));
    assert.equal(cachedOf(drain(engine), 2), 0);
  });

  it("keeps running slots consecutive when some end in the middle", () => {
    const { engine, kernel } = setting();
    const lengths = [30, 3, 30, 5, 30, 7, 30, 9];
    for (const [request, maxTokens] of lengths.entries())
      engine.submit(submission(request, text(9, request), { sampling: { ...submission(0, []).sampling, maxTokens } }));
    drain(engine);
    assert.deepEqual([...new Set(kernel.segments)], [1]);
  });

  it("never changes an answer", () => {
    const request = fc.record({
      from: fc.integer({ min: 0, max: 2 }),
      shared: fc.integer({ min: 0, max: 40 }),
      own: fc.array(fc.integer({ min: 3, max: 62 }), { minLength: 1, maxLength: 12 }),
      salt: fc.constantFrom("a", "b"),
      samples: fc.integer({ min: 1, max: 3 }),
      maxTokens: fc.integer({ min: 1, max: 9 }),
      steps: fc.integer({ min: 0, max: 6 }),
      abort: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 1, maxLength: 14 }),
        fc.constantFrom(60, 200, Infinity),
        fc.constantFrom(1, 4, 8),
        (todo, cells, prefillBlock) => {
          const { engine } = setting({ maxSequences: 4, maxBatchTokens: 24, cells, prefillBlock });
          const reports: StepReport[] = [];
          const submissions = todo.map(({ from, shared, own, salt, samples, maxTokens }, number) =>
            submission(number, [...text(shared, from), ...own], {
              samples,
              cacheSalt: salt,
              sampling: { ...NEUTRAL_SAMPLING, temperature: 1, seed: number, ignoreEos: true, maxTokens },
            }),
          );
          todo.forEach(({ steps, abort }, number) => {
            engine.submit(submissions[number] as Submission);
            for (let step = 0; step < steps; step++) {
              const report = engine.step();
              engine.checkIntegrity();
              if (report !== undefined) reports.push(report);
            }
            if (abort) engine.abort(number - 1);
          });
          reports.push(...drain(engine));
          const failed = new Set(reports.flatMap(({ failures }) => failures).map((failure) => failure.request));
          submissions.forEach((one, number) => {
            if (todo[number + 1]?.abort || failed.has(number)) return;
            const fresh = setting({ maxSequences: 4, prefillBlock }, { prefixCache: NO_PREFIX_CACHE }).engine;
            fresh.submit(one);
            assert.deepEqual(tokensOf(reports, number), tokensOf(drain(fresh), number));
          });
        },
      ),
      { numRuns: 300 },
    );
  });
});
