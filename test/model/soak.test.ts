/**
 * Very many short requests of every kind, and then nothing is left: no request, sequence, slot, cell, timer, handle or
 * memory. Over a real engine process, whose heap is bounded by Node itself: whoever keeps a kilobyte a request ends it.
 *
 * CASTELLAN_SOAK: requests over the fake kernel (default 20,000) and, a hundredth of it, over libllama (default 300).
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { GenerateRequest } from "#core/generate.ts";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { startEngine } from "#engine/launcher.ts";
import type { EngineHandle, EngineOptions } from "#engine/options.ts";
import { NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import { compileStructured } from "#prompt/grammar/compile.ts";
import { randomOf } from "../fixtures/grammar-walk.ts";
import { DEMO_MODEL, until } from "../harness.ts";

const SOAK = process.env["CASTELLAN_SOAK"];
const FAKE_REQUESTS = Number(SOAK ?? 20_000);
const NATIVE_REQUESTS = SOAK === undefined ? 300 : Math.ceil(FAKE_REQUESTS / 100);
/** After this share of the requests everything has reached the size that it keeps. */
const WARM_UP = 0.4;
const AT_ONCE = 48;

const GRAMMARS = ["[0-9]{1,6}", "(01|2){1,4}3", "0[0-9]*1"].map((pattern) =>
  compileStructured({ kind: "regex", pattern }),
);

type Random = (below: number) => number;

/** One thing that a request may want. Another kind is another entry. */
type Kind = (random: Random) => Partial<Omit<GenerateRequest, "sampling">> & {
  readonly sampling?: Partial<SamplingParams>;
};

const ADAPTERS = [1, 2, 3].map((number) => ({ number, name: `adapter ${number}` }));
const WITH_ADAPTER: Kind = (random) => ({ adapter: ADAPTERS[random(ADAPTERS.length)]! });

const KINDS: readonly Kind[] = [
  () => ({}),
  (random) => ({ samples: 2 + random(3) }),
  (random) => ({ sampling: { logprobs: random(4), temperature: 1, seed: random(1000) } }),
  (random) => ({ sampling: { promptLogprobs: random(3) } }),
  (random) => ({ sampling: { constraint: GRAMMARS[random(GRAMMARS.length)]! } }),
  (random) => ({ priority: random(5) - 2 }),
  (random) => ({ cacheSalt: `tenant ${random(3)}`, share: { key: `tenant ${random(30)}`, weight: 1 + random(3) } }),
  () => ({ sampling: { repetitionPenalty: 1.2, presencePenalty: 0.5, frequencyPenalty: 0.5 } }),
  (random) => ({ sampling: { maxTokens: 200 }, prompt: Int32Array.of(3 + random(50)) }),
];

interface Ends {
  readonly kinds: readonly Kind[];
  finished: number;
  cancelled: number;
}

function requestOf(id: number, random: Random, kinds: readonly Kind[]): GenerateRequest {
  const { sampling, ...rest } = (kinds[random(kinds.length)] as Kind)(random);
  // A prompt starts in one of four ways, so that many are found in the cache.
  const start = random(4);
  const prompt = Int32Array.from({ length: 1 + random(40) }, (_, at) => (at < 24 ? start * 11 + at : random(60)));
  const base = { ...NEUTRAL_SAMPLING, temperature: 0, maxTokens: 1 + random(12), ignoreEos: random(2) === 0 };
  return { id: String(id), prompt, samples: 1, priority: 0, ...rest, sampling: { ...base, ...sampling } };
}

/** Runs one to its end, or leaves it: by its signal at some moment, or by not reading on. */
async function live(engine: EngineHandle, id: number, random: Random, ends: Ends): Promise<void> {
  const leave = new AbortController();
  const request = requestOf(id, random, ends.kinds);
  const way = random(6);
  let left = random(8);
  if (way === 0) setImmediate(() => leave.abort());
  try {
    for await (const event of engine.generate(request, leave.signal)) {
      if (event.type === "prompt") assert.ok(event.cachedTokens < request.prompt.length);
      if (way === 1 && left-- === 0) leave.abort();
      if (way === 2 && left-- === 0) break;
    }
    if (way === 2 && left < 0) ends.cancelled++;
    else ends.finished++;
  } catch (error) {
    assert.ok(error instanceof Fault && error.kind === "cancelled", String(error));
    ends.cancelled++;
  }
}

async function storm(engine: EngineHandle, from: number, to: number, ends: Ends): Promise<void> {
  let next = from;
  const worker = async (): Promise<void> => {
    while (next < to) {
      const id = next++;
      const draw = randomOf(id);
      await live(engine, id, (below) => Math.floor(draw() * below), ends);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await until("the engine is idle", () => {
    const { requests, sequences, paused, timers } = engine.counters();
    const { running, waiting, kvUsage } = engine.stats();
    return requests + sequences + paused + timers + running + waiting + kvUsage === 0;
  });
}

const residentMiB = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;

async function soak(
  requests: number,
  kinds: readonly Kind[],
  options: Pick<EngineOptions, "kernel" | "contextLength" | "execArgv">,
): Promise<void> {
  const engine = await startEngine({
    model: {
      architecture: "x",
      contextLength: 256,
      trainedContext: 256,
      vocabularySize: 64,
      parameters: 0,
      createdAt: 0,
    },
    maxNumSeqs: 16,
    maxNumBatchedTokens: 128,
    schedulingPolicy: "priority",
    maxAdapters: 2,
    prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
    ...options,
  });
  const { pid = -1 } = engine;
  const ends: Ends = { kinds, finished: 0, cancelled: 0 };
  const warm = Math.floor(requests * WARM_UP);
  try {
    if (kinds.includes(WITH_ADAPTER)) for (const { number } of ADAPTERS) await engine.loadAdapter(number, "adapter");
    await storm(engine, 0, warm, ends);
    const before = [process.pid, pid].map(residentMiB);
    await storm(engine, warm, requests, ends);
    const grown = [process.pid, pid].map((one, at) => residentMiB(one) - (before[at] as number));
    const stats = engine.stats();
    assert.equal(ends.finished + ends.cancelled, requests);
    assert.ok(ends.finished > requests / 3 && ends.cancelled > requests / 20, `${ends.finished} finished`);
    assert.ok(stats.prefixHits > 0, "prefixes were found");
    assert.deepEqual([stats.restarts, engine.pid], [0, pid], "it is the same process");
    // What the heap's bound does not see: buffers and native memory.
    assert.ok(Math.max(...grown) < 80, `grew by ${grown.map(Math.round)} MiB`);
    console.log(`# ${requests}: ${ends.finished} finished, ${ends.cancelled} left; ${stats.generationTokens} tokens,`);
    console.log(`# ${stats.prefixHits} prompt tokens found, grown by ${grown.map(Math.round)} MiB (parent, engine)`);
  } finally {
    await engine.close();
  }
  assert.equal(engine.counters().timers, 0);
  assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
}

test(`${FAKE_REQUESTS} mixed requests over the fake kernel leave nothing behind`, { timeout: 1_800_000 }, async () => {
  const script = { contextPerSlot: 256, maxSequences: 16, maxBatchTokens: 128, cells: 1500 };
  await soak(FAKE_REQUESTS, [...KINDS, WITH_ADAPTER], {
    kernel: { kernel: "fake", script },
    contextLength: 256,
    execArgv: ["--max-old-space-size=48"],
  });
});

test(`${NATIVE_REQUESTS} mixed requests over libllama leave nothing behind`, { timeout: 1_800_000 }, async () => {
  const options = {
    modelPath: DEMO_MODEL,
    contextPerSlot: 256,
    maxSequences: 16,
    maxBatchTokens: 128,
    threads: 1,
    gpuLayers: 0,
  };
  await soak(NATIVE_REQUESTS, KINDS, {
    kernel: { kernel: "native", options },
    contextLength: 256,
    execArgv: ["--max-old-space-size=128"],
  });
});
