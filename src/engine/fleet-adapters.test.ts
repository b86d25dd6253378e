/**
 * Adapters, a draft model and spilled prefixes where engines are several, sleep, and change their weights.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Fault } from "#core/fault.ts";
import { fakeKernel, isIdle, open, type Reader, request, startFleet, until } from "./_fleet-fixture.ts";
import type { EngineHandle, EngineOptions } from "./options.ts";

const engines: EngineHandle[] = [];
async function start(replicas: number, changes: Partial<EngineOptions> = {}): Promise<EngineHandle> {
  const engine = await startFleet(replicas, changes);
  engines.push(engine);
  return engine;
}

const prompt = (own: number): Int32Array => Int32Array.from({ length: 40 }, (_, at) => 1 + ((at * own + own) % 62));
const adapted = (engine: EngineHandle, own = 1): Reader =>
  open(engine, request({ maxTokens: 20 }, { prompt: prompt(own), adapter: { number: 1, name: "one" } }));
const isInvalid = (error: unknown): boolean => error instanceof Fault && error.kind === "invalid_request";

/** One by each engine: prompts that have nothing in common go where there is less to do. */
async function ofEach(engine: EngineHandle): Promise<readonly Reader[]> {
  const readers = engine.pids.map((_, at) => adapted(engine, at + 1));
  await Promise.all(readers.map(({ done }) => done));
  assert.equal(new Set(readers.map(({ engines: [number] }) => number)).size, engine.pids.length);
  return readers;
}

describe("adapters of several engines", () => {
  after(() => Promise.all(engines.splice(0).map((engine) => engine.close())));

  it("are on all of them or none, and on those that start later or again", async () => {
    const engine = await start(2);
    await assert.rejects(engine.loadAdapter(1, "/bad"), isInvalid);
    await engine.loadAdapter(1, "/one");
    const [before] = await ofEach(engine);
    assert.equal(before?.ending, "length");
    process.kill(engine.pids[0] ?? assert.fail("no process"), "SIGKILL");
    await until(() => engine.engines()[0]?.stats.restarts === 1, "it is back");
    await engine.operations.scale(3, 0);
    for (const { ending } of await ofEach(engine)) assert.equal(ending, "length");
    assert.deepEqual((await ofEach(engine))[0]?.tokens, before?.tokens);
    engine.unloadAdapter(1);
    for (const { ending } of await Promise.all(
      engine.pids.map(async (_, at) => {
        const reader = adapted(engine, at + 1);
        await reader.done;
        return reader;
      }),
    ))
      assert.equal(ending, "invalid_request");
    await until(() => isIdle(engine), "nothing is left open");
  });

  it("are loaded while one engine is away, which has them when it is back", async () => {
    const engine = await start(2, { restartAfterMs: 200 });
    process.kill(engine.pids[1] ?? assert.fail("no process"), "SIGKILL");
    await until(() => engine.engines()[1]?.state === "restarting", "it is gone");
    await engine.loadAdapter(1, "/one");
    await until(() => engine.engines()[1]?.state === "ready", "it is back");
    for (const { ending } of await ofEach(engine)) assert.equal(ending, "length");
  });

  it("outlive sleep and other weights, and are not loaded while asleep", async () => {
    const engine = await start(2, { kernelFor: ({ path }) => fakeKernel({ weights: path === undefined ? 0 : 3 }) });
    await engine.loadAdapter(1, "/one");
    const [before] = await ofEach(engine);
    await engine.operations.sleep(1, "abort");
    await assert.rejects(engine.loadAdapter(2, "/two"), /asleep/);
    await engine.operations.wake();
    assert.deepEqual((await ofEach(engine))[0]?.tokens, before?.tokens);
    await engine.operations.reload("other", "abort");
    const [other] = await ofEach(engine);
    assert.equal(other?.ending, "length");
    assert.notDeepEqual(other?.tokens, before?.tokens);
  });
});

describe("what goes with a kernel", () => {
  after(() => Promise.all(engines.splice(0).map((engine) => engine.close())));

  it("a draft model sleeps and wakes with it, and guesses again", async () => {
    const speculation = { method: "draft_model", tokens: 3, lookupMax: 1, lookupMin: 1 } as const;
    const engine = await start(1, { draft: fakeKernel(), speculation });
    const draw = async (): Promise<number[]> => {
      const reader = open(engine, request({ maxTokens: 40 }, { prompt: prompt(1) }));
      await reader.done;
      assert.equal(reader.ending, "length");
      return reader.tokens;
    };
    const before = await draw();
    const guessed = engine.stats().draftTokens;
    assert.ok(guessed > 0);
    await engine.operations.sleep(1, "keep");
    await engine.operations.wake();
    assert.deepEqual(await draw(), before);
    assert.ok(engine.stats().draftTokens > guessed);
  });

  it("spilled prefixes are forgotten with the cache, so that other weights never read them", async () => {
    const directory = mkdtempSync(join(tmpdir(), "castellan-spill-test-"));
    const files = (): number =>
      readdirSync(directory).reduce((sum, name) => sum + readdirSync(join(directory, name)).length, 0);
    const engine = await start(1, {
      kernel: fakeKernel({ maxSequences: 1, contextPerSlot: 512 }),
      kernelFor: ({ path }) =>
        fakeKernel({ maxSequences: 1, contextPerSlot: 512, weights: path === undefined ? 0 : Number(path) }),
      contextLength: 512,
      spill: { directory, maxBytes: 1 << 20 },
    });
    const long = (own: number): Int32Array => Int32Array.from({ length: 200 }, (_, at) => 1 + ((at * own) % 61));
    const draw = async (own: number): Promise<number[]> => {
      const reader = open(engine, request({ maxTokens: 20 }, { prompt: long(own) }));
      await reader.done;
      return reader.tokens;
    };
    const before = await draw(1);
    await draw(2);
    await until(() => files() > 0, "the first prompt went to disk");
    await engine.operations.reload("8", "abort");
    await until(() => files() === 0, "it is gone");
    const { prefixHits } = engine.stats();
    assert.notDeepEqual(await draw(1), before);
    assert.equal(engine.stats().prefixHits, prefixHits);
  });
});
