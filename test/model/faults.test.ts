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
import { KernelError, type KernelErrorCode } from "#engine/kernel.ts";
import { EMBEDS, LIMITS as POOLING_LIMITS } from "#engine/pooling/_fixture.ts";
import { PoolingEngine } from "#engine/pooling/engine.ts";
import { FakePoolingKernel } from "#engine/pooling/fake.ts";
import { finish } from "#engine/pooling/finish.ts";
import type { PoolingOutput } from "#engine/pooling/kernel.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import type { Submission } from "#engine/requests.ts";
import type { SpeculationOptions } from "#engine/speculation/proposer.ts";
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

/** The same under adapters and in shares, in turn. */
const MIXED: typeof SCRIPT = SCRIPT.map(([step, submission]) => {
  const number = submission.request % 3;
  const adapter = number === 0 ? {} : { adapter: { number, name: `adapter ${number}` } };
  return [step, { ...submission, ...adapter, share: { key: String(submission.request % 2), weight: 1 + number } }];
});
const GUESSES: SpeculationOptions = { method: "ngram", tokens: 4, lookupMax: 2, lookupMin: 1 };

interface Setting {
  readonly script: typeof SCRIPT;
  readonly slots: number;
  readonly prefillBlock: number;
  readonly cells: number;
  readonly spills: boolean;
  readonly speculation?: SpeculationOptions;
}

const USUAL: Setting = { script: SCRIPT, slots: 6, prefillBlock: 1, cells: Infinity, spills: false };

interface Run {
  readonly kernel: FaultyKernel;
  readonly failed: number;
}

/** Runs the script to its end. @param at the call that fails, from 1 */
function run(setting: Setting, at: number, code: KernelErrorCode): Run {
  const { script, slots, prefillBlock, cells, spills, speculation } = setting;
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
    ...(speculation === undefined ? {} : { speculation }),
    maxAdapters: 2,
  };
  const engine = new Engine(kernel, limits, hasher);
  for (const adapter of [1, 2]) engine.loadAdapter(adapter, "adapter");
  const witness = new Witness(engine, { ...FAKE_LIMITS, prefillBlock }, CONTEXT, speculation?.tokens);
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
  ["adapters and shares", { ...USUAL, script: MIXED }, ["forward", "copy", "truncate"]],
  ["guesses", { ...USUAL, script: MIXED, speculation: GUESSES }, ["forward", "copy", "truncate"]],
  ["spilled prefixes", { ...USUAL, script: RETURNING, slots: 3, spills: true }, ["forward", "save", "restore"]],
] as const) {
  test(`a fault at every call of a run: ${name}`, () => {
    const { calls } = run(setting, 0, "failed").kernel;
    for (const call of expected) assert.ok(calls.includes(call), `no ${call} at all`);
    for (const code of ["full", "failed", "invalid"] as const)
      for (let at = 1; at <= calls.length; at++) run(setting, at, code);
  });
}

test("a fault at every call of the model that guesses costs nobody anything", () => {
  const submit = (engine: Engine, witness: Witness): number => {
    const failed: number[] = [];
    for (let step = 0; step < 400; step++) {
      for (const [when, submission] of SCRIPT) if (when === step) witness.submit(submission, step);
      const report = engine.step();
      engine.checkIntegrity();
      if (report === undefined && step > (SCRIPT.at(-1)?.[0] ?? 0)) break;
      if (report === undefined) continue;
      witness.read(report, () => false);
      failed.push(...report.failures.map(({ request }) => request));
    }
    assert.deepEqual(witness.open(), []);
    return failed.length;
  };
  const guessed = (at: number, code: KernelErrorCode): readonly FaultyCall[] => {
    const small = { maxSequences: 6, maxBatchTokens: 24, contextPerSlot: CONTEXT };
    const draft = new FaultyKernel(new FakeKernel(small), (_, number) => (number === at ? code : undefined));
    const limits = {
      maxNumSeqs: 6,
      maxNumBatchedTokens: 24,
      contextLength: CONTEXT,
      schedulingPolicy: "fcfs" as const,
      prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
      speculation: { ...GUESSES, method: "draft_model" as const },
    };
    const engine = new Engine(new FakeKernel(small), limits, hasher, { draft });
    assert.equal(submit(engine, new Witness(engine, FAKE_LIMITS, CONTEXT, GUESSES.tokens)), 0);
    assert.ok(engine.gauges.drafts > 0);
    // What could not be cleared is cleared for the next one in that slot.
    const kept = draft.calls[at - 1] === "truncate" ? 1 : 0;
    const full = [0, 1, 2, 3, 4, 5].filter((slot) => draft.length(slot) > 0);
    assert.ok(full.length <= kept, `${full} stay in the draft model`);
    engine.close();
    return draft.calls;
  };
  const calls = guessed(0, "failed");
  assert.ok(calls.includes("forward") && calls.includes("truncate"));
  for (const code of ["full", "failed", "invalid"] as const)
    for (let at = 1; at <= calls.length; at++) guessed(at, code);
});

/** A pooling kernel that fails once, at a call. */
class FaultyPooling extends FakePoolingKernel {
  readonly at: number;
  readonly code: KernelErrorCode;
  broke: readonly string[] = [];

  constructor(at: number, code: KernelErrorCode) {
    super({ maxSequences: 4 });
    this.at = at;
    this.code = code;
  }

  override pool(sequences: readonly Int32Array[], output: PoolingOutput): readonly Float32Array[] {
    const rows = super.pool(sequences, output);
    if (this.calls.length !== this.at) return rows;
    this.broke = sequences.map((tokens) => tokens.join());
    throw new KernelError(this.code, "scripted");
  }
}

test("a fault at every call of a run that pools: only who was alone in the call fails", () => {
  const inputs = Array.from({ length: 24 }, (_, at) => Int32Array.from({ length: 1 + (at % 7) }, (_, i) => at + i));
  const requests = [1, 2, 3, 1, 4, 1, 5, 7].map((count, at) => inputs.slice(at * 2, at * 2 + count));
  const pooled = (at: number, code: KernelErrorCode): number => {
    const kernel = new FaultyPooling(at, code);
    const engine = new PoolingEngine(kernel, POOLING_LIMITS);
    const got = new Map<number, number>();
    const failed: number[] = [];
    for (let step = 0; step < 60; step++) {
      const asked = requests[step];
      const task = step % 3 === 2 ? "token_embed" : "embed";
      if (asked !== undefined) engine.pool({ request: step, task, inputs: asked, priority: 0, info: EMBEDS });
      if (step === 6) engine.abort(5);
      engine.checkIntegrity();
      const report = engine.step();
      engine.checkIntegrity();
      for (const { request, sample, output } of report?.pooled ?? []) {
        const tokens = requests[request]?.[sample] as Int32Array;
        const alone = new FakePoolingKernel().pool([tokens], request % 3 === 2 ? "tokens" : "sequence")[0];
        assert.deepEqual(output.values, finish(alone as Float32Array, 8, { task: "embed" }, EMBEDS)?.values);
        got.set(request, (got.get(request) ?? 0) + 1);
      }
      failed.push(...(report?.failures ?? []).map(({ request }) => request));
    }
    const lonely = kernel.broke.length === 1;
    assert.ok(failed.length === 0 || (lonely && failed.length === 1), `${failed} of ${kernel.broke}`);
    requests.forEach((asked, request) => {
      if (request !== 5 && !failed.includes(request)) assert.equal(got.get(request), asked.length);
    });
    assert.deepEqual([engine.gauges.running, engine.gauges.waiting], [0, 0]);
    engine.close();
    return kernel.calls.length;
  };
  const calls = pooled(0, "failed");
  assert.ok(calls > 8);
  for (const code of ["full", "failed", "invalid"] as const) for (let at = 1; at <= calls; at++) pooled(at, code);
});

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
