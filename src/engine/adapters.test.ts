/**
 * LoRA adapters through the engine: over the fake kernel in process, and in an engine process that dies.
 */
import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { Fault } from "#core/fault.ts";
import type { GenerateRequest, GenerationEvent } from "#core/generate.ts";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { Engine, type EngineLimits } from "./engine.ts";
import { FakeKernel } from "./fake.ts";
import { type Batch, KernelError } from "./kernel.ts";
import { startEngine } from "./launcher.ts";
import type { EngineHandle } from "./options.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "./prefix/hash.ts";
import type { Submission } from "./requests.ts";

const LIMITS: EngineLimits = {
  maxNumSeqs: 4,
  maxNumBatchedTokens: 64,
  contextLength: 256,
  schedulingPolicy: "fcfs",
  prefixCache: { ...NO_PREFIX_CACHE, enabled: true, blockSize: 4 },
  maxAdapters: 2,
};
const hasher = await createBlockHasher("sha256");
const PROMPT = Array.from({ length: 24 }, (_, i) => 3 + (i % 20));

/** Notes which adapters each forward computed with. */
class WatchedKernel extends FakeKernel {
  readonly adapters: Set<number>[] = [];
  override forward(batch: Batch): readonly Float32Array[] {
    this.adapters.push(new Set(batch.adapters.subarray(0, batch.count)));
    return super.forward(batch);
  }
}

const engineOf = (kernel = new WatchedKernel(), limits: Partial<EngineLimits> = {}) =>
  new Engine(kernel, { ...LIMITS, ...limits }, hasher);

function submission(request: number, adapter?: number, name = `lora-${adapter}`, maxTokens = 4): Submission {
  const sampling = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true, maxTokens };
  const lora = adapter === undefined ? {} : { adapter: { number: adapter, name } };
  return { request, prompt: Int32Array.from(PROMPT), sampling, samples: 1, priority: 0, ...lora };
}

interface Outcome {
  readonly tokens: Map<number, number[]>;
  readonly failures: string[];
  readonly finished: number[];
}

function drain(engine: Engine): Outcome {
  const tokens = new Map<number, number[]>();
  const failures: string[] = [];
  const finished: number[] = [];
  for (let at = 0; at < 1000; at++) {
    const report = engine.step();
    engine.checkIntegrity();
    if (report === undefined) return { tokens, failures, finished };
    for (const { request, token } of report.tokens) tokens.set(request, [...(tokens.get(request) ?? []), token]);
    failures.push(...report.failures.map(({ message }) => message));
    finished.push(...report.finishes.map(({ request }) => request));
  }
  throw new Error("the engine did not become idle");
}

describe("adapters in the engine", () => {
  it("give each sequence what it gets alone, and share no prefix", () => {
    const alone = [undefined, 1, 2].map((adapter) => {
      const engine = engineOf();
      for (const number of [1, 2]) engine.loadAdapter(number, "/a");
      engine.submit(submission(1, adapter));
      return drain(engine).tokens.get(1);
    });
    assert.equal(new Set(alone.map(String)).size, 3);
    const engine = engineOf();
    for (const number of [1, 2]) engine.loadAdapter(number, "/a");
    for (const round of [0, 10])
      for (const [at, adapter] of [undefined, 1, 2].entries()) engine.submit(submission(round + at, adapter));
    const { tokens } = drain(engine);
    for (const round of [0, 10])
      for (const [at, expected] of alone.entries()) assert.deepEqual(tokens.get(round + at), expected);
  });

  it("find their own prefixes again, under their name", () => {
    const engine = engineOf();
    engine.loadAdapter(1, "/a");
    const hits = (request: number, name: string): number => {
      const before = engine.gauges.prefixHits;
      engine.submit(submission(request, 1, name));
      drain(engine);
      return engine.gauges.prefixHits - before;
    };
    assert.equal(hits(1, "sql"), 0);
    assert.ok(hits(2, "sql") > 0);
    assert.equal(hits(3, "sql#2"), 0);
  });

  it("are no more in a step than may be, and none waits for ever", () => {
    const kernel = new WatchedKernel();
    const engine = engineOf(kernel, { maxAdapters: 1 });
    for (const number of [1, 2]) engine.loadAdapter(number, "/a");
    for (let request = 0; request < 12; request++) engine.submit(submission(request, 1));
    for (let at = 0; at < 3; at++) engine.step();
    engine.submit(submission(100, 2));
    for (let request = 200; request < 212; request++) engine.submit(submission(request, 1));
    engine.submit(submission(300));
    assert.deepEqual(engine.gauges.adapters, { running: ["lora-1"], waiting: ["lora-1", "lora-2"] });
    const { finished, failures } = drain(engine);
    assert.deepEqual(failures, []);
    for (const used of kernel.adapters) assert.ok([...used].filter((number) => number !== 0).length <= 1);
    assert.ok(finished.indexOf(100) < finished.indexOf(200), "it goes before those that came later");
  });

  it("that are not loaded are refused, and those that leave finish what they began", () => {
    const engine = engineOf();
    engine.submit(submission(1, 7));
    assert.deepEqual(drain(engine).failures, ["the adapter is not loaded"]);
    assert.throws(() => engine.loadAdapter(1, "/bad"), KernelError);
    engine.loadAdapter(1, "/a");
    engine.submit(submission(2, 1, "sql", 8));
    engine.step();
    engine.unloadAdapter(1);
    engine.submit(submission(3, 1));
    const { finished, failures } = drain(engine);
    assert.deepEqual([finished, failures], [[2], ["the adapter is not loaded"]]);
    engine.loadAdapter(1, "/a");
  });
});

describe("adapters in an engine process", () => {
  const engines: EngineHandle[] = [];
  after(() => Promise.all(engines.map((engine) => engine.close())));
  const never = new AbortController().signal;

  async function start(): Promise<EngineHandle> {
    const facts = { architecture: "fake", trainedContext: 256, vocabularySize: 64, parameters: 0, createdAt: 0 };
    const engine = await startEngine({
      ...LIMITS,
      model: { ...facts, contextLength: 256 },
      kernel: { kernel: "fake", script: { poison: { token: 63, fault: "crash" } } },
      restartAfterMs: 5,
    });
    engines.push(engine);
    return engine;
  }

  function request(adapter: number | undefined, prompt = PROMPT): GenerateRequest {
    const { sampling, samples, priority } = submission(1);
    const lora = adapter === undefined ? {} : { adapter: { number: adapter, name: "sql" } };
    return { id: "r", prompt: Int32Array.from(prompt), sampling, samples, priority, ...lora };
  }

  async function tokens(events: AsyncIterable<GenerationEvent>): Promise<number[]> {
    const all: number[] = [];
    for await (const event of events) if (event.type === "tokens") all.push(...event.tokens);
    return all;
  }

  it("are loaded, refused with the reason, and there again after a crash", async () => {
    const engine = await start();
    await engine.loadAdapter(5, "/some/adapter");
    await assert.rejects(
      engine.loadAdapter(6, "/bad"),
      (error) => error instanceof Fault && error.kind === "invalid_request" && error.message.includes("not an adapter"),
    );
    const before = await tokens(engine.generate(request(5), never));
    assert.notDeepEqual(before, await tokens(engine.generate(request(undefined), never)));
    await assert.rejects(tokens(engine.generate(request(undefined, [63]), never)));
    for (let at = 0; at < 2000 && engine.state() !== "ready"; at++) await new Promise((done) => setTimeout(done, 5));
    assert.deepEqual(await tokens(engine.generate(request(5), never)), before);
    engine.unloadAdapter(5);
    await assert.rejects(
      tokens(engine.generate(request(5), never)),
      (error) => error instanceof Fault && error.kind === "invalid_request",
    );
  });

  it("that are being loaded when the process ends are said to have failed", async () => {
    const engine = await start();
    const crash = tokens(engine.generate(request(undefined, [63]), never));
    const load = engine.loadAdapter(5, "/some/adapter");
    await assert.rejects(crash);
    await load.catch((error: unknown) => assert.ok(error instanceof Fault && error.kind === "engine_failed"));
  });
});
