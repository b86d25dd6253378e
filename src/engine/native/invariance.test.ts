/**
 * The promise behind a seed, over the real kernels: a request's tokens and logprobs are the same to the last bit alone,
 * in a full batch, however its prompt is chunked, and with a part of it found in the prefix cache.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { Engine } from "#engine/engine.ts";
import { type Batch, type Kernel, KernelError } from "#engine/kernel.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import type { TokenReport } from "#engine/report.ts";
import type { Submission } from "#engine/requests.ts";
import type { SpeculationOptions } from "#engine/speculation/proposer.ts";
import { writeModel } from "../../../test/fixtures/gguf.ts";
import { openNativeKernel } from "./kernel.ts";

const directory = mkdtempSync(join(tmpdir(), "castellan-invariance-"));
const [quantised, halves] = [join(directory, "q8.gguf"), join(directory, "f16.gguf")];
writeModel(quantised, { weights: "q8_0", context: 1024, seed: 3 });
writeModel(halves, { weights: "f16", context: 1024, seed: 3 });
const hasher = await createBlockHasher("sha256");

interface Setting {
  readonly maxSequences: number;
  readonly maxBatchTokens: number;
  readonly threads?: number;
  readonly caching?: boolean;
  readonly modelPath?: string;
  readonly wrap?: (kernel: Kernel) => Kernel;
  readonly speculation?: SpeculationOptions;
}

async function engineOf({
  maxSequences,
  maxBatchTokens,
  threads = 1,
  caching = true,
  modelPath = quantised,
  wrap = (kernel) => kernel,
  speculation,
}: Setting): Promise<Engine> {
  const contextPerSlot = 768;
  const open = (path: string) =>
    openNativeKernel({ modelPath: path, contextPerSlot, maxSequences, maxBatchTokens, threads, gpuLayers: 0 });
  const kernel = await open(modelPath);
  const limits = {
    maxNumSeqs: maxSequences,
    maxNumBatchedTokens: maxBatchTokens,
    contextLength: contextPerSlot,
    schedulingPolicy: "fcfs" as const,
    prefixCache: { ...NO_PREFIX_CACHE, enabled: caching },
    ...(speculation === undefined ? {} : { speculation }),
  };
  return new Engine(
    wrap(kernel),
    limits,
    hasher,
    speculation?.method === "draft_model" ? { draft: await open(modelPath) } : {},
  );
}

const text = (length: number, seed: number): number[] =>
  Array.from({ length }, (_, i) => (i * 31 + seed * 101 + ((i * i) % 17)) % 400);

function submission(request: number, prompt: readonly number[], maxTokens = 12): Submission {
  const sampling = { ...NEUTRAL_SAMPLING, temperature: 1, seed: request, ignoreEos: true, maxTokens, logprobs: 2 };
  return { request, prompt: Int32Array.from(prompt), sampling, samples: 1, priority: 0 };
}

/** Runs all to their ends; a submission joins every `every` steps. What each request got. */
function run(engine: Engine, submissions: readonly Submission[], every = 0): Map<number, TokenReport[]> {
  const got = new Map<number, TokenReport[]>();
  const waiting = [...submissions];
  for (let step = 0; step < 5000; step++) {
    while (waiting.length > 0 && (every === 0 || step % every === 0)) {
      engine.submit(waiting.shift() as Submission);
      if (every > 0) break;
    }
    const report = engine.step();
    if (report === undefined && waiting.length === 0) return got;
    engine.checkIntegrity();
    for (const token of report?.tokens ?? []) got.set(token.request, [...(got.get(token.request) ?? []), token]);
  }
  throw new Error("the engine did not become idle");
}

/** Half of them greedy; of few tokens many guesses come true, also of a model with random weights. */
const guessable = ({ request, prompt }: Submission, few: boolean): Submission => {
  const asked = submission(request, [...prompt], 40);
  const allowed = few ? { allowedTokenIds: [5, 6, 7] } : {};
  return { ...asked, sampling: { ...asked.sampling, temperature: request % 2, ...allowed } };
};

const LENGTHS = [1, 2, 63, 64, 65, 100, 127, 128, 130, 200, 255, 256, 257, 320, 400, 513, 600];
const all = LENGTHS.map((length, number) => submission(number, text(length, number)));

test("alone, in company, in small and large steps: the same tokens and logprobs", async () => {
  const alone = new Map<number, TokenReport[]>();
  const solo = await engineOf({ maxSequences: 2, maxBatchTokens: 2048, caching: false });
  for (const one of all) for (const [request, tokens] of run(solo, [one])) alone.set(request, tokens);
  solo.close();
  for (const [setting, every] of [
    [{ maxSequences: 20, maxBatchTokens: 2048 }, 0],
    [{ maxSequences: 20, maxBatchTokens: 2048 }, 3],
    [{ maxSequences: 5, maxBatchTokens: 100 }, 2],
  ] as const) {
    const engine = await engineOf(setting);
    assert.deepEqual(run(engine, all, every), alone);
    engine.close();
  }
});

test("with a prefix found in the cache, by copy and in place: the same tokens and logprobs", async () => {
  const shared = text(300, 50);
  const asked = [0, 1, 2, 3, 4].map((n) =>
    submission(100 + n, [...shared.slice(0, 300 - n * 40), ...text(20 + n * 30, n)]),
  );
  const cold = await engineOf({ maxSequences: 2, maxBatchTokens: 512, caching: false });
  const warm = await engineOf({ maxSequences: 4, maxBatchTokens: 512 });
  run(warm, [submission(1, shared), submission(2, text(80, 9))]);
  for (const one of [...asked, ...asked.toReversed()]) {
    assert.deepEqual(run(warm, [one]), run(cold, [one]));
  }
  assert.deepEqual(run(warm, asked, 2), new Map(asked.flatMap((one) => [...run(cold, [one])])));
  assert.ok(warm.gauges.prefixHits > 1500, `${warm.gauges.prefixHits} tokens were found`);
  cold.close();
  warm.close();
});

test("with a prefix found that ends at any token, in the body and in the rest: the same tokens and logprobs", async () => {
  const source = text(256, 61);
  const cold = await engineOf({ maxSequences: 2, maxBatchTokens: 512, caching: false });
  const warm = await engineOf({ maxSequences: 2, maxBatchTokens: 512 });
  let found = 0;
  // As long as the source, so that what both compute by itself is shared too; shorter; and longer.
  for (const length of [256, 230, 300]) {
    for (let shared = 130; shared < Math.min(length, 256); shared += length === 256 ? 1 : 5) {
      const one = submission(7, [...source.slice(0, shared), ...text(length - shared, 70 + shared)], 2);
      warm.resetPrefixCache();
      run(warm, [submission(1, source, 1)]);
      const before = warm.gauges.prefixHits;
      assert.deepEqual(run(warm, [one]), run(cold, [one]), `${shared} of ${length} tokens are shared`);
      found += Number(warm.gauges.prefixHits - before === shared);
    }
  }
  // 63 of the first length, 8 and 19: where 1 to 63 tokens of the body would be left, a block is computed again.
  assert.equal(found, 63 + 8 + 19, "so many were found to the last token");
  cold.close();
  warm.close();
});

test("two threads, which share the tiles of a block out: what is left of a body may begin anywhere", async () => {
  const source = text(512, 62);
  const two = { maxSequences: 2, maxBatchTokens: 512, threads: 2 };
  const [cold, warm] = [await engineOf({ ...two, caching: false }), await engineOf(two)];
  for (const shared of [131, 222, 317]) {
    const one = submission(8, [...source.slice(0, shared), ...text(450 - shared, shared)], 2);
    run(warm, [submission(1, source, 1)]);
    assert.deepEqual(run(warm, [one]), run(cold, [one]), `${shared} tokens are shared`);
  }
  cold.close();
  warm.close();
});

test("with an answer taken over that was computed as this prompt's rest is: the same tokens and logprobs", async () => {
  // 193 to 224 tokens have 192 in blocks: a prompt of 200 and its answer, asked about once more.
  const cold = await engineOf({ maxSequences: 2, maxBatchTokens: 512, caching: false });
  const warm = await engineOf({ maxSequences: 2, maxBatchTokens: 512 });
  const prompt = text(200, 81);
  const answer = (run(warm, [submission(1, prompt, 12)]).get(1) ?? []).map(({ token }) => token);
  const one = submission(2, [...prompt, ...answer, 5, 6, 7]);
  const before = warm.gauges.prefixHits;
  assert.deepEqual(run(warm, [one]), run(cold, [one]));
  assert.equal(warm.gauges.prefixHits - before, 211, "all but the last token of the answer, which was never computed");
  cold.close();
  warm.close();
});

test("eight samples of one prompt: each as if it were asked for alone", async () => {
  const prompt = text(300, 91);
  const together = await engineOf({ maxSequences: 8, maxBatchTokens: 512 });
  const alone = await engineOf({ maxSequences: 2, maxBatchTokens: 512, caching: false });
  const tokens = run(together, [{ ...submission(40, prompt), samples: 8 }]).get(40) ?? [];
  for (let sample = 0; sample < 8; sample++) {
    const one = submission(40, prompt);
    const own = run(alone, [{ ...one, sampling: { ...one.sampling, seed: 40 + sample } }]).get(40);
    const got = tokens.filter((token) => token.sample === sample).map((token) => ({ ...token, sample: 0 }));
    assert.deepEqual(got, own);
  }
  alone.close();
  together.close();
});

/** Says that it is full at these forwards of several slots: the last in line gives way and is computed again later. */
function fullAt(kernel: Kernel, forwards: readonly number[]): Kernel {
  let count = 0;
  return new Proxy(kernel, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (name !== "forward") return typeof value === "function" ? value.bind(target) : value;
      return (batch: Batch) => {
        const several = batch.slots[0] !== batch.slots[batch.count - 1];
        if (several && forwards.includes(++count)) throw new KernelError("full", "no cells are left, says the test");
        return target.forward(batch);
      };
    },
  });
}

test("preempted in the middle of prompts and of answers: the same tokens and logprobs", async () => {
  const some = all.filter((_, at) => at % 2 === 0);
  const solo = await engineOf({ maxSequences: 2, maxBatchTokens: 2048, caching: false });
  const alone = new Map(some.flatMap((one) => [...run(solo, [one])]));
  solo.close();
  for (const caching of [false, true]) {
    // Every third forward fails, so that several give way in a row: prompts in chunks, answers of one token and of ten.
    const wrap = (kernel: Kernel) =>
      fullAt(
        kernel,
        Array.from({ length: 20 }, (_, at) => 2 + at * 3),
      );
    const engine = await engineOf({ maxSequences: 6, maxBatchTokens: 150, caching, wrap });
    assert.deepEqual(run(engine, some, 2), alone);
    assert.ok(engine.gauges.preemptions >= 5, `${engine.gauges.preemptions} were preempted`);
    engine.close();
  }
});

test("a full batch of 32, sampled at temperature 1 and with cuts: the same tokens and logprobs as alone", async () => {
  const kinds = [{}, { topP: 0.8 }, { topK: 20, minP: 0.02 }, { repetitionPenalty: 1.3, presencePenalty: 0.4 }];
  const batch = Array.from({ length: 32 }, (_, number): Submission => {
    const one = submission(1000 + number, text(1 + ((number * 37) % 140), number), 24);
    return { ...one, sampling: { ...one.sampling, ...kinds[number % kinds.length] } };
  });
  const solo = await engineOf({ maxSequences: 2, maxBatchTokens: 2048, caching: false });
  const full = await engineOf({ maxSequences: 32, maxBatchTokens: 2048 });
  const together = run(full, batch);
  for (const one of batch) assert.deepEqual(together.get(one.request), run(solo, [one]).get(one.request));
  assert.equal(full.gauges.steps < 40, true, "they ran together");
  solo.close();
  full.close();
});

test("with guesses of the text's own and of a draft model: the same tokens and logprobs", async () => {
  const plain = await engineOf({ maxSequences: 4, maxBatchTokens: 512, caching: false });
  for (const method of ["ngram", "draft_model"] as const) {
    const asked = all.slice(1).map((one) => guessable(one, method === "ngram"));
    const speculation = { method, tokens: 4, lookupMax: 3, lookupMin: 1 };
    const engine = await engineOf({ maxSequences: 4, maxBatchTokens: 512, speculation });
    assert.deepEqual(run(engine, asked), run(plain, asked));
    const { drafts, acceptedTokens } = engine.gauges;
    // Not all of them, or nothing would have been taken back.
    assert.ok((acceptedTokens[0] ?? 0) > 0 && (acceptedTokens[0] ?? 0) < drafts, `${method}: ${acceptedTokens}`);
    engine.close();
  }
  plain.close();
});

test("two threads: a long sequence alone and beside another", async () => {
  const one = submission(7, text(300, 7), 5);
  const results: (TokenReport[] | undefined)[] = [];
  for (const count of [1, 2]) {
    const engine = await engineOf({ maxSequences: 3, maxBatchTokens: 512, threads: 2, caching: false });
    const got = run(engine, count === 1 ? [one] : [one, submission(8, text(310, 8), 5)]);
    engine.close();
    results.push(got.get(7));
  }
  assert.deepEqual(results[1], results[0]);
});

test("weights in half precision: logprobs to a hundredth", async () => {
  // ggml multiplies halves in tiles whose shape follows the number of rows, so the last bits differ, and more later on.
  const modelPath = halves;
  const solo = await engineOf({ maxSequences: 2, maxBatchTokens: 2048, caching: false, modelPath });
  const full = await engineOf({ maxSequences: 20, maxBatchTokens: 2048, modelPath });
  const together = run(full, all, 2);
  for (const one of all) {
    const alone = run(solo, [one]).get(one.request) ?? [];
    const beside = together.get(one.request) ?? [];
    // Two tokens may be as good as equal: from where they part, nothing can be compared.
    const parted = alone.findIndex(({ token }, at) => token !== beside[at]?.token);
    for (const [at, { logprobs }] of alone.slice(0, parted < 0 ? undefined : parted).entries()) {
      const difference = (logprobs?.chosen.logprob ?? 0) - (beside[at]?.logprobs?.chosen.logprob ?? 1);
      assert.ok(Math.abs(difference) < 1e-2, `${difference}`);
    }
  }
  solo.close();
  full.close();
});

test("beside slots that are full to the last cell: what they keep goes, and the numbers stay", async () => {
  const full = (request: number): Submission => {
    const asked = submission(request, text(768, request), 1);
    return { ...asked, sampling: { ...asked.sampling, maxTokens: 0 } };
  };
  const one = submission(70, text(300, 7), 8);
  const solo = await engineOf({ maxSequences: 2, maxBatchTokens: 2048, caching: false });
  const crowded = await engineOf({ maxSequences: 2, maxBatchTokens: 2048 });
  run(crowded, [full(60), full(61)]);
  assert.deepEqual(run(crowded, [one]), run(solo, [one]));
  assert.ok(crowded.gauges.generationTokens > 0);
  solo.close();
  crowded.close();
});
