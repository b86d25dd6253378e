/**
 * Pooling over real engine processes: the fake kernel for what goes wrong, libllama for the numbers.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { ModelInfo } from "#core/model.ts";
import type { PoolingInfo, PoolResult } from "#core/pool.ts";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { EngineStartError, startEngine } from "#engine/launcher.ts";
import type { NativePoolingOptions } from "#engine/native/pooling-kernel.ts";
import type { EngineHandle, EngineOptions } from "#engine/options.ts";
import { RANK, WORDS, writeBert } from "../../../test/fixtures/gguf-pooling.ts";
import { CLASSIFIES, EMBEDS, LIMITS, poolRequest } from "./_fixture.ts";
import { type FakePoolingScript, openFakePoolingKernel } from "./fake.ts";

const NEVER = new AbortController().signal;
const POISON = 13;
const engines: EngineHandle[] = [];
after(() => Promise.all(engines.map((engine) => engine.close())));

function model(pooling: PoolingInfo | undefined): ModelInfo {
  const facts = { architecture: "fake", contextLength: 64, trainedContext: 64, vocabularySize: 64 };
  return { ...facts, parameters: 0, createdAt: 0, ...(pooling === undefined ? {} : { pooling }) };
}

async function start(
  script: FakePoolingScript = {},
  changes: Partial<EngineOptions> = {},
  info: PoolingInfo = EMBEDS,
): Promise<EngineHandle> {
  const kernel = { kernel: "fake-pooling", script } as const;
  const engine = await startEngine({ ...LIMITS, model: model(info), kernel, restartAfterMs: 5, ...changes });
  engines.push(engine);
  return engine;
}

async function kindOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return error instanceof Fault ? `${error.kind} ${error.param ?? ""}`.trim() : String(error);
  }
  return "none";
}

/** Waits for a condition, not for a time; fails when it never comes. */
async function until(holds: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 5000; i++) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.fail(`waited in vain: ${what}`);
}

function idle(engine: EngineHandle): boolean {
  const { requests, sequences, paused, timers } = engine.counters();
  const { running, waiting } = engine.stats();
  return requests + sequences + paused + timers + running + waiting === 0;
}

const numbers = ({ outputs }: PoolResult): number[][] => outputs.map(({ values }) => [...values]);

test("many requests at once get their own numbers, counted and timed", async () => {
  const steps: number[] = [];
  const finished: number[] = [];
  const engine = await start(
    { contextPerSlot: 32 },
    {
      onStep: (_, tokens) => steps.push(tokens),
      onSequence: ({ promptTokens, queue, prefill }) => {
        assert.ok(queue >= 0 && prefill >= 0);
        finished.push(promptTokens);
      },
    },
  );
  assert.equal(engine.model.contextLength, 32);
  const requests = Array.from({ length: 100 }, (_, i) => poolRequest([[i % 64, 1, 2], [(i * 7) % 64]]));
  const raw = { useActivation: false };
  const results = await Promise.all(requests.map((request) => engine.pool({ ...request, ...raw }, NEVER)));
  const kernel = openFakePoolingKernel({});
  results.forEach((result, at) => {
    const expected = kernel.pool(requests[at]?.inputs ?? [], "sequence").map((row) => [...row]);
    assert.deepEqual(numbers(result), expected);
    assert.equal(result.promptTokens, 4);
  });
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  assert.equal(engine.stats().promptTokens, 400);
  assert.equal(finished.length, 200);
  assert.equal(sum(finished), 400);
  assert.equal(sum(steps), 400);
  assert.ok(engine.stats().steps < 100, "requests are computed in each other's company");
  await until(() => idle(engine), "nothing is left open");
});

test("bad requests are refused at once, naming the field", async () => {
  const engine = await start({ contextPerSlot: 16 });
  const pool = (...given: Parameters<typeof poolRequest>) => kindOf(engine.pool(poolRequest(...given), NEVER));
  assert.equal(await pool([]), "invalid_request input");
  assert.equal(await pool([[]]), "invalid_request input");
  assert.equal(await pool([[1], []]), "invalid_request input.1");
  assert.equal(await pool([[-1]]), "invalid_request input");
  assert.equal(await pool([[64]]), "invalid_request input");
  assert.equal(await pool([new Array(17).fill(1)]), "invalid_request input");
  assert.equal(await pool([[1]], { task: "classify" }), "invalid_request model");
  for (const dimensions of [0, -1, 1.5, 9, Number.NaN, 4])
    assert.equal(await pool([[1]], { dimensions }), "invalid_request dimensions");
  assert.equal(await pool([[1]], { dimensions: 8 }), "none");
  const generate = async () => {
    const sampling = NEUTRAL_SAMPLING;
    const request = { id: "r", prompt: Int32Array.of(1), sampling, samples: 1, priority: 0 };
    for await (const _ of engine.generate(request, NEVER)) assert.fail("an embedding model generates");
  };
  assert.equal(await kindOf(generate()), "invalid_request model");
  assert.ok(idle(engine));
});

test("options are judged by what the model can do", async () => {
  const some = await start({}, {}, { ...EMBEDS, matryoshka: [2, 4] });
  const ask = (engine: EngineHandle, changes: Parameters<typeof poolRequest>[1]) =>
    kindOf(engine.pool(poolRequest([[1]], changes), NEVER));
  assert.equal(await ask(some, { dimensions: 4 }), "none");
  assert.equal(await ask(some, { dimensions: 3 }), "invalid_request dimensions");
  const head: FakePoolingScript = { type: "rank", width: 3 };
  const softmax = await start(head, {}, { ...CLASSIFIES, head: "softmax" });
  assert.equal(await ask(softmax, { task: "classify" }), "none");
  assert.equal(await ask(softmax, { task: "classify", useActivation: false }), "invalid_request use_activation");
  assert.equal(await ask(softmax, { task: "classify", dimensions: 2 }), "invalid_request dimensions");
  assert.equal(await ask(softmax, { task: "embed" }), "invalid_request model");
  const wide = await start({ width: 1 << 23 }, {}, { ...EMBEDS, embeddingSize: 1 << 23 });
  assert.equal(await kindOf(wide.pool(poolRequest([[1], [2], [3]]), NEVER)), "invalid_request input");
});

test("an aborted request ends at once and takes nothing with it", async () => {
  const engine = await start({}, { maxNumSeqs: 1 });
  const leaving = new AbortController();
  const inputs = Array.from({ length: 50 }, () => [1, 2]);
  const gone = kindOf(engine.pool(poolRequest(inputs), leaving.signal));
  const stays = engine.pool(poolRequest([[3]]), NEVER);
  leaving.abort();
  assert.equal(await gone, "cancelled");
  assert.equal((await stays).outputs.length, 1);
  assert.equal(await kindOf(engine.pool(poolRequest([[1]]), leaving.signal)), "cancelled");
  await until(() => idle(engine), "the aborted request is gone");
  assert.ok(engine.stats().promptTokens < 102);
});

test("the queue is bounded, by inputs", async () => {
  const engine = await start({}, { maxNumQueuedReqs: 3 });
  const three = engine.pool(poolRequest([[1], [2], [3]]), NEVER);
  assert.equal(await kindOf(engine.pool(poolRequest([[4]]), NEVER)), "overloaded");
  await three;
  assert.equal(await kindOf(engine.pool(poolRequest([[1], [2], [3], [4]]), NEVER)), "overloaded");
  assert.equal((await engine.pool(poolRequest([[4]]), NEVER)).outputs.length, 1);
});

test("what the kernel refuses or botches fails one request", async () => {
  for (const fault of ["failed", "nan"] as const) {
    const engine = await start({ poison: { token: POISON, fault } });
    const [bad, good] = await Promise.all([
      kindOf(engine.pool(poolRequest([[1], [POISON]]), NEVER)),
      kindOf(engine.pool(poolRequest([[1], [2]]), NEVER)),
    ]);
    assert.deepEqual([bad, good], ["engine_failed", "none"]);
    await until(() => idle(engine), "nothing is left open");
  }
});

test("a crash fails what was under way; the engine comes back", async () => {
  const engine = await start({ poison: { token: POISON, fault: "crash" } });
  const first = engine.pid;
  const requests = [[[1]], [[POISON]], [[2]]].map((inputs) => kindOf(engine.pool(poolRequest(inputs), NEVER)));
  assert.equal((await Promise.all(requests))[1], "engine_failed");
  assert.equal(await kindOf(engine.pool(poolRequest([[1]]), NEVER)), "engine_unavailable");
  await until(() => engine.state() === "ready", "it is back");
  assert.notEqual(engine.pid, first);
  assert.equal((await engine.pool(poolRequest([[1]]), NEVER)).outputs.length, 1);
  assert.equal(engine.stats().restarts, 1);
  await until(() => idle(engine), "nothing is left open");
});

test("an engine that hangs is ended and started again", async () => {
  const engine = await start({ poison: { token: POISON, fault: "hang" } }, { stallAfterMs: 20, killAfterMs: 20 });
  assert.equal(await kindOf(engine.pool(poolRequest([[POISON]]), NEVER)), "engine_failed");
  await until(() => engine.state() === "ready", "it is back");
  assert.equal((await engine.pool(poolRequest([[1]]), NEVER)).outputs.length, 1);
});

test("closing fails what is open, and a kernel that refuses is said so", async () => {
  const engine = await start({}, { maxNumSeqs: 1 });
  const open = kindOf(engine.pool(poolRequest(Array.from({ length: 200 }, () => [1])), NEVER));
  await engine.close();
  assert.equal(await open, "draining");
  assert.equal(await kindOf(engine.pool(poolRequest([[1]]), NEVER)), "draining");
  await assert.rejects(start({ refuse: "no such head" }), (error) => {
    return error instanceof EngineStartError && error.message === "no such head";
  });
});

test("an engine that generates does not pool", async () => {
  const kernel = { kernel: "fake", script: {} } as const;
  const engine = await startEngine({ ...LIMITS, model: model(undefined), kernel });
  engines.push(engine);
  assert.equal(await kindOf(engine.pool(poolRequest([[1]]), NEVER)), "invalid_request model");
});

test("libllama in the engine process: hostile ids do no harm, a crowd gets what each got alone", async () => {
  const modelPath = join(mkdtempSync(join(tmpdir(), "castellan-pool-")), "classifier.gguf");
  writeBert(modelPath, { labels: CLASSIFIES.labels, pooling: RANK });
  const bounds = { contextPerSlot: 64, maxSequences: 16, maxBatchTokens: 128, threads: 1, gpuLayers: 0 };
  const options: NativePoolingOptions = { modelPath, type: "rank", ...bounds };
  const info = { ...CLASSIFIES, embeddingSize: 32 };
  const kernel = { kernel: "native-pooling", options } as const;
  const engine = await startEngine({ ...LIMITS, maxNumBatchedTokens: 128, model: model(info), kernel });
  engines.push(engine);
  assert.equal(engine.model.vocabularySize, WORDS);
  const pid = engine.pid;
  const classify = (tokens: readonly number[]) => engine.pool(poolRequest([tokens], { task: "classify" }), NEVER);
  for (const tokens of [[-1], [WORDS], [2 ** 31 - 1], [], new Array(65).fill(5)])
    assert.equal(await kindOf(classify(tokens)), "invalid_request input");
  const inputs = Array.from({ length: 60 }, (_, i) =>
    Array.from({ length: 1 + (i % 40) }, (_, at) => (i * at + i) % WORDS),
  );
  const alone: number[][] = [];
  for (const tokens of inputs) alone.push(...numbers(await classify(tokens)));
  const crowd = (await Promise.all(inputs.map(classify))).flatMap(numbers);
  crowd.forEach((shares, at) => {
    assert.ok(Math.abs(shares.reduce((a, b) => a + b, 0) - 1) < 1e-6);
    shares.forEach((share, label) => {
      // Other company rounds otherwise: by 1e-5 where the processor has AVX-512, by 1e-4 where it has AVX2.
      assert.ok(Math.abs(share - (alone[at]?.[label] ?? Number.NaN)) < 5e-4);
    });
  });
  assert.equal(engine.pid, pid);
  const child = engine.pid as number;
  process.kill(child, "SIGKILL");
  await until(() => engine.state() === "ready" && engine.pid !== child, "it is back");
  assert.deepEqual(numbers(await classify(inputs[5] ?? [])), [alone[5]]);
  await until(() => idle(engine), "nothing is left open");
});
