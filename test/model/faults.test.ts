/**
 * A kernel that fails once, at every call of a whole run in turn, and in every way: whoever was in the failed forward may
 * fail, everybody else gets the tokens that they get alone, and the engine's books agree with the kernel after each step.
 *
 * What no kernel should throw ends the process; launcher.test.ts shows that its supervisor survives that.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
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
const directory = mkdtempSync(join(tmpdir(), "castellan-faults-"));
after(() => rmSync(directory, { recursive: true }));
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

/** Five texts through three slots, twice: what was driven out comes back from the disk. */
const RETURNING: typeof SCRIPT = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4].map((own, request) => {
  const sampling = { ...GREEDY, temperature: own % 2, seed: request, maxTokens: 3 };
  const prompt = Int32Array.from({ length: 76 + own }, (_, at) => (at * (own + 3) + own) % 60);
  return [request * 8, { request, prompt, sampling, samples: 1, priority: 0 }];
});

interface Setting {
  readonly script: typeof SCRIPT;
  readonly slots: number;
  readonly prefillBlock: number;
  readonly cells: number;
  readonly spills: boolean;
}

const USUAL: Setting = { script: SCRIPT, slots: 6, prefillBlock: 1, cells: Infinity, spills: false };

interface Run {
  readonly kernel: FaultyKernel;
  readonly failed: number;
}

/** Runs the script to its end. @param at the call that fails, from 1 */
function run({ script, slots, prefillBlock, cells, spills }: Setting, at: number, code: KernelErrorCode): Run {
  let struck: FaultyCall | undefined;
  const inner = new FakeKernel({
    maxSequences: slots,
    maxBatchTokens: 24,
    contextPerSlot: CONTEXT,
    prefillBlock,
    cells,
  });
  const kernel = new FaultyKernel(inner, (call, number) => {
    if (number !== at) return undefined;
    struck = call;
    return code;
  });
  const limits = {
    maxNumSeqs: slots,
    maxNumBatchedTokens: 24,
    contextLength: CONTEXT,
    schedulingPolicy: "fcfs" as const,
    prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
    ...(spills ? { spill: { directory, maxBytes: 1 << 20 } } : {}),
  };
  const engine = new Engine(kernel, limits, hasher);
  const witness = new Witness(engine, { ...FAKE_LIMITS, prefillBlock }, CONTEXT);
  for (let step = 0; step < 400; step++) {
    for (const [when, submission] of script) if (when === step) witness.submit(submission, step);
    if (step === ABORTED_AT) witness.abort(ABORTED);
    const before = struck;
    const report = engine.step();
    engine.checkIntegrity();
    // Room is made where there is none, so only a broken forward costs a request; or one that runs alone and is told
    // that there is no room for it.
    const room = code === "full" && engine.gauges.running > 0;
    const mayFail = before === undefined && struck === "forward" && !room;
    if (report !== undefined) witness.read(report, () => mayFail);
    else if (step > (script.at(-1)?.[0] ?? 0)) break;
  }
  assert.deepEqual(witness.open(), [], "nobody is forgotten");
  engine.close();
  assert.deepEqual([engine.openRequests, engine.gauges.running, engine.gauges.waiting], [0, 0, 0]);
  const failed = [...witness.requests.values()].filter(({ state }) => state === "failed").length;
  if (struck === "forward" && code !== "full") assert.ok(failed > 0, "a broken forward is said");
  return { kernel, failed };
}

for (const [name, setting, expected] of [
  ["as usual", USUAL, ["forward", "copy", "truncate"]],
  ["prefill blocks of 8", { ...USUAL, prefillBlock: 8 }, ["forward", "copy", "truncate"]],
  ["few cells", { ...USUAL, cells: 130 }, ["forward", "copy", "truncate"]],
  ["spilled prefixes", { ...USUAL, script: RETURNING, slots: 3, spills: true }, ["forward", "save", "restore"]],
] as const) {
  test(`a fault at every call of a run: ${name}`, () => {
    const { calls } = run(setting, 0, "failed").kernel;
    for (const call of expected) assert.ok(calls.includes(call), `no ${call} at all`);
    for (const code of ["full", "failed", "invalid"] as const)
      for (let at = 1; at <= calls.length; at++) run(setting, at, code);
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
