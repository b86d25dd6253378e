/**
 * Very many short requests of every kind, and then nothing is left: no request, sequence, slot, cell, timer, handle or
 * memory. Over real engine processes, one that generates and beside it one that pools, whose heaps are bounded by Node
 * itself: whoever keeps a kilobyte a request ends them.
 *
 * CASTELLAN_SOAK: requests over the fake kernel (default 20,000) and, a hundredth of it, over libllama (default 300).
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { GenerateRequest } from "#core/generate.ts";
import type { PoolingInfo } from "#core/pool.ts";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { startEngine } from "#engine/launcher.ts";
import type { EngineHandle, EngineOptions } from "#engine/options.ts";
import { NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import { compileStructured } from "#prompt/grammar/compile.ts";
import { writeAdapter } from "../fixtures/gguf.ts";
import { MEAN, WORDS, writeBert } from "../fixtures/gguf-pooling.ts";
import { randomOf } from "../fixtures/grammar-walk.ts";
import { DEMO_MODEL, until } from "../harness.ts";

const SOAK = process.env["CASTELLAN_SOAK"];
const FAKE_REQUESTS = Number(SOAK ?? 20_000);
const NATIVE_REQUESTS = SOAK === undefined ? 300 : Math.ceil(FAKE_REQUESTS / 100);
/** After this share of the requests everything has reached the size that it keeps. */
const WARM_UP = 0.4;
const AT_ONCE = 48;
/** One in so many is for the engine that pools. */
const POOLED = 6;
const directory = mkdtempSync(join(tmpdir(), "castellan-soak-"));
after(() => rmSync(directory, { recursive: true }));

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

/** The demo model's, for adapters that fit it. */
const DEMO_SHAPE = { width: 192, layers: 5, heads: 4, kvHeads: 4, hidden: 384 };
const SCHEMA = compileStructured({
  kind: "json_schema",
  schema: { type: "object", properties: { a: { type: "integer" }, b: { enum: ["x", "y"] } }, required: ["a"] },
});
const WITH_SCHEMA: Kind = () => ({ sampling: { constraint: SCHEMA, temperature: 1, maxTokens: 24 } });

const KINDS: readonly Kind[] = [
  () => ({}),
  (random) => ({ samples: 2 + random(3) }),
  (random) => ({ sampling: { logprobs: random(4), temperature: 1, seed: random(1000) } }),
  (random) => ({ sampling: { promptLogprobs: random(3) } }),
  (random) => ({ sampling: { constraint: GRAMMARS[random(GRAMMARS.length)]! } }),
  (random) => ({ priority: random(5) - 2 }),
  (random) => ({ cacheSalt: `tenant ${random(3)}`, share: { key: `tenant ${random(30)}`, weight: 1 + random(3) } }),
  () => ({ sampling: { repetitionPenalty: 1.2, presencePenalty: 0.5, frequencyPenalty: 0.5 } }),
  () => ({ sampling: { allowedTokenIds: [5, 6, 7], repetition: { minSize: 1, maxSize: 4, minCount: 3 } } }),
  (random) => ({ sampling: { badWords: [[5, 6], [9]], logitBias: [[11, 2]], stopTokenIds: [random(60)] } }),
  (random) => ({ sampling: { thinking: { tokens: random(3), open: true, start: [1], end: [7, 8] }, maxTokens: 12 } }),
  (random) => ({ sampling: { maxTokens: 200 }, prompt: Int32Array.of(3 + random(50)) }),
];

/** What the engine that pools is, beside the one that generates. */
interface Pooling {
  readonly engine: EngineHandle;
  readonly vocabulary: number;
}

interface Ends {
  readonly pooling: Pooling;
  pooled: number;
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

/** Embeddings of some inputs, of texts or of tokens; some are left. */
async function embed({ engine, vocabulary }: Pooling, id: number, random: Random, ends: Ends): Promise<void> {
  const inputs = Array.from({ length: 1 + random(4) }, () =>
    Int32Array.from({ length: 1 + random(30) }, () => random(vocabulary)),
  );
  const task = random(4) === 0 ? "token_embed" : "embed";
  const leave = new AbortController();
  if (random(5) === 0) setImmediate(() => leave.abort());
  try {
    const { outputs } = await engine.pool({ id: String(id), task, inputs, priority: random(3) }, leave.signal);
    assert.deepEqual(
      outputs.map(({ values }) => values.every(Number.isFinite)),
      inputs.map(() => true),
    );
    ends.pooled++;
    ends.finished++;
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
      const random: Random = (below) => Math.floor(draw() * below);
      await (random(POOLED) === 0 ? embed(ends.pooling, id, random, ends) : live(engine, id, random, ends));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  for (const one of [engine, ends.pooling.engine]) {
    await until("the engine is idle", () => {
      const { requests, sequences, paused, timers } = one.counters();
      const { running, waiting, kvUsage } = one.stats();
      return requests + sequences + paused + timers + running + waiting + kvUsage === 0;
    });
  }
}

const residentMiB = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
const handles = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

type Start = Pick<EngineOptions, "kernel" | "contextLength" | "execArgv">;

const EMBEDS: PoolingInfo = {
  tasks: ["embed", "token_embed"],
  type: "mean",
  embeddingSize: 8,
  classes: 0,
  labels: [],
  head: "logits",
  matryoshka: undefined,
  defaults: { useActivation: true },
};

function start(options: Start, pooling?: PoolingInfo): Promise<EngineHandle> {
  return startEngine({
    model: {
      architecture: "x",
      contextLength: options.contextLength,
      trainedContext: options.contextLength,
      vocabularySize: 64,
      parameters: 0,
      createdAt: 0,
      ...(pooling === undefined ? {} : { pooling }),
    },
    maxNumSeqs: 16,
    maxNumBatchedTokens: 128,
    schedulingPolicy: "priority",
    maxAdapters: 2,
    prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
    ...options,
  });
}

interface Soak {
  readonly requests: number;
  readonly kinds: readonly Kind[];
  readonly generating: Start;
  readonly pooling: Start & { readonly vocabulary: number; readonly width: number };
  /** Of the adapters. */
  readonly paths: readonly string[];
}

async function soak({ requests, kinds, generating, pooling, paths }: Soak): Promise<void> {
  const { vocabulary, width, ...options } = pooling;
  const engine = await start(generating);
  const pools = await start(options, { ...EMBEDS, embeddingSize: width });
  const ends: Ends = { kinds, pooling: { engine: pools, vocabulary }, finished: 0, cancelled: 0, pooled: 0 };
  const pids = [process.pid, engine.pid ?? -1, pools.pid ?? -1];
  const warm = Math.floor(requests * WARM_UP);
  try {
    for (const [at, { number }] of ADAPTERS.entries()) await engine.loadAdapter(number, paths[at] ?? "adapter");
    await storm(engine, 0, warm, ends);
    const before = pids.map((pid) => ({ memory: residentMiB(pid), handles: handles(pid) }));
    await storm(engine, warm, requests, ends);
    const grown = pids.map((pid, at) => residentMiB(pid) - (before[at]?.memory ?? 0));
    const stats = engine.stats();
    assert.equal(ends.finished + ends.cancelled, requests);
    assert.ok(ends.finished > requests / 3 && ends.cancelled > requests / 20, `${ends.finished} finished`);
    assert.ok(ends.pooled > requests / 12, `${ends.pooled} embedded`);
    assert.ok(stats.prefixHits > 0, "prefixes were found");
    const restarts = [engine, pools].map((one) => one.stats().restarts);
    assert.deepEqual([restarts, engine.pid, pools.pid], [[0, 0], pids[1], pids[2]], "they are the same processes");
    assert.deepEqual(
      pids.map(handles),
      before.map((one) => one.handles),
      "no file, socket or pipe stays open",
    );
    // What the heap's bound does not see: buffers and native memory.
    assert.ok(Math.max(...grown) < 80, `grew by ${grown.map(Math.round)} MiB`);
    console.log(`# ${requests}: ${ends.finished} finished, ${ends.pooled} of them embedded, ${ends.cancelled} left;`);
    console.log(`# ${stats.generationTokens} tokens, ${stats.prefixHits} prompt tokens found, grown by`);
    console.log(`# ${grown.map(Math.round)} MiB (parent, engine, engine that pools)`);
  } finally {
    await Promise.all([engine.close(), pools.close()]);
  }
  assert.deepEqual([engine.counters().timers, pools.counters().timers], [0, 0]);
  for (const pid of pids.slice(1)) assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
}

test(`${FAKE_REQUESTS} mixed requests over the fake kernels leave nothing behind`, { timeout: 1_800_000 }, async () => {
  const script = { contextPerSlot: 256, maxSequences: 16, maxBatchTokens: 128, cells: 1500 };
  await soak({
    requests: FAKE_REQUESTS,
    kinds: [...KINDS, WITH_ADAPTER],
    generating: { kernel: { kernel: "fake", script }, contextLength: 256, execArgv: ["--max-old-space-size=48"] },
    pooling: {
      kernel: { kernel: "fake-pooling", script: {} },
      contextLength: 64,
      execArgv: ["--max-old-space-size=48"],
      vocabulary: 64,
      width: 8,
    },
    paths: [],
  });
});

test(`${NATIVE_REQUESTS} mixed requests over libllama leave nothing behind`, { timeout: 1_800_000 }, async () => {
  const bounds = { maxSequences: 16, maxBatchTokens: 128, threads: 1, gpuLayers: 0 };
  const options = { modelPath: DEMO_MODEL, contextPerSlot: 256, maxLoraRank: 8, ...bounds };
  const encoder = join(directory, "encoder.gguf");
  writeBert(encoder, { pooling: MEAN });
  const paths = ADAPTERS.map(({ number }) => join(directory, `${number}.gguf`));
  for (const [at, path] of paths.entries()) writeAdapter(path, DEMO_SHAPE, { seed: at + 1, rank: 4 });
  await soak({
    requests: NATIVE_REQUESTS,
    kinds: [...KINDS, WITH_ADAPTER, WITH_SCHEMA],
    generating: { kernel: { kernel: "native", options }, contextLength: 256, execArgv: ["--max-old-space-size=128"] },
    pooling: {
      kernel: {
        kernel: "native-pooling",
        options: { modelPath: encoder, type: "mean", contextPerSlot: 64, ...bounds },
      },
      contextLength: 64,
      execArgv: ["--max-old-space-size=128"],
      vocabulary: WORDS,
      width: 32,
    },
    paths,
  });
});
