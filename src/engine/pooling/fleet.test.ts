/**
 * Pooling over several engines and through operations.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { PoolResult } from "#core/pool.ts";
import { startEngine } from "#engine/launcher.ts";
import type { EngineHandle, EngineOptions } from "#engine/options.ts";
import { EMBEDS, LIMITS, poolRequest } from "./_fixture.ts";
import type { FakePoolingScript } from "./fake.ts";

const NEVER = new AbortController().signal;
const engines: EngineHandle[] = [];
after(() => Promise.all(engines.map((engine) => engine.close())));

async function start(script: FakePoolingScript = {}, changes: Partial<EngineOptions> = {}): Promise<EngineHandle> {
  const facts = { architecture: "fake", contextLength: 64, trainedContext: 64, vocabularySize: 64 };
  const engine = await startEngine({
    ...LIMITS,
    model: { ...facts, parameters: 0, createdAt: 0, pooling: EMBEDS },
    kernel: { kernel: "fake-pooling", script },
    replicas: 2,
    restartAfterMs: 5,
    ...changes,
  });
  engines.push(engine);
  return engine;
}

const many = (engine: EngineHandle, count = 40): Promise<readonly PoolResult[]> =>
  Promise.all(
    Array.from({ length: count }, (_, at) =>
      engine.pool(
        poolRequest([
          [at % 60, 1],
          [2, at % 60],
        ]),
        NEVER,
      ),
    ),
  );
const values = (results: readonly PoolResult[]): number[][] =>
  results.flatMap(({ outputs }) => outputs.map((output) => [...output.values]));
const kindOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (error: unknown) => (error instanceof Fault ? error.kind : String(error)),
  );

async function until(holds: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 5000; i++) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.fail(`waited in vain: ${what}`);
}

test("requests are spread, and the numbers are those of one engine", async () => {
  const [one, two] = [await start({}, { replicas: 1 }), await start()];
  assert.deepEqual(values(await many(two)), values(await many(one)));
  const tokens = two.engines().map(({ stats }) => stats.promptTokens);
  assert.ok(tokens.every((count) => count > 0) && tokens.reduce((a, b) => a + b, 0) === 160);
  assert.deepEqual(two.counters(), { requests: 0, sequences: 0, paused: 0, timers: 0 });
});

test("a pause holds, an operator aborts what is held, sleep gives the kernel back and wake computes as before", async () => {
  const engine = await start();
  const before = values(await many(engine));
  await engine.operations.pause("wait", true);
  const held = engine.pool({ ...poolRequest([[1]]), id: "held" }, NEVER);
  const other = engine.pool({ ...poolRequest([[1]]), id: "other" }, NEVER);
  const leaving = new AbortController();
  const gone = engine.pool(poolRequest([[1]]), leaving.signal);
  assert.equal(engine.held(), 3);
  leaving.abort();
  assert.equal(await kindOf(gone), "cancelled");
  assert.equal(engine.operations.abort(["held"]), 1);
  assert.equal(await kindOf(held), "engine_unavailable");
  await engine.operations.resume();
  assert.equal(await kindOf(other), "none");
  await engine.operations.sleep(1, "keep");
  const asleep = many(engine);
  assert.ok(engine.held() > 0);
  await engine.operations.wake();
  assert.deepEqual(values(await asleep), before);
});

test("a request whose engine dies is computed by the other; one that kills both fails", async () => {
  const engine = await start({ poison: { token: 63, fault: "crash" } }, { restartAfterMs: 60_000 });
  await engine.operations.pause("keep", false);
  process.kill(engine.pids[0] ?? assert.fail("no process"), "SIGKILL");
  await engine.operations.resume();
  await until(() => engine.engines()[0]?.state === "restarting", "one is gone");
  assert.equal((await many(engine)).length, 40);
  assert.equal(await kindOf(engine.pool(poolRequest([[63]]), NEVER)), "engine_failed");
});

test("other weights of the same shape take over; another kind of model is refused", async () => {
  const engine = await start(
    {},
    {
      kernelFor: ({ path }): EngineOptions["kernel"] => {
        if (path === "other") return { kernel: "fake", script: {} };
        return { kernel: "fake-pooling", script: path === "wide" ? { width: 9 } : {} };
      },
    },
  );
  const before = values(await many(engine));
  for (const path of ["other", "wide"])
    assert.equal(await kindOf(engine.operations.reload(path, "keep")), "invalid_request");
  await engine.operations.reload("same", "keep");
  assert.deepEqual(values(await many(engine)), before);
  assert.equal(engine.stats().restarts, 0);
});
