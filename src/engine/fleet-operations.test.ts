import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Fault } from "#core/fault.ts";
import { ENDLESS, fakeKernel, isIdle, NEVER, open, type Reader, request, startFleet, until } from "./_fleet-fixture.ts";
import type { EngineHandle, EngineOptions } from "./options.ts";

const engines: EngineHandle[] = [];
async function start(replicas: number, changes: Partial<EngineOptions> = {}): Promise<EngineHandle> {
  const engine = await startFleet(replicas, changes);
  engines.push(engine);
  return engine;
}

const prompt = (own: number): Int32Array => Int32Array.from({ length: 40 }, (_, at) => 1 + ((at * own + own) % 62));
const streams = (engine: EngineHandle, count: number, maxTokens = ENDLESS): Reader[] =>
  Array.from({ length: count }, (_, at) =>
    open(engine, request({ maxTokens }, { id: `s${at}`, callId: "call", prompt: prompt(at + 1) })),
  );
const allRun = (readers: readonly Reader[]): Promise<void> =>
  until(() => readers.every(({ tokens }) => tokens.length > 0), "all streams run");
const endings = async (readers: readonly Reader[]): Promise<Set<string | undefined>> => {
  await Promise.all(readers.map(({ done }) => done));
  return new Set(readers.map(({ ending }) => ending));
};
const invalidAt = (param: string) => (error: unknown) => error instanceof Fault && error.param === param;

/** What these requests draw when nobody disturbs them, with these weights. */
async function undisturbed(count: number, maxTokens: number, weights = 0): Promise<number[][]> {
  const engine = await start(1, { kernel: fakeKernel({ weights }) });
  const readers = streams(engine, count, maxTokens);
  await endings(readers);
  await engine.close();
  return readers.map(({ tokens }) => tokens);
}

/** The steps that the engines make while a turn of the parent's own work passes. */
async function stepsPass(engine: EngineHandle): Promise<number> {
  const before = engine.stats().steps;
  // A question and its answer: what was under way has arrived, and a step more would have, too.
  await engine.operations.startProfile();
  await engine.operations.stopProfile();
  return engine.stats().steps - before;
}

describe("pause and resume", () => {
  after(() => Promise.all(engines.splice(0).map((engine) => engine.close())));

  it("abort ends what is open and holds what comes, in order, until resume", async () => {
    const engine = await start(2);
    const running = streams(engine, 6);
    await allRun(running);
    await engine.operations.pause("abort", true);
    assert.deepEqual(await endings(running), new Set(["abort"]));
    assert.equal(engine.operations.isPaused(), true);
    assert.equal(engine.state(), "ready");
    const held = streams(engine, 4, 5);
    assert.deepEqual([engine.held(), engine.stats().waiting, engine.stats().running], [4, 4, 0]);
    const leaving = new AbortController();
    const gone = open(engine, request(), leaving.signal);
    leaving.abort();
    await gone.done;
    assert.equal(gone.ending, "cancelled");
    assert.equal(await stepsPass(engine), 0);
    await engine.operations.resume();
    assert.deepEqual(await endings(held), new Set(["length"]));
    await until(() => isIdle(engine), "nothing is left open");
  });

  it("wait lets what is open finish; resume ends a wait that would take for ever", async () => {
    const engine = await start(2);
    const running = streams(engine, 6, 200);
    await allRun(running);
    await engine.operations.pause("wait", true);
    assert.deepEqual(await endings(running), new Set(["length"]));
    await engine.operations.resume();
    const endless = streams(engine, 1);
    await allRun(endless);
    const pausing = engine.operations.pause("wait", true);
    const held = streams(engine, 1, 3);
    await engine.operations.resume();
    await pausing;
    assert.equal(engine.operations.isPaused(), false);
    assert.deepEqual(await endings(held), new Set(["length"]));
    assert.equal(endless[0]?.ending, undefined);
    assert.equal(engine.operations.abort(["call"]), 1);
    await until(() => isIdle(engine), "nothing is left open");
  });

  for (const clearCache of [true, false]) {
    it(`keep freezes, and goes on as if nothing had been${clearCache ? ", computing again what was forgotten" : ""}`, async () => {
      const expected = await undisturbed(6, 500);
      const engine = await start(2);
      const running = streams(engine, 6, 500);
      await allRun(running);
      await engine.operations.pause("keep", clearCache);
      await stepsPass(engine);
      const { steps, running: seated } = engine.stats();
      assert.equal(await stepsPass(engine), 0, "frozen");
      assert.equal(seated === 0, clearCache);
      // The watchdog has a timer exactly while it expects steps: frozen is not stalled.
      assert.deepEqual([engine.stats().steps, engine.counters().timers], [steps, 0]);
      await engine.operations.resume();
      assert.deepEqual(await endings(running), new Set(["length"]));
      assert.deepEqual(
        running.map(({ tokens }) => tokens),
        expected,
      );
      await until(() => isIdle(engine), "nothing is left open");
    });
  }

  it("bounds what it holds, and close ends it", async () => {
    const engine = await start(2, { maxNumQueuedReqs: 3 });
    await engine.operations.pause("abort", false);
    const held = streams(engine, 3);
    assert.throws(() => engine.generate(request(), NEVER), /too many/);
    assert.throws(() => engine.generate(request({}, { prompt: Int32Array.of(-1) }), NEVER), /vocabulary/);
    assert.equal(engine.operations.abort(["s1", "unknown"]), 1);
    await held[1]?.done;
    assert.equal(held[1]?.ending, "abort");
    await engine.close();
    assert.deepEqual(await endings(held), new Set(["abort", "draining"]));
  });

  it("an engine that dies while it is frozen loses its answers, and what had not begun waits on", async () => {
    const engine = await start(2, { kernel: fakeKernel({ maxSequences: 1 }), maxNumSeqs: 1 });
    const running = streams(engine, 2);
    await allRun(running);
    const waiting = Array.from({ length: 2 }, () => open(engine, request()));
    await engine.operations.pause("keep", false);
    process.kill(engine.pids[0] ?? assert.fail("no process"), "SIGKILL");
    await until(() => running.some(({ ending }) => ending === "engine_failed"), "one failed");
    await until(() => engine.held() === 1, "one is held");
    await engine.operations.resume();
    engine.operations.abort(["call"]);
    assert.deepEqual(await endings(waiting), new Set(["length"]));
    assert.deepEqual(await endings(running), new Set(["engine_failed", "abort"]));
  });
});

describe("sleep and wake", () => {
  after(() => Promise.all(engines.splice(0).map((engine) => engine.close())));

  it("level 1 keeps what is frozen, holds what comes, and goes on at wake", async () => {
    const expected = await undisturbed(4, 300);
    const engine = await start(2);
    const running = streams(engine, 4, 300);
    await allRun(running);
    await engine.operations.sleep(1, "keep");
    assert.deepEqual([engine.operations.isSleeping(), engine.operations.sleepState()], [true, "weights_offloaded"]);
    assert.deepEqual([engine.state(), engine.stats().running, engine.stats().kvUsage], ["ready", 0, 0]);
    const held = streams(engine, 1, 4);
    await assert.rejects(engine.operations.resume(), invalidAt("wake"));
    await engine.operations.wake(["weights"]);
    assert.equal(engine.operations.isSleeping(), true, "the KV cache still sleeps");
    await engine.operations.wake(["kv_cache"]);
    assert.deepEqual([engine.operations.isSleeping(), engine.operations.sleepState()], [false, "awake"]);
    assert.deepEqual(await endings([...running, ...held]), new Set(["length"]));
    assert.deepEqual(
      running.map(({ tokens }) => tokens),
      expected,
    );
    await until(() => isIdle(engine), "nothing is left open");
  });

  it("asleep, what is frozen cannot be waited for; it can be ended, and the engine sleeps on", async () => {
    const engine = await start(1);
    const running = streams(engine, 2);
    await allRun(running);
    await engine.operations.sleep(1, "keep");
    await assert.rejects(engine.operations.pause("wait", true), invalidAt("mode"));
    await assert.rejects(engine.operations.sleep(2, "wait"), invalidAt("mode"));
    await engine.operations.pause("keep", true);
    await engine.operations.sleep(2, "keep");
    assert.equal(engine.operations.sleepState(), "discard_all");
    await engine.operations.pause("abort", true);
    assert.deepEqual(await endings(running), new Set(["abort"]));
    assert.equal(engine.operations.sleepState(), "discard_all");
    await engine.operations.wake();
    assert.deepEqual(await endings(streams(engine, 2, 5)), new Set(["length"]));
  });

  it("level 2 ends what runs; an engine that dies asleep sleeps on; level 0 only pauses", async () => {
    const engine = await start(2);
    const running = streams(engine, 4);
    await allRun(running);
    await engine.operations.sleep(2, "abort");
    assert.equal(engine.operations.sleepState(), "discard_all");
    assert.deepEqual(await endings(running), new Set(["abort"]));
    process.kill(engine.pids[1] ?? assert.fail("no process"), "SIGKILL");
    await until(() => engine.engines()[1]?.stats.restarts === 1, "it is back");
    assert.equal(await engine.operations.resetPrefixCache(false), true);
    await engine.operations.wake();
    assert.deepEqual(await endings(streams(engine, 4, 5)), new Set(["length"]));
    await engine.operations.sleep(0, "abort");
    assert.deepEqual([engine.operations.isSleeping(), engine.operations.sleepState()], [true, "awake"]);
    await engine.operations.wake(["scheduling"]);
    assert.equal(engine.operations.isSleeping(), false);
  });
});

describe("the prefix cache", () => {
  after(() => Promise.all(engines.splice(0).map((engine) => engine.close())));

  it("is reset when idle, kept while something runs, and reset all the same when told to", async () => {
    const engine = await start(1);
    const asked = request({}, { prompt: prompt(1) });
    const hits = async (): Promise<number> => {
      const before = engine.stats().prefixHits;
      await open(engine, asked).done;
      return engine.stats().prefixHits - before;
    };
    assert.deepEqual([await hits(), await hits()], [0, 39]);
    assert.equal(await engine.operations.resetPrefixCache(false), true);
    assert.deepEqual([await hits(), await hits()], [0, 39]);
    const running = [open(engine, request({ maxTokens: ENDLESS }, { id: "s0", prompt: prompt(9) }))];
    await allRun(running);
    assert.equal(await engine.operations.resetPrefixCache(false), false);
    assert.equal(await hits(), 39);
    assert.equal(await engine.operations.resetPrefixCache(true), true);
    const { length } = running[0]?.tokens ?? [];
    await until(() => (running[0]?.tokens.length ?? 0) > (length ?? 0), "the stream goes on");
    engine.operations.abort(["s0"]);
    assert.equal(engine.stats().preemptions, 1);
  });
});

describe("scale", () => {
  after(() => Promise.all(engines.splice(0).map((engine) => engine.close())));

  it("up and down while streams run: none is lost that ends in time", async () => {
    const engine = await start(1);
    const running = streams(engine, 3, 400);
    await allRun(running);
    await engine.operations.scale(3, 0);
    assert.deepEqual([engine.operations.engineCount, engine.pids.length], [3, 3]);
    const more = streams(engine, 6, 400);
    await allRun(more);
    assert.equal(new Set(more.map(({ engines: [number] }) => number)).size, 3);
    const pids = engine.pids.slice(1);
    await engine.operations.scale(1, 60_000);
    assert.deepEqual([engine.operations.engineCount, engine.pids.length], [1, 1]);
    for (const pid of pids) assert.throws(() => process.kill(pid ?? assert.fail("no process"), 0), { code: "ESRCH" });
    assert.deepEqual(await endings([...running, ...more]), new Set(["length"]));
    assert.equal(engine.stats().generationTokens, 9 * 400, "totals outlive the engines");
    assert.deepEqual(
      engine.engines().map(({ state }) => state),
      ["ready", "stopped", "stopped"],
    );
    await until(() => isIdle(engine), "nothing is left open");
  });

  it("down after the time to drain: what has begun fails, what has not moves", async () => {
    const engine = await start(2, { kernel: fakeKernel({ maxSequences: 1 }), maxNumSeqs: 1 });
    const running = streams(engine, 2);
    await allRun(running);
    const waiting = Array.from({ length: 2 }, () => open(engine, request()));
    await engine.operations.scale(1, 10);
    await until(() => engine.moved() === 1, "one moved");
    await until(() => running.some(({ ending }) => ending === "engine_failed"), "one failed");
    engine.operations.abort(["call"]);
    assert.deepEqual(await endings(waiting), new Set(["length"]));
    assert.deepEqual(await endings(running), new Set(["engine_failed", "abort"]));
  });

  it("stays as it is after the time to drain when nothing may be lost, and goes down once it can", async () => {
    const engine = await start(2, { kernel: fakeKernel({ maxSequences: 2 }), maxNumSeqs: 2 });
    const running = streams(engine, 4);
    await allRun(running);
    await assert.rejects(
      engine.operations.scale(1, 10, "stay"),
      (error) => error instanceof Fault && error.kind === "request_timeout",
    );
    assert.deepEqual([engine.operations.engineCount, running.every(({ ending }) => ending === undefined)], [2, true]);
    assert.equal(
      engine.operations.abortCalls((id) => id === "other"),
      0,
    );
    assert.equal(
      engine.operations.abortCalls((id) => id === "call"),
      4,
    );
    assert.deepEqual(await endings(running), new Set(["abort"]));
    await engine.operations.scale(1, 60_000, "stay");
    assert.equal(engine.operations.engineCount, 1);
  });

  it("an engine that waits before it is started again starts when an operator says so", async () => {
    const engine = await start(1, { restartAfterMs: 30_000 });
    process.kill(engine.pid ?? assert.fail("no process"), "SIGKILL");
    await until(() => engine.state() === "restarting", "it is down");
    engine.operations.restartNow();
    await until(() => engine.state() === "ready", "it is back");
    assert.deepEqual(await endings(streams(engine, 1, 4)), new Set(["length"]));
  });

  it("refuses numbers out of range, and is what it was when a new engine does not start", async () => {
    const engine = await start(1, { kernelFor: () => fakeKernel({ refuse: "no memory" }) });
    for (const bad of [0, 65, 1.5])
      await assert.rejects(engine.operations.scale(bad, 0), invalidAt("new_data_parallel_size"));
    await assert.rejects(engine.operations.scale(1, -1), invalidAt("drain_timeout"));
    await assert.rejects(
      engine.operations.scale(2, 0),
      (error) => error instanceof Fault && error.kind === "engine_unavailable",
    );
    assert.equal(engine.operations.engineCount, 1);
    assert.deepEqual(await endings(streams(engine, 2, 4)), new Set(["length"]));
    const moved = await start(1, {
      kernelFor: ({ replicas }) => {
        if (replicas > 1) throw new Error("the file is gone");
        return fakeKernel();
      },
    });
    await assert.rejects(
      moved.operations.scale(2, 0),
      (error) => error instanceof Fault && error.kind === "engine_unavailable" && !error.message.includes("file"),
    );
  });
});

describe("other weights", () => {
  after(() => Promise.all(engines.splice(0).map((engine) => engine.close())));

  const kernelFor = ({ path }: { path?: string }): EngineOptions["kernel"] => {
    if (path === "not a model") throw new Error("not a GGUF file");
    if (path === "wide") return fakeKernel({ vocabularySize: 65 });
    if (path === "deadly") return fakeKernel({ crashOnOpen: true });
    if (path?.startsWith("/")) return fakeKernel({ weights: 5, claim: path });
    if (path === "broken") return fakeKernel({ refuse: "a tensor is missing" });
    return fakeKernel({ weights: path === undefined ? 0 : Number(path) });
  };

  it("take over between steps: frozen streams go on with them, new ones draw by them", async () => {
    const [[old], [fresh]] = [await undisturbed(1, 30), await undisturbed(1, 30, 7)];
    assert.notDeepEqual(old, fresh);
    const engine = await start(2, { kernelFor });
    const running = streams(engine, 4, 2000);
    await allRun(running);
    await engine.operations.reload("7", "keep");
    assert.equal(engine.operations.isPaused(), false);
    const [after] = [streams(engine, 1, 30)];
    assert.deepEqual(await endings([...running, ...after]), new Set(["length"]));
    assert.deepEqual(after[0]?.tokens, fresh);
    // An engine that starts from now on has them, too.
    for (const pid of engine.pids) process.kill(pid ?? assert.fail("no process"), "SIGKILL");
    await until(() => engine.engines().every(({ stats }) => stats.restarts === 1), "they are back");
    await engine.operations.scale(3, 0);
    for (let at = 0; at < 3; at++) {
      const again = streams(engine, 1, 30);
      await endings(again);
      assert.deepEqual(again[0]?.tokens, fresh);
      await engine.operations.resetPrefixCache(false);
    }
  });

  it("that are refused leave the old ones serving, streams and all", async () => {
    const expected = await undisturbed(3, 1500);
    const engine = await start(2, { kernelFor });
    const running = streams(engine, 3, 1500);
    await allRun(running);
    for (const [path, reason] of [
      ["not a model", /not a GGUF file/],
      ["wide", /another shape or another vocabulary/],
      ["broken", /a tensor is missing/],
    ] as const) {
      await assert.rejects(engine.operations.reload(path, "keep"), (error) => {
        return error instanceof Fault && error.param === "path" && reason.test(error.message);
      });
    }
    assert.deepEqual(await endings(running), new Set(["length"]));
    assert.deepEqual(
      running.map(({ tokens }) => tokens),
      expected,
    );
    assert.equal(engine.stats().restarts, 0);
  });

  it("that one engine takes and the next refuses are given up by both", async () => {
    const expected = await undisturbed(2, 1500);
    const engine = await start(2, { kernelFor });
    const running = streams(engine, 2, 1500);
    await allRun(running);
    const claim = join(mkdtempSync(join(tmpdir(), "castellan-claim-")), "claimed");
    await assert.rejects(engine.operations.reload(claim, "keep"), /EEXIST/);
    assert.deepEqual(await endings(running), new Set(["length"]));
    assert.deepEqual(
      running.map(({ tokens }) => tokens),
      expected,
    );
  });

  it("that kill an engine are refused, and it starts again with the old ones", async () => {
    const [expected] = await undisturbed(1, 30);
    const engine = await start(1, { kernelFor });
    await assert.rejects(engine.operations.reload("deadly", "abort"), /the engine died of it/);
    assert.equal(engine.operations.isPaused(), false);
    await until(() => engine.state() === "ready", "it is back");
    const [reader] = streams(engine, 1, 30);
    await reader?.done;
    assert.deepEqual(reader?.tokens, expected);
  });

  it("abort what runs when told to, stay paused what was, and wait for the engine to be awake", async () => {
    const engine = await start(1, { kernelFor });
    const running = streams(engine, 2);
    await allRun(running);
    await engine.operations.pause("keep", false);
    await engine.operations.reload("3", "abort");
    assert.deepEqual(await endings(running), new Set(["abort"]));
    assert.equal(engine.operations.isPaused(), true);
    await engine.operations.sleep(1, "abort");
    await assert.rejects(engine.operations.reload("4", "keep"), invalidAt("path"));
    await engine.operations.wake();
    const fixed = await start(1);
    await assert.rejects(
      fixed.operations.reload("4", "keep"),
      (error) => error instanceof Fault && error.kind === "not_implemented",
    );
  });
});

describe("a profile", () => {
  after(() => Promise.all(engines.splice(0).map((engine) => engine.close())));

  it("has the last steps of each engine, with their parts in order", async () => {
    const engine = await start(2);
    await engine.operations.startProfile(50);
    await endings(streams(engine, 6, 100));
    const { traceEvents } = await engine.operations.stopProfile();
    for (const pid of [0, 1]) {
      const spans = traceEvents.filter((event) => event.pid === pid && event.ph === "X");
      assert.equal(spans.length, 150);
      spans.forEach(({ name, ts = 0, dur = -1, args }, at) => {
        assert.equal(name, ["schedule", "forward", "settle"][at % 3]);
        assert.ok(dur >= 0 && Number(args["sequences"]) > 0 && Number(args["tokens"]) > 0);
        const next = spans[at + 1];
        assert.ok(next === undefined || (next.ts ?? 0) >= ts);
      });
    }
    assert.deepEqual((await engine.operations.stopProfile()).traceEvents, []);
    await assert.rejects(engine.operations.startProfile(0), invalidAt("steps"));
  });

  it("of one step shows its prompt and what of it was found", async () => {
    const engine = await start(1);
    await open(engine, request({ maxTokens: 1 }, { prompt: prompt(1) })).done;
    await engine.operations.startProfile();
    await open(engine, request({ maxTokens: 1 }, { prompt: prompt(1) })).done;
    const { traceEvents } = await engine.operations.stopProfile();
    const [first] = traceEvents.filter(({ ph }) => ph === "X");
    assert.deepEqual(first?.args, { sequences: 1, tokens: 1, cached: 39 });
  });
});
