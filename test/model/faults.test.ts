/**
 * A kernel that fails once, at every call of a whole run in turn, and in every way: whoever was in the failed forward may
 * fail, everybody else gets the tokens that they get alone, and the engine's books agree with the kernel after each step.
 *
 * What no kernel should throw ends the process; launcher.test.ts shows that its supervisor survives that.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { Engine } from "#engine/engine.ts";
import { FAKE_LIMITS, FakeKernel } from "#engine/fake.ts";
import type { KernelErrorCode } from "#engine/kernel.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import type { Submission } from "#engine/requests.ts";
import { DIGITS } from "./alone.ts";
import { type FaultyCall, FaultyKernel } from "./faulty-kernel.ts";
import { Witness } from "./witness.ts";

const hasher = await createBlockHasher("sha256", "faults");
const CONTEXT = 96;
const GREEDY = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true };

/** Prompts that share, samples, grammar, prompt logprobs; [step at which it comes, submission]. */
const SCRIPT: readonly (readonly [number, Submission])[] = (
  [
    [0, 30, {}, 2],
    [0, 5, { temperature: 1, seed: 4 }, 1],
    [1, 40, { constraint: DIGITS }, 1],
    [1, 40, { promptLogprobs: 1 }, 2],
    [3, 44, { temperature: 1, seed: 9 }, 3],
    [6, 1, {}, 1],
    [7, 36, { minTokens: 2, stopTokenIds: [9] }, 1],
    [12, 60, {}, 1],
    [14, 33, {}, 2],
  ] as const
).map(([step, length, changes, samples], request) => {
  const sampling: SamplingParams = { ...GREEDY, maxTokens: 6 + (request % 4) * 3, ...changes };
  const prompt = Int32Array.from({ length }, (_, at) => (at < 24 ? (at * 5) % 60 : (at + request * 3) % 60));
  return [step, { request, prompt, sampling, samples, priority: 0 }];
});
const [ABORTED, ABORTED_AT] = [4, 9];

interface Run {
  readonly kernel: FaultyKernel;
  readonly failed: number;
}

/** Runs the script to its end. @param at the call that fails, from 1 */
function run(prefillBlock: number, cells: number, at: number, code: KernelErrorCode): Run {
  let struck: FaultyCall | undefined;
  const inner = new FakeKernel({ maxSequences: 6, maxBatchTokens: 24, contextPerSlot: CONTEXT, prefillBlock, cells });
  const kernel = new FaultyKernel(inner, (call, number) => {
    if (number !== at) return undefined;
    struck = call;
    return code;
  });
  const limits = {
    maxNumSeqs: 6,
    maxNumBatchedTokens: 24,
    contextLength: CONTEXT,
    schedulingPolicy: "fcfs" as const,
    prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
  };
  const engine = new Engine(kernel, limits, hasher);
  const witness = new Witness(engine, { ...FAKE_LIMITS, prefillBlock }, CONTEXT);
  for (let step = 0; step < 400; step++) {
    for (const [when, submission] of SCRIPT) if (when === step) witness.submit(submission, step);
    if (step === ABORTED_AT) witness.abort(ABORTED);
    const before = struck;
    const report = engine.step();
    engine.checkIntegrity();
    // Room is made where there is none, so only a broken forward costs a request; or one that runs alone and is told
    // that there is no room for it.
    const room = code === "full" && engine.gauges.running > 0;
    const mayFail = before === undefined && struck === "forward" && !room;
    if (report !== undefined) witness.read(report, () => mayFail);
    else if (step > 14) break;
  }
  assert.deepEqual(witness.open(), [], "nobody is forgotten");
  assert.deepEqual([engine.openRequests, engine.gauges.running, engine.gauges.waiting], [0, 0, 0]);
  const failed = [...witness.requests.values()].filter(({ state }) => state === "failed").length;
  if (struck === "forward" && code !== "full") assert.ok(failed > 0, "a broken forward is said");
  return { kernel, failed };
}

for (const [prefillBlock, cells] of [
  [1, Infinity],
  [8, Infinity],
  [1, 130],
] as const) {
  test(`a fault at every call of a run, prefill blocks of ${prefillBlock}, ${cells} cells`, () => {
    const { calls } = run(prefillBlock, cells, 0, "failed").kernel;
    for (const call of ["forward", "copy", "truncate"] as const) assert.ok(calls.includes(call), `no ${call} at all`);
    for (const code of ["full", "failed", "invalid"] as const)
      for (let at = 1; at <= calls.length; at++) run(prefillBlock, cells, at, code);
  });
}

test("a slot that cannot even be cleared ends the engine: its process is started again", () => {
  const kernel = new FaultyKernel(new FakeKernel(), (call) => (call === "truncate" ? "failed" : undefined));
  const limits = {
    maxNumSeqs: 4,
    maxNumBatchedTokens: 24,
    contextLength: CONTEXT,
    schedulingPolicy: "fcfs" as const,
    prefixCache: NO_PREFIX_CACHE,
  };
  const engine = new Engine(kernel, limits, hasher);
  engine.submit({
    request: 1,
    prompt: Int32Array.of(5),
    sampling: { ...GREEDY, maxTokens: 1 },
    samples: 1,
    priority: 0,
  });
  assert.throws(() => engine.step(), { name: "KernelError", code: "failed" });
});
