import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { Engine, type EngineLimits } from "./engine.ts";
import { FakeKernel, type FakeRow, type FakeScript } from "./fake.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "./prefix/hash.ts";
import type { StepReport } from "./report.ts";
import type { Submission } from "./requests.ts";
import { repeats } from "./settle.ts";

const LIMITS: EngineLimits = {
  maxNumSeqs: 8,
  maxNumBatchedTokens: 64,
  contextLength: 256,
  schedulingPolicy: "fcfs",
  prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
};
const hasher = await createBlockHasher("sha256");
const GREEDY: SamplingParams = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true };

function engineOf(script: FakeScript = {}, row?: FakeRow, limits: Partial<EngineLimits> = {}): Engine {
  return new Engine(new FakeKernel(script, row), { ...LIMITS, ...limits }, hasher);
}

function submission(request: number, changes: Partial<SamplingParams> = {}, prompt: number[] = [1, 3, 4]): Submission {
  return { request, prompt: Int32Array.from(prompt), sampling: { ...GREEDY, ...changes }, samples: 1, priority: 0 };
}

/** Steps until the engine is idle, checking its invariants after every step. */
function drain(engine: Engine, limit = 5000): StepReport[] {
  const reports: StepReport[] = [];
  for (let at = 0; at < limit; at++) {
    const report = engine.step();
    engine.checkIntegrity();
    if (report === undefined) return reports;
    reports.push(report);
  }
  throw new Error("the engine did not become idle");
}

function tokensOf(reports: readonly StepReport[], request: number, sample = 0): number[] {
  const all = reports.flatMap(({ tokens }) => tokens);
  return all.filter((entry) => entry.request === request && entry.sample === sample).map(({ token }) => token);
}

/** Always likes this token best. */
const always =
  (token: number): FakeRow =>
  () =>
    Float32Array.from({ length: 64 }, (_, index) => (index === token ? 5 : 0));

describe("Engine", () => {
  it("reports prompt, tokens and finish, and is empty afterwards", () => {
    const engine = engineOf();
    engine.submit(submission(1, { maxTokens: 5 }));
    const reports = drain(engine);
    assert.deepEqual(
      reports.flatMap(({ prompts }) => prompts),
      [{ request: 1, cachedTokens: 0 }],
    );
    assert.equal(tokensOf(reports, 1).length, 5);
    const [finish] = reports.flatMap(({ finishes }) => finishes);
    assert.equal(finish?.reason, "length");
    assert.equal(finish?.promptTokens, 3);
    assert.equal(finish?.outputTokens, 5);
    assert.deepEqual(engine.gauges, {
      running: 0,
      waiting: 0,
      kvUsage: 0,
      steps: 5,
      promptTokens: 3,
      generationTokens: 5,
      preemptions: 0,
      prefixQueries: 3,
      prefixHits: 0,
      drafts: 0,
      draftTokens: 0,
      acceptedTokens: [],
    });
  });

  it("ends at end-of-turn and stop tokens, not before min_tokens, not when told to ignore them", () => {
    const endOf = (row: FakeRow, changes: Partial<SamplingParams>) => {
      const engine = engineOf({}, row);
      engine.submit(submission(1, { maxTokens: 6, ignoreEos: false, ...changes }));
      const reports = drain(engine);
      const [finish] = reports.flatMap(({ finishes }) => finishes);
      return [tokensOf(reports, 1).length, finish?.reason, finish?.stopToken];
    };
    assert.deepEqual(endOf(always(2), {}), [1, "stop", 2]);
    assert.deepEqual(endOf(always(2), { ignoreEos: true }), [6, "length", undefined]);
    assert.deepEqual(endOf(always(2), { minTokens: 4 }), [5, "stop", 2]);
    assert.deepEqual(endOf(always(9), { stopTokenIds: [9], ignoreEos: true }), [1, "stop", 9]);
    assert.deepEqual(endOf(always(9), { maxTokens: 0 }), [0, "length", undefined]);
  });

  it("ends at the window, a full prompt included", () => {
    const engine = engineOf({}, undefined, { contextLength: 10 });
    engine.submit(submission(1, { maxTokens: 99 }));
    engine.submit(submission(2, { maxTokens: 99 }, new Array(10).fill(1)));
    engine.submit(submission(3, { maxTokens: 99 }, new Array(11).fill(1)));
    const reports = drain(engine);
    assert.equal(tokensOf(reports, 1).length, 7);
    assert.equal(tokensOf(reports, 2).length, 1);
    assert.deepEqual(
      reports.flatMap(({ failures }) => failures).map(({ request, kind }) => [request, kind]),
      [[3, "invalid_request"]],
    );
  });

  it("gives the same tokens alone and in a full batch of 32, greedy or seeded, chunked or not", () => {
    const kinds: Partial<SamplingParams>[] = [
      { temperature: 0 },
      { temperature: 1, seed: 42 },
      { temperature: 1.3, seed: -9, topP: 0.9, repetitionPenalty: 1.2 },
      { temperature: 0.7, seed: 2 ** 40, topK: 5 },
    ];
    const prompt = Array.from({ length: 40 }, (_, index) => (index * 7) % 64);
    for (const kind of kinds) {
      const target = submission(1000, { ...kind, maxTokens: 24 }, prompt);
      const alone = engineOf({ maxBatchTokens: 512, maxSequences: 32 }, undefined, {
        maxNumBatchedTokens: 512,
        maxNumSeqs: 32,
      });
      alone.submit(target);
      const expected = tokensOf(drain(alone), 1000);
      const full = engineOf({ maxSequences: 32 }, undefined, { maxNumSeqs: 32 });
      for (let other = 0; other < 31; other++) {
        full.submit(submission(other, { temperature: 1, maxTokens: 30 + other }, [other, 5, 6]));
        if (other === 15) full.submit(target);
      }
      assert.deepEqual(tokensOf(drain(full), 1000), expected);
      assert.equal(expected.length, 24);
    }
  });

  it("draws samples with seed, seed + 1, …", () => {
    const engine = engineOf();
    engine.submit({ ...submission(1, { temperature: 1.5, seed: 10, maxTokens: 12 }), samples: 3 });
    engine.submit(submission(2, { temperature: 1.5, seed: 11, maxTokens: 12 }));
    const reports = drain(engine);
    assert.equal(reports.flatMap(({ prompts }) => prompts).length, 2);
    assert.deepEqual(tokensOf(reports, 1, 1), tokensOf(reports, 2));
    assert.notDeepEqual(tokensOf(reports, 1, 0), tokensOf(reports, 1, 1));
  });

  it("reports prompt logprobs of every position but the first, over chunks, before any token", () => {
    const engine = engineOf({ contextPerSlot: 512 }, undefined, { contextLength: 512 });
    const prompt = Array.from({ length: 150 }, (_, index) => index % 64);
    engine.submit({ ...submission(1, { promptLogprobs: 2, logprobs: 1, maxTokens: 2 }, prompt), samples: 3 });
    const reports = drain(engine);
    const at = reports.findIndex(({ prompts }) => prompts.length > 0);
    assert.ok(at >= 2, "the prompt took several chunks");
    assert.ok(reports.slice(0, at).every(({ tokens }) => tokens.length === 0));
    const logprobs = reports[at]?.prompts[0]?.logprobs ?? [];
    assert.equal(logprobs.length, 150);
    assert.equal(logprobs[0], null);
    assert.deepEqual(
      logprobs.slice(1).map((position) => position?.chosen.token),
      prompt.slice(1),
    );
    assert.ok(logprobs.slice(1).every((position) => position?.top.length === 2));
    const tokens = reports.flatMap((report) => report.tokens);
    assert.equal(tokens.length, 6);
    assert.ok(
      tokens.every((entry) => entry.logprobs?.chosen.token === entry.token && entry.logprobs.chosen.rank === 1),
    );
  });

  it("pauses and resumes a request without losing a token", () => {
    const engine = engineOf();
    engine.submit(submission(1, { maxTokens: 9 }));
    const expected = tokensOf(drain(engine), 1);
    engine.submit(submission(2, { maxTokens: 9 }));
    const first = [engine.step(), engine.step()].filter((report) => report !== undefined);
    engine.setPaused(2, true);
    assert.equal(engine.step(), undefined);
    assert.equal(engine.gauges.running, 1);
    engine.setPaused(2, false);
    assert.deepEqual(tokensOf([...first, ...drain(engine)], 2), expected);
  });

  it("gives the last in line back to the queue when the kernel is full, and computes it again", () => {
    const wide = engineOf();
    const tight = engineOf({ cells: 60 });
    const reports = [wide, tight].map((engine) => {
      for (let request = 0; request < 5; request++) {
        engine.submit(submission(request, { temperature: 1, seed: request, maxTokens: 20 }, [request, 1, 2]));
      }
      return drain(engine);
    });
    assert.ok(tight.gauges.preemptions > 0);
    for (let request = 0; request < 5; request++) {
      assert.deepEqual(tokensOf(reports[1] ?? [], request), tokensOf(reports[0] ?? [], request));
    }
  });

  it("fails a sequence that fits nowhere and goes on with the next", () => {
    const engine = engineOf({ cells: 10 });
    engine.submit(submission(1, { maxTokens: 50 }));
    engine.submit(submission(2, { maxTokens: 3 }));
    const reports = drain(engine);
    assert.deepEqual(
      reports.flatMap(({ failures }) => failures.map(({ request, kind }) => [request, kind])),
      [[1, "engine_failed"]],
    );
    assert.equal(tokensOf(reports, 2).length, 3);
  });

  it("fails only the batch of a failed forward, only the requests of a bad row", () => {
    for (const fault of ["failed", "invalid", "nan"] as const) {
      const engine = engineOf({ faults: [{ forward: 2, fault }] });
      engine.submit({ ...submission(1, { maxTokens: 5 }), samples: 2 });
      engine.step();
      const broken = drain(engine);
      assert.deepEqual(
        broken.flatMap(({ failures }) => failures.map(({ request, kind }) => [request, kind])),
        [[1, "engine_failed"]],
      );
      assert.equal(engine.openRequests, 0);
      engine.submit(submission(2, { maxTokens: 5 }));
      assert.equal(tokensOf(drain(engine), 2).length, 5);
    }
  });

  it("blames the request that bars every token", () => {
    const engine = engineOf();
    engine.submit(submission(1, { allowedTokenIds: [4], badWords: [[4]] }));
    engine.submit(submission(2, { maxTokens: 2 }));
    const reports = drain(engine);
    assert.deepEqual(
      reports.flatMap(({ failures }) => failures).map(({ request, kind }) => [request, kind]),
      [[1, "invalid_request"]],
    );
    assert.equal(tokensOf(reports, 2).length, 2);
  });

  it("does not let a long prompt stop running answers", () => {
    const engine = engineOf({ maxBatchTokens: 16 });
    engine.submit(submission(1, { maxTokens: 40 }));
    engine.step();
    engine.submit(submission(2, { maxTokens: 1 }, new Array(200).fill(3)));
    for (let step = 0; step < 12; step++) {
      const report = engine.step();
      assert.equal(tokensOf(report === undefined ? [] : [report], 1).length, 1);
    }
  });

  it("keeps its invariants under any commands", () => {
    const command = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant("submit" as const),
          length: fc.integer({ min: 1, max: 60 }),
          samples: fc.integer({ min: 1, max: 3 }),
          logprobs: fc.boolean(),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constantFrom("abort" as const, "pause" as const, "resume" as const),
          pick: fc.nat(30),
        }),
      },
      { weight: 6, arbitrary: fc.record({ kind: fc.constant("step" as const) }) },
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), fc.constantFrom(70, 200, Infinity), (commands, cells) => {
        const engine = engineOf({ cells, maxBatchTokens: 20, maxSequences: 4 });
        let requests = 0;
        for (const todo of commands) {
          if (todo.kind === "submit") {
            const extra = todo.logprobs ? { promptLogprobs: 1 } : {};
            const base = submission(requests++, { maxTokens: 8, ...extra }, new Array(todo.length).fill(1));
            engine.submit({ ...base, samples: todo.samples });
          } else if (todo.kind === "abort") engine.abort(todo.pick);
          else if (todo.kind === "step") engine.step();
          else engine.setPaused(todo.pick, todo.kind === "pause");
          engine.checkIntegrity();
        }
        for (let request = 0; request < requests; request++) engine.setPaused(request, false);
        drain(engine);
        assert.equal(engine.openRequests, 0);
        assert.equal(engine.gauges.running + engine.gauges.waiting, 0);
      }),
      { numRuns: 200 },
    );
  });

  it("leaves nothing behind after 10,000 aborts at any moment", () => {
    const engine = engineOf();
    let open: number[] = [];
    let state = 12345;
    const random = (below: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let request = 0; request < 10_000; request++) {
      engine.submit({
        ...submission(request, { maxTokens: 1000 }, new Array(1 + random(20)).fill(5)),
        samples: 1 + random(2),
      });
      open.push(request);
      if (random(3) === 0) engine.step();
      if (open.length > 20) open = open.filter((one) => random(2) === 0 || engine.abort(one) !== undefined);
    }
    for (const request of open) engine.abort(request);
    engine.checkIntegrity();
    assert.equal(engine.openRequests, 0);
    assert.deepEqual([engine.gauges.running, engine.gauges.waiting, engine.gauges.kvUsage], [0, 0, 0]);
    assert.equal(engine.step(), undefined);
  });
});

describe("repetition", () => {
  it("ends a sequence that says one run again and again, and no other", () => {
    const rule = { minSize: 2, maxSize: 4, minCount: 3 };
    for (const [output, ends] of [
      [[5, 1, 2, 1, 2, 1, 2], true],
      [[1, 2, 3, 1, 2, 3, 1, 2, 3], true],
      [[7, 7, 7, 7, 7, 7], true],
      [[7, 7, 7, 7, 7], false],
      [[1, 2, 1, 2, 1, 3], false],
      [[1, 2, 1, 2], false],
      [[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5], false],
    ] as const)
      assert.equal(repeats(output, rule), ends, output.join());
    const engine = engineOf({}, always(7));
    engine.submit(submission(1, { maxTokens: 50, repetition: rule }));
    const reports = drain(engine);
    assert.equal(tokensOf(reports, 1).length, 6);
    assert.equal(reports.flatMap(({ finishes }) => finishes)[0]?.reason, "repetition");
    // The length comes before it, min_tokens hold it off.
    engine.submit(submission(2, { maxTokens: 6, repetition: rule }));
    engine.submit(submission(3, { maxTokens: 50, minTokens: 11, repetition: rule }));
    const later = drain(engine);
    const reasons = later.flatMap(({ finishes }) => finishes.map(({ request, reason }) => [request, reason]));
    assert.deepEqual(reasons, [
      [2, "length"],
      [3, "repetition"],
    ]);
    assert.equal(tokensOf(later, 3).length, 11);
  });
});
