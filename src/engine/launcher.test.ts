import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Fault } from "#core/fault.ts";
import type { GenerateRequest, GenerationEvent } from "#core/generate.ts";
import type { ModelInfo } from "#core/model.ts";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import type { FakeFault, FakeScript } from "./fake.ts";
import { EngineStartError, startEngine } from "./launcher.ts";
import { WINDOW } from "./loop.ts";
import type { EngineHandle, EngineOptions } from "./options.ts";
import { HIGH } from "./stream.ts";

const MODEL: ModelInfo = {
  architecture: "fake",
  contextLength: 4096,
  trainedContext: 4096,
  vocabularySize: 64,
  parameters: 0,
  createdAt: 0,
};
const NEVER = new AbortController().signal;
const engines: EngineHandle[] = [];

async function start(script: FakeScript = {}, changes: Partial<EngineOptions> = {}): Promise<EngineHandle> {
  const engine = await startEngine({
    model: MODEL,
    kernel: { kernel: "fake", script: { contextPerSlot: 100_000, ...script } },
    maxNumSeqs: 8,
    maxNumBatchedTokens: 64,
    contextLength: 100_000,
    schedulingPolicy: "fcfs",
    prefixCache: NO_PREFIX_CACHE,
    restartAfterMs: 5,
    ...changes,
  });
  engines.push(engine);
  return engine;
}

function request(changes: Partial<SamplingParams> = {}, samples = 1, prompt = [1, 3, 4]): GenerateRequest {
  const sampling = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true, maxTokens: 8, ...changes };
  return { id: "r", prompt: Int32Array.from(prompt), sampling, samples, priority: 0 };
}

async function collect(events: AsyncIterable<GenerationEvent>): Promise<GenerationEvent[]> {
  const all: GenerationEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

/** The kind of fault that ends it. */
async function faultOf(work: () => AsyncIterable<GenerationEvent>): Promise<string> {
  try {
    await collect(work());
  } catch (error) {
    return error instanceof Fault ? error.kind : String(error);
  }
  return "none";
}

/** Waits for a condition, not for a time; fails when it never comes. */
async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const idle = (engine: EngineHandle): boolean => {
  const { requests, sequences, paused, timers } = engine.counters();
  return requests + sequences + paused + timers === 0 && engine.stats().running === 0 && engine.stats().kvUsage === 0;
};

describe("startEngine", () => {
  after(() => Promise.all(engines.map((engine) => engine.close())));

  it("answers requests, several samples, logprobs; corrects the model's facts", async () => {
    const steps: number[] = [];
    const sequences: number[] = [];
    const engine = await start(
      { contextPerSlot: 512 },
      { onStep: (_, tokens) => steps.push(tokens), onSequence: ({ outputTokens }) => sequences.push(outputTokens) },
    );
    assert.equal(engine.model.contextLength, 512);
    assert.equal(engine.state(), "ready");
    const events = await collect(engine.generate(request({ logprobs: 2, promptLogprobs: 1 }, 2), NEVER));
    const [first] = events;
    assert.equal(first?.type, "prompt");
    assert.equal(first?.type === "prompt" && first.logprobs?.length, 3);
    for (const sample of [0, 1]) {
      const own = events.filter((event) => event.type !== "prompt" && event.sample === sample);
      assert.equal(own.length, 9);
      assert.ok(own.slice(0, 8).every((event) => event.type === "tokens" && event.logprobs?.[0]?.top.length === 2));
      assert.deepEqual(own[8], { type: "finish", sample, reason: "length" });
    }
    assert.equal(
      steps.reduce((sum, tokens) => sum + tokens, 0),
      22, // two samples of eight tokens, and the prompt of each
    );
    assert.deepEqual(sequences, [8, 8]);
    assert.equal(engine.stats().generationTokens, 16);
    await until(() => idle(engine), "nothing is left open");
  });

  it("refuses bad requests at once, naming the field", async () => {
    const engine = await start({ contextPerSlot: 16 });
    const bad: [GenerateRequest, string][] = [
      [request({}, 1, []), "prompt"],
      [request({}, 1, new Array(17).fill(1)), "prompt"],
      [request({}, 1, [64]), "prompt"],
      [request({}, 1, [-1]), "prompt"],
      [request({}, 0), "n"],
    ];
    for (const [wrong, param] of bad) {
      assert.throws(
        () => engine.generate(wrong, NEVER),
        (error) => error instanceof Fault && error.param === param,
      );
    }
    assert.equal(engine.counters().requests, 0);
  });

  it("passes on the reason when the kernel refuses to open, and a timeout when it never does", async () => {
    await assert.rejects(start({ refuse: "this file is not GGUF" }), (error) => {
      return error instanceof EngineStartError && error.message === "this file is not GGUF";
    });
    await assert.rejects(start({ hangOnOpen: true }, { startTimeoutMs: 300 }), /not ready after 300 ms/);
  });

  it("refuses what is over max-num-queued-reqs, counting samples", async () => {
    const engine = await start({}, { maxNumQueuedReqs: 3 });
    const leave = new AbortController();
    engine.generate(request({ maxTokens: 50_000 }, 2), leave.signal);
    assert.equal(await faultOf(() => engine.generate(request({}, 2), NEVER)), "overloaded");
    const [last] = (await collect(engine.generate(request(), NEVER))).slice(-1);
    assert.equal(last?.type, "finish");
    leave.abort();
    await until(() => idle(engine), "the aborted request is gone");
  });

  it("frees everything on abort, on break and on a signal that was aborted before", async () => {
    const engine = await start();
    const leave = new AbortController();
    const running = faultOf(() => engine.generate(request({ maxTokens: 90_000 }), leave.signal));
    await until(() => engine.stats().running === 1, "it runs");
    leave.abort();
    assert.equal(await running, "cancelled");
    assert.equal(await faultOf(() => engine.generate(request(), leave.signal)), "cancelled");
    for await (const event of engine.generate(request({ maxTokens: 90_000 }), NEVER))
      if (event.type === "tokens") break;
    await until(() => idle(engine), "nothing is left open");
  });

  it("leaves nothing behind after 1,000 aborts at any moment", async () => {
    const engine = await start({}, { maxNumQueuedReqs: 64 });
    let aborted = 0;
    for (let round = 0; round < 20; round++) {
      const calls = Array.from({ length: 50 }, (_, at) => {
        const leave = new AbortController();
        const ended = faultOf(() => engine.generate(request({ maxTokens: 90_000 }), leave.signal));
        return { leave, ended, at };
      });
      for (const { leave, at } of calls) {
        if (at % 10 === round % 10) await new Promise((resolve) => setImmediate(resolve));
        leave.abort();
      }
      for (const { ended } of calls) if ((await ended) === "cancelled") aborted++;
    }
    assert.equal(aborted, 1000);
    await until(() => idle(engine), "nothing is left open");
  });

  it("pauses for a slow reader, never far ahead of it, while others go on", async () => {
    const engine = await start();
    const slow = engine.generate(request({ maxTokens: 5000 }), NEVER)[Symbol.asyncIterator]();
    await until(() => engine.counters().paused === 1, "the slow one is paused");
    assert.equal((await collect(engine.generate(request({ maxTokens: 300 }), NEVER))).length, 302);
    const generated = engine.stats().generationTokens - 300;
    assert.ok(generated <= HIGH + WINDOW, `${generated} tokens ahead of a reader that reads nothing`);
    assert.equal(engine.state(), "ready");
    let events = 0;
    while (!(await slow.next()).done) events++;
    assert.equal(events, 5002);
    await until(() => idle(engine), "nothing is left open");
  });

  for (const [name, fault] of [
    ["a native abort", "crash"],
    ["an exception that no kernel should throw", "throw"],
  ] as const) {
    it(`survives ${name} at the Nth step: fails what ran, then works again`, async () => {
      for (let forward = 1; forward <= 4; forward++) {
        const engine = await start({ faults: [{ forward, fault }], maxSequences: 1 });
        const kinds = await Promise.all([0, 1].map(() => faultOf(() => engine.generate(request(), NEVER))));
        assert.deepEqual(kinds, ["engine_failed", "engine_failed"]);
        assert.equal(engine.counters().requests, 0);
        await until(() => engine.state() !== "ready" || engine.stats().restarts > 0, "the exit is seen");
        await until(() => engine.state() === "ready", "it is back");
        // The script starts over in the new process: few enough steps stay clear of its fault.
        if (forward > 1)
          assert.equal(await faultOf(() => engine.generate(request({ maxTokens: forward - 1 }), NEVER)), "none");
        assert.equal(engine.stats().restarts, 1);
        await engine.close();
      }
    });
  }

  it("fails the requests of one poisoned batch and serves the next", async () => {
    const engine = await start({ poison: { token: 63, fault: "crash" as FakeFault } });
    const log = await Promise.all([
      faultOf(() => engine.generate(request({}, 1, [1, 63]), NEVER)),
      faultOf(() => engine.generate(request({ maxTokens: 90_000 }), NEVER)),
    ]);
    assert.deepEqual(log, ["engine_failed", "engine_failed"]);
    await until(() => engine.stats().restarts === 1, "it is back");
    assert.equal(await faultOf(() => engine.generate(request({ allowedTokenIds: [5] }), NEVER)), "none");
  });

  it("survives kill -9 and says when to try again meanwhile", async () => {
    const engine = await start({}, { restartAfterMs: 60_000 });
    const running = faultOf(() => engine.generate(request({ maxTokens: 90_000 }), NEVER));
    await until(() => engine.stats().running === 1, "it runs");
    process.kill(engine.pid ?? assert.fail("no process"), "SIGKILL");
    assert.equal(await running, "engine_failed");
    assert.equal(engine.state(), "restarting");
    assert.throws(
      () => engine.generate(request(), NEVER),
      (error) => error instanceof Fault && error.kind === "engine_unavailable" && (error.retryAfterMs ?? 0) > 1000,
    );
    await engine.close();
    assert.equal(engine.counters().timers, 0);
  });

  it("turns stalled when the kernel hangs, then kills and restarts it", async () => {
    const engine = await start({ poison: { token: 63, fault: "hang" } }, { stallAfterMs: 40, killAfterMs: 1000 });
    const first = engine.pid;
    const running = faultOf(() => engine.generate(request({}, 1, [63]), NEVER));
    await until(() => engine.state() === "stalled", "it is seen to stall");
    assert.equal(await running, "engine_failed");
    await until(() => engine.state() === "ready", "it is back");
    assert.notEqual(engine.pid, first);
    assert.equal(await faultOf(() => engine.generate(request({ allowedTokenIds: [5] }), NEVER)), "none");
  });

  it("drains on close, also a process that hangs; close is idempotent", async () => {
    const engine = await start({ poison: { token: 63, fault: "hang" } }, { closeAfterMs: 50 });
    const running = faultOf(() => engine.generate(request({}, 1, [63]), NEVER));
    const waiting = faultOf(() => engine.generate(request(), NEVER));
    const { pid } = engine;
    await Promise.all([engine.close(), engine.close()]);
    assert.deepEqual(await Promise.all([running, waiting]), ["draining", "draining"]);
    assert.throws(() => process.kill(pid ?? assert.fail("no process"), 0), { code: "ESRCH" });
    assert.equal(engine.state(), "stopped");
    assert.equal(await faultOf(() => engine.generate(request(), NEVER)), "draining");
    assert.equal(engine.counters().timers, 0);
  });

  it("leaves SIGINT and SIGTERM to its parent", async () => {
    const engine = await start();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.kill(engine.pid ?? assert.fail("no process"), signal);
    assert.equal(await faultOf(() => engine.generate(request({ maxTokens: 200 }), NEVER)), "none");
    assert.equal(engine.stats().restarts, 0);
  });

  it("ends when its parent dies", async () => {
    const source = `
      import { startEngine } from ${JSON.stringify(new URL("./launcher.ts", import.meta.url).href)};
      const engine = await startEngine(${JSON.stringify({
        model: MODEL,
        kernel: { kernel: "fake", script: {} },
        maxNumSeqs: 8,
        maxNumBatchedTokens: 64,
        contextLength: 256,
        schedulingPolicy: "fcfs",
        prefixCache: NO_PREFIX_CACHE,
      })});
      console.log(engine.pid);
      setInterval(() => {}, 1000);`;
    const cwd = fileURLToPath(new URL(".", import.meta.url));
    const parent = spawn(process.execPath, ["--input-type=module", "-e", source], {
      cwd,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(parent.stdout, "data")) as [Buffer];
    const pid = Number(line.toString());
    assert.ok(isAlive(pid));
    parent.kill("SIGKILL");
    await until(() => !isAlive(pid), "the engine process ends with its parent");
  });
});

/** A process that has ended and that nobody has waited for yet counts as dead. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const stat = `/proc/${pid}/stat`;
  return !existsSync(stat) || !/\) Z /.test(readFileSync(stat, "utf8"));
}
