import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { FakeOperations, fakeServerOperations, ONE_ENGINE } from "./_fake-operations.ts";
import { grant } from "./_fixture.ts";

const ops = grant("ops", "default");
/** What can go on has gone on. */
const turns = (): Promise<void> => new Promise((done) => setImmediate(done));
const faultOf =
  (kind: string, message = /./) =>
  (error: unknown) =>
    error instanceof Fault && error.kind === kind && message.test(error.message);

test("what is asked for reaches the engines; scaling loses nothing", async () => {
  const operations = new FakeOperations();
  const { engine } = fakeServerOperations({ operations });
  await engine.pause(ops, "keep", false);
  assert.equal(engine.isPaused(ops), true);
  await engine.resume(ops);
  await engine.sleep(ops, 2, "wait");
  assert.equal(engine.isSleeping(ops), true);
  await engine.wake(ops, ["weights"]);
  assert.equal(await engine.scale(ops, 3, 1000), 3);
  assert.equal(await engine.resetPrefixCache(ops, true), true);
  assert.deepEqual(operations.asked, [
    "pause keep false",
    "resume",
    "sleep 2 wait",
    "wake weights",
    "scale 3 1000 stay",
    "reset true",
  ]);
});

test("a pause that waits is called off by a resume, and says what holds when it takes too long", async () => {
  const operations = new FakeOperations();
  const waiting = Promise.withResolvers<void>();
  operations.waits.set("pause", waiting.promise);
  const { engine } = fakeServerOperations({ operations, line: { workMs: 1 } });
  await assert.rejects(engine.pause(ops, "wait", false), faultOf("request_timeout", /nothing new begins/));
  await engine.resume(ops);
  assert.deepEqual([operations.asked.at(-1), engine.isPaused(ops)], ["resume", false]);
  waiting.resolve();
});

test("while engines are added it is said, until it failed", async () => {
  const operations = new FakeOperations();
  const starting = Promise.withResolvers<void>();
  operations.waits.set("scale", starting.promise);
  const { engine } = fakeServerOperations({ operations });
  const scaling = engine.scale(ops, 2, 0);
  assert.equal(engine.isScaling(ops), true);
  starting.reject(new Fault("engine_unavailable", "a new engine did not start"));
  await assert.rejects(scaling, faultOf("engine_unavailable"));
  assert.deepEqual([engine.isScaling(ops), engine.engineCount], [false, 1]);
});

test("a tenant's operator ends its own tenant's answers, the operator's any", () => {
  const operations = new FakeOperations();
  const { engine } = fakeServerOperations({ operations });
  for (const tenant of ["a", "b", "default"])
    operations.calls.add(`${tenant}\0chatcmpl-1`).add(`${tenant}\0chatcmpl-2`);
  assert.equal(engine.abort(grant("ops", "a"), ["chatcmpl-1", "chatcmpl-9", "b\0chatcmpl-2"]), 1);
  assert.ok(operations.calls.has("b\0chatcmpl-1") && !operations.calls.has("a\0chatcmpl-1"));
  assert.equal(engine.abort(ops, ["chatcmpl-2"]), 3);
  assert.deepEqual([...operations.calls], ["b\0chatcmpl-1", "default\0chatcmpl-1"]);
});

test("what may be called by name is a closed list", async () => {
  const { engine } = fakeServerOperations();
  const dev = grant("dev", "default");
  assert.deepEqual(await engine.rpc(dev, "check_health", undefined), [{ engine: 0, state: "ready" }]);
  assert.deepEqual(await engine.rpc(dev, "get_stats", 1), [{ engine: 0, ...ONE_ENGINE[0]?.stats }]);
  assert.deepEqual(await engine.rpc(dev, "reset_prefix_cache", 1), [true]);
  for (const method of ["reload", "sleep", "constructor", "__proto__", "toString", "eval", "check_health "])
    await assert.rejects(engine.rpc(dev, method, 1), faultOf("invalid_request", /one of check_health/), method);
});

test("engines that are down are started at once, and the work goes on when all are back", async () => {
  const operations = new FakeOperations();
  let state: "restarting" | "ready" = "restarting";
  const engines = () => ONE_ENGINE.map((one) => ({ ...one, state }));
  const { supervision } = fakeServerOperations({ operations, engines });
  await supervision.apply(ops, "pause", 1000);
  assert.equal(operations.asked.at(-1), "pause keep false");
  await assert.rejects(supervision.apply(ops, "retry", 1), faultOf("request_timeout"));
  assert.deepEqual([operations.asked.at(-1), operations.paused], ["restart", true], "what was held is held");
  state = "ready";
  await supervision.apply(ops, "retry", 1000);
  assert.deepEqual([operations.asked.at(-1), operations.paused], ["resume", false]);
  assert.deepEqual(supervision.status(ops), [{ engine: 0, state: "ready", restarts: 0 }]);
});

test("engines that never answer: everything that is asked for ends in time, and what comes behind it too", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const [dev, weights] = [grant("dev", "default"), grant("weights", "default")];
  const update = { path: "/w", sha256: "0", mode: "wait" } as const;
  const never = new AbortController().signal;
  type Asked = (made: ReturnType<typeof fakeServerOperations>) => Promise<unknown>;
  const asks: readonly (readonly [hangs: string, asked: Asked])[] = [
    ["pause", ({ engine }) => engine.pause(ops, "wait", false)],
    ["resume", ({ engine }) => engine.resume(ops)],
    ["sleep", ({ engine }) => engine.sleep(ops, 1, "wait")],
    ["wake", ({ engine }) => engine.wake(ops, undefined)],
    ["scale", ({ engine }) => engine.scale(ops, 2, 1000)],
    ["reset", ({ engine }) => engine.resetPrefixCache(ops, true)],
    ["reset", ({ engine }) => engine.rpc(dev, "reset_prefix_cache", undefined)],
    ["reload", (made) => made.weights.update(weights, { ...update, mode: "keep" }, never)],
    ["pause", (made) => made.weights.update(weights, update, never)],
    ["resume", (made) => made.weights.update(weights, update, never)],
    ["pause", ({ supervision }) => supervision.apply(ops, "pause", 1000)],
    ["resume", ({ supervision }) => supervision.apply(ops, "retry", 1000)],
  ];
  for (const [hangs, asked] of asks) {
    const operations = new FakeOperations();
    operations.waits.set(hangs, new Promise(() => {}));
    const made = fakeServerOperations({ operations });
    const first = asked(made).then(
      () => "done",
      (error: unknown) => error,
    );
    await turns();
    const behind = made.engine.sleep(ops, 0, "keep").then(
      () => "done",
      (error: unknown) => error,
    );
    for (let minutes = 0; minutes < 10; minutes++) {
      await turns();
      t.mock.timers.tick(60_000);
    }
    const ended = await first;
    assert.ok(ended instanceof Fault && ended.kind === "request_timeout", `${hangs} ${asked}: ${ended}`);
    assert.ok((await behind) instanceof Fault || (await behind) === "done", `${hangs} ${asked}`);
  }
});
