import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { EngineLimits } from "#engine/engine.ts";
import type { StepReport } from "#engine/report.ts";
import { CLASSIFIES, EMBEDS, LIMITS, poolRequest } from "./_fixture.ts";
import { PoolingEngine } from "./engine.ts";
import { FakePoolingKernel, type FakePoolingScript } from "./fake.ts";
import type { PoolSubmission } from "./submission.ts";

function setUp(script: FakePoolingScript = {}, limits: Partial<EngineLimits> = {}) {
  const kernel = new FakePoolingKernel(script);
  let clock = 0;
  const engine = new PoolingEngine(kernel, { ...LIMITS, ...limits }, () => clock++);
  return { kernel, engine };
}

function submission(request: number, inputs: readonly (readonly number[])[], changes: Partial<PoolSubmission> = {}) {
  const { id: _, ...asked } = poolRequest(inputs);
  return { request, info: EMBEDS, ...asked, ...changes };
}

/** Steps until nothing is left; bounded. */
function drain(engine: PoolingEngine): StepReport[] {
  const reports: StepReport[] = [];
  for (let i = 0; i < 1000; i++) {
    const report = engine.step();
    if (report === undefined) return reports;
    reports.push(report);
  }
  return assert.fail("it does not come to an end");
}

const said = (reports: readonly StepReport[]): string[] =>
  reports.flatMap(({ pooled }) => pooled.map(({ request, sample }) => `${request}.${sample}`));
const failed = (reports: readonly StepReport[]): number[] =>
  reports.flatMap(({ failures }) => failures.map(({ request }) => request));

test("sequences of several requests share a batch; a long request takes several", () => {
  const { engine, kernel } = setUp();
  engine.pool(submission(1, [[1, 2], [3]]));
  engine.pool(submission(2, new Array(9).fill([4, 5])));
  assert.deepEqual({ running: 8, waiting: 3 }, { running: engine.gauges.running, waiting: engine.gauges.waiting });
  const reports = drain(engine);
  assert.deepEqual(kernel.calls, [8, 3]);
  assert.equal(said(reports).length, 11);
  assert.deepEqual(said(reports).slice(0, 3), ["1.0", "1.1", "2.0"]);
  assert.deepEqual(
    { steps: 2, promptTokens: 21 },
    { steps: engine.gauges.steps, promptTokens: engine.gauges.promptTokens },
  );
  assert.equal(engine.step(), undefined);
});

const share = (key: string, weight = 1): Partial<PoolSubmission> => ({ share: { key, weight } });
/** How many of a batch's sequences belong to which request. */
const parts = (report: StepReport | undefined): Record<number, number> => {
  const count: Record<number, number> = {};
  for (const { request } of report?.pooled ?? []) count[request] = (count[request] ?? 0) + 1;
  return count;
};

test("a share that comes later is served beside one that has much to do, by weight", () => {
  const { engine } = setUp();
  engine.pool(submission(1, new Array(40).fill([1]), share("a")));
  engine.pool(submission(2, new Array(40).fill([1]), share("a")));
  assert.deepEqual(parts(engine.step()), { 1: 8 });
  engine.pool(submission(3, new Array(40).fill([1]), share("b")));
  assert.deepEqual(parts(engine.step()), { 1: 4, 3: 4 });
  engine.pool(submission(4, new Array(40).fill([1]), share("c", 2)));
  assert.deepEqual(parts(engine.step()), { 1: 2, 3: 2, 4: 4 });
  engine.checkIntegrity();
});

test("a share that ran ahead keeps its debt", () => {
  const { engine } = setUp();
  engine.pool(submission(1, [new Array(60).fill(1)], share("b")));
  engine.pool(submission(2, new Array(40).fill([1]), share("a")));
  assert.deepEqual(parts(engine.step()), { 1: 1, 2: 4 });
  engine.pool(submission(3, new Array(12).fill([1]), share("b")));
  assert.deepEqual(parts(engine.step()), { 2: 8 });
  engine.checkIntegrity();
});

test("longer inputs cost a share more", () => {
  const { engine } = setUp({}, { maxNumBatchedTokens: 64 });
  engine.pool(submission(1, new Array(40).fill([1, 1, 1, 1]), share("a")));
  engine.pool(submission(2, new Array(40).fill([1]), share("b")));
  const { 1: long = 0, 2: short = 0 } = parts(engine.step());
  assert.ok(short >= 3 * long, `${short} short ones beside ${long} long ones`);
});

test("a batch keeps to its tokens, and a sequence of full length always fits one", () => {
  const { engine, kernel } = setUp({}, { maxNumBatchedTokens: 10 });
  engine.pool(submission(1, [new Array(64).fill(1), [2], [3]]));
  engine.pool(submission(2, [new Array(63).fill(4), [5, 6]]));
  drain(engine);
  assert.deepEqual(kernel.calls, [1, 2, 1, 1]);
});

test("vectors of tokens and of sequences are computed in batches of their own; the first in line is served", () => {
  const { engine, kernel } = setUp();
  engine.pool(submission(1, [[1]]));
  engine.pool(submission(2, [[2, 3]], { task: "token_embed" }));
  engine.pool(submission(3, [[4]]));
  const reports = drain(engine);
  assert.deepEqual(kernel.calls, [2, 1]);
  assert.deepEqual(said(reports), ["1.0", "3.0", "2.0"]);
  assert.equal(reports[1]?.pooled[0]?.output.rows, 2);
});

test("priority goes first where the policy says so, in order of arrival among equals", () => {
  for (const [policy, expected] of [
    ["fcfs", ["1.0", "2.0", "3.0", "4.0"]],
    ["priority", ["3.0", "2.0", "4.0", "1.0"]],
  ] as const) {
    const { engine } = setUp({}, { maxNumSeqs: 1, schedulingPolicy: policy });
    [5, 0, -1, 0].forEach((priority, at) => {
      engine.pool(submission(at + 1, [[at]], { priority }));
    });
    assert.deepEqual(said(drain(engine)), expected);
  }
});

test("what cannot run is refused by itself", () => {
  const { engine } = setUp();
  engine.pool(submission(1, [[1], []]));
  engine.pool(submission(2, [[64]]));
  engine.pool(submission(3, [[-1]]));
  engine.pool(submission(4, [new Array(65).fill(1)]));
  engine.pool(submission(5, []));
  engine.pool(submission(6, [[1]]));
  engine.pool(submission(6, [[2]]));
  const reports = drain(engine);
  assert.deepEqual(failed(reports), [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(said(reports), ["6.0"]);
});

test("a sequence that goes wrong fails its own request and no other", () => {
  for (const fault of ["failed", "nan"] as const) {
    const { engine } = setUp({ poison: { token: 13, fault } });
    engine.pool(submission(1, [[1], [2]]));
    engine.pool(submission(2, [[3], [13], [4]]));
    engine.pool(submission(3, [[5]]));
    const reports = drain(engine);
    assert.deepEqual(failed(reports), [2]);
    const others = said(reports).filter((one) => !one.startsWith("2."));
    assert.deepEqual(others, ["1.0", "1.1", "3.0"]);
    assert.deepEqual({ running: 0, waiting: 0 }, { running: engine.gauges.running, waiting: engine.gauges.waiting });
  }
});

test("an aborted request is not heard of again", () => {
  const { engine } = setUp({}, { maxNumSeqs: 2 });
  engine.pool(submission(1, [[1], [2], [3]]));
  engine.pool(submission(2, [[4]]));
  const first = engine.step();
  assert.deepEqual(said([first as StepReport]), ["1.0", "1.1"]);
  engine.abort(1);
  engine.abort(99);
  assert.deepEqual(said(drain(engine)), ["2.0"]);
  engine.pool(submission(1, [[1]]));
  assert.deepEqual(said(drain(engine)), ["1.0"]);
});

test("the numbers are those of the tokens alone, whoever else was there", () => {
  const inputs = fc.array(fc.array(fc.nat(63), { minLength: 1, maxLength: 64 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(fc.array(inputs, { minLength: 1, maxLength: 6 }), (requests) => {
      const { engine } = setUp({ type: "rank", width: 3 });
      const task = { task: "classify", info: CLASSIFIES, useActivation: false } as const;
      requests.forEach((each, at) => {
        engine.pool(submission(at, each, task));
      });
      const reports = drain(engine);
      assert.equal(said(reports).length, requests.flat().length);
      for (const { request, sample, output } of reports.flatMap(({ pooled }) => pooled)) {
        const tokens = Int32Array.from(requests[request]?.[sample] ?? []);
        assert.deepEqual(
          output.values,
          new FakePoolingKernel({ type: "rank", width: 3 }).pool([tokens], "sequence")[0],
        );
      }
    }),
    { numRuns: 60 },
  );
});
