import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { Fault } from "#core/fault.ts";
import { ENDLESS, fakeKernel, isIdle, NEVER, open, type Reader, request, startFleet, until } from "./_fleet-fixture.ts";
import { EngineStartError } from "./launcher.ts";
import type { EngineHandle, EngineOptions } from "./options.ts";

const engines: EngineHandle[] = [];
async function start(replicas: number, changes: Partial<EngineOptions> = {}): Promise<EngineHandle> {
  const engine = await startFleet(replicas, changes);
  engines.push(engine);
  return engine;
}

/** A prompt of its own, which shares no block with another. */
const ownPrompt = (own: number): Int32Array => Int32Array.from({ length: 40 }, (_, at) => 1 + ((at * own + own) % 62));
const engineOf = ({ engines: [engine] }: Reader): number => engine ?? assert.fail("it has no engine yet");

function kill(engine: EngineHandle, number: number): void {
  process.kill(engine.pids[number] ?? assert.fail("no process"), "SIGKILL");
}

describe("several engines", () => {
  after(() => Promise.all(engines.map((engine) => engine.close())));

  it("spread requests, give the same answers as one, and add up", async () => {
    const [one, three] = await Promise.all([start(1), start(3)]);
    const asked = Array.from({ length: 12 }, (_, at) => request({ maxTokens: 40 }, { prompt: ownPrompt(at + 1) }));
    const [alone, spread] = [asked.map((each) => open(one, each)), asked.map((each) => open(three, each))];
    await Promise.all([...alone, ...spread].map(({ done }) => done));
    assert.deepEqual(
      spread.map(({ tokens }) => tokens),
      alone.map(({ tokens }) => tokens),
    );
    assert.deepEqual(new Set(spread.map(engineOf)), new Set([0, 1, 2]));
    await until(() => isIdle(three), "nothing is left open");
    const statuses = three.engines();
    assert.deepEqual(
      statuses.map(({ engine, state }) => [engine, state]),
      [0, 1, 2].map((engine) => [engine, "ready"]),
    );
    const sum = statuses.reduce((total, { stats }) => total + stats.generationTokens, 0);
    assert.deepEqual([sum, three.stats().generationTokens], [480, 480]);
  });

  it("prompts that begin alike meet, and find each other's work", async () => {
    const engine = await start(3);
    const begin = Array.from({ length: 64 }, (_, at) => 1 + (at % 60));
    const first = open(engine, request({}, { prompt: Int32Array.from([...begin, 5, 6]) }));
    await first.done;
    for (const last of [7, 8, 9, 10]) {
      const next = open(engine, request({}, { prompt: Int32Array.from([...begin, last]) }));
      await next.done;
      assert.equal(engineOf(next), engineOf(first));
    }
    assert.ok(engine.stats().prefixHits >= 4 * 64, `${engine.stats().prefixHits} tokens found`);
  });

  it("one is killed under load: what has begun fails, the rest is answered elsewhere, and it comes back", async () => {
    const engine = await start(2, { kernel: fakeKernel({ maxSequences: 4 }), maxNumSeqs: 4 });
    const before = [...engine.pids];
    const running = Array.from({ length: 8 }, (_, at) =>
      open(engine, request({ maxTokens: ENDLESS }, { id: "endless", prompt: ownPrompt(at + 1) })),
    );
    await until(() => running.every(({ tokens }) => tokens.length > 0), "all slots of both are taken");
    // These wait behind them, on both engines.
    const waiting = Array.from({ length: 8 }, (_, at) =>
      open(engine, request({ maxTokens: 5 }, { prompt: ownPrompt(at + 20) })),
    );
    kill(engine, 0);
    const lost = running.filter((reader) => engineOf(reader) === 0);
    assert.equal(lost.length, 4);
    await Promise.all(lost.map(({ done }) => done));
    assert.ok(lost.every(({ ending }) => ending === "engine_failed"));
    assert.equal(engine.state(), "ready", "one engine is enough");
    const kept = running.filter((reader) => engineOf(reader) === 1);
    assert.ok(
      kept.every(({ ending }) => ending === undefined),
      "the other engine's streams run on",
    );
    await until(() => engine.moved() === 4, "those that waited on the dead one moved");
    await until(() => engine.engines()[0]?.state === "ready", "it is back");
    assert.notEqual(engine.pids[0], before[0]);
    assert.equal(engine.pids[1], before[1]);
    assert.equal(engine.operations.abort(["endless"]), 4);
    await Promise.all([...kept, ...waiting].map(({ done }) => done));
    assert.ok(kept.every(({ ending }) => ending === "abort"));
    assert.ok(waiting.every(({ ending, tokens, prompts }) => ending === "length" && tokens.length + prompts === 6));
    await until(() => isIdle(engine), "nothing is left open");
    assert.deepEqual(
      engine.engines().map(({ stats }) => stats.restarts),
      [1, 0],
    );
  });

  it("a request that moved is answered once and whole", async () => {
    const engine = await start(2, { kernel: fakeKernel({ maxSequences: 1 }), maxNumSeqs: 1 });
    const expected = open(engine, request({ maxTokens: 12 }));
    await expected.done;
    const blockers = [1, 2].map((own) =>
      open(engine, request({ maxTokens: ENDLESS }, { id: "endless", prompt: ownPrompt(own) })),
    );
    await until(() => blockers.every(({ tokens }) => tokens.length > 0), "both are busy");
    const moving = [0, 1].map(() => open(engine, request({ maxTokens: 12 })));
    await until(() => engine.stats().waiting === 2, "they wait");
    kill(engine, 0);
    await until(() => engine.moved() === 1, "one of them moved");
    engine.operations.abort(["endless"]);
    await Promise.all(moving.map(({ done }) => done));
    for (const { ending, tokens, prompts } of moving)
      assert.deepEqual([ending, tokens, prompts], ["length", expected.tokens, 1]);
  });

  it("a request that brings down two engines is not tried on a third", async () => {
    const engine = await start(3, {
      kernel: fakeKernel({ poison: { token: 63, fault: "crash" } }),
      restartAfterMs: 60_000,
    });
    const bad = open(engine, request({}, { prompt: Int32Array.from([1, 63]) }));
    await bad.done;
    assert.equal(bad.ending, "engine_failed");
    assert.deepEqual(
      engine
        .engines()
        .map(({ state }) => state)
        .sort(),
      ["ready", "restarting", "restarting"],
    );
    const good = open(engine, request({ allowedTokenIds: [5] }));
    await good.done;
    assert.equal(good.ending, "length");
  });

  it("bounds what is open over all of them, and refuses bad prompts at once", async () => {
    const engine = await start(2, { maxNumQueuedReqs: 3 });
    const leave = new AbortController();
    const running = [1, 2, 3].map(() => open(engine, request({ maxTokens: ENDLESS }), leave.signal));
    const kindOf = (kind: string) => (error: unknown) => error instanceof Fault && error.kind === kind;
    assert.throws(() => engine.generate(request(), NEVER), kindOf("overloaded"));
    assert.throws(() => engine.generate(request({}, { prompt: new Int32Array() }), NEVER), kindOf("invalid_request"));
    assert.throws(() => engine.generate(request(), AbortSignal.abort()), kindOf("overloaded"));
    leave.abort();
    await Promise.all(running.map(({ done }) => done));
    assert.throws(() => engine.generate(request(), AbortSignal.abort()), kindOf("cancelled"));
    await until(() => isIdle(engine), "nothing is left open");
  });

  it("none starts when one does not; close ends all, and says so", async () => {
    await assert.rejects(startFleet(2, { kernel: fakeKernel({ refuse: "no such model" }) }), EngineStartError);
    const engine = await start(2);
    const running = [1, 2].map((own) => open(engine, request({ maxTokens: ENDLESS }, { prompt: ownPrompt(own) })));
    await until(() => running.every(({ tokens }) => tokens.length > 0), "both run");
    const pids = [...engine.pids];
    await engine.close();
    for (const pid of pids) assert.throws(() => process.kill(pid ?? assert.fail("no process"), 0), { code: "ESRCH" });
    assert.deepEqual(
      running.map(({ ending }) => ending),
      ["draining", "draining"],
    );
    assert.equal(engine.state(), "stopped");
    assert.throws(() => engine.generate(request(), NEVER), /shutting down/);
    assert.equal(engine.counters().timers, 0);
  });
});
