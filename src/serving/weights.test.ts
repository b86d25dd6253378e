import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, invalid } from "#core/fault.ts";
import { UNMETERED } from "#core/metering.ts";
import type { Grant } from "#core/principal.ts";
import { AuditFailure } from "#policy/audit/log.ts";
import { authorize } from "#policy/authorize.ts";
import { principalOf } from "#policy/roles.ts";
import { FakeOperations, type FakeParts, fakeServerOperations } from "./_fake-operations.ts";

function trainer(id: string): Grant<"weights"> {
  return authorize(principalOf({ id, tenant: "default", role: "trainer" }), "weights", UNMETERED);
}

const [one, other] = [trainer("key_one"), trainer("key_other")];
const signal = new AbortController().signal;
const call = { path: "/w/new.gguf", sha256: "ab", mode: "keep" } as const;
const faultOf =
  (kind: string, message = /./) =>
  (error: unknown) =>
    error instanceof Fault && error.kind === kind && message.test(error.message);

function scene(weights: FakeParts["weights"] = {}) {
  const operations = new FakeOperations();
  return { operations, weights: fakeServerOperations({ operations, weights }).weights };
}

test("within an update a file is used at its finish, without one at once", async () => {
  const { operations, weights } = scene();
  weights.start(one);
  assert.equal(await weights.update(one, call, signal), false);
  assert.equal(await weights.update(one, { ...call, path: "/w/newer.gguf" }, signal), false);
  assert.deepEqual(operations.asked, []);
  await weights.finish(one);
  assert.deepEqual(operations.asked, ["reload /w/newer.gguf keep"]);
  await assert.rejects(weights.finish(one), faultOf("invalid_request", /nothing to finish/));
  assert.equal(await weights.update(other, { ...call, mode: "abort" }, signal), true);
  assert.equal(operations.asked.at(-1), "reload /w/new.gguf abort");
});

test("an update is its principal's; another begins anew and never finishes what it has not seen", async () => {
  const { operations, weights } = scene();
  weights.start(one);
  await weights.update(one, call, signal);
  await assert.rejects(weights.finish(other), faultOf("invalid_request", /Somebody else/));
  await assert.rejects(weights.update(other, call, signal), faultOf("invalid_request", /Somebody else/));
  weights.start(other);
  await assert.rejects(weights.finish(other), faultOf("invalid_request", /nothing to finish/));
  await assert.rejects(weights.finish(one), faultOf("invalid_request", /Somebody else/));
  assert.deepEqual(operations.asked, []);
});

test("an update that is dropped while its file is read takes nothing with it", async () => {
  const reading = Promise.withResolvers<void>();
  const { operations, weights } = scene({
    judge: async (path, sha256) => {
      await reading.promise;
      return { path, sha256, bytes: 1, unchanged: () => true };
    },
  });
  weights.start(one);
  const update = weights.update(one, call, signal);
  weights.start(other);
  reading.resolve();
  await assert.rejects(update, faultOf("invalid_request", /dropped/));
  await assert.rejects(weights.finish(other), faultOf("invalid_request"));
  assert.deepEqual(operations.asked, []);
});

test("waiting: what has begun ends first; too late, or paused before, it is as it was", async () => {
  const { operations, weights } = scene({ waitMs: 1 });
  await weights.update(one, { ...call, mode: "wait" }, signal);
  assert.deepEqual(operations.asked, ["pause wait false", "reload /w/new.gguf keep", "resume"]);
  operations.asked.length = 0;
  const running = Promise.withResolvers<void>();
  operations.waits.set("pause", running.promise);
  await assert.rejects(
    weights.update(one, { ...call, mode: "wait" }, signal),
    faultOf("request_timeout", /old weights serve on/),
  );
  assert.deepEqual([operations.asked, operations.paused], [["pause wait false", "resume"], false]);
  running.resolve();
  operations.waits.clear();
  operations.asked.length = 0;
  operations.paused = true;
  await weights.update(one, { ...call, mode: "wait" }, signal);
  assert.deepEqual([operations.asked, operations.paused], [["pause wait false", "reload /w/new.gguf keep"], true]);
});

test("nothing is swapped that was refused, has changed, cannot be recorded, or while the engine sleeps", async () => {
  const refused = scene({
    judge: async () => {
      throw invalid("update_info.path", "its SHA-256 is not the one that was named");
    },
  });
  await assert.rejects(refused.weights.update(one, call, signal), faultOf("invalid_request", /SHA-256/));
  const changed = scene({ judge: async (path, sha256) => ({ path, sha256, bytes: 1, unchanged: () => false }) });
  await assert.rejects(changed.weights.update(one, call, signal), faultOf("invalid_request", /has changed/));
  const unrecorded = scene({
    record: async () => {
      throw new AuditFailure("full");
    },
  });
  await assert.rejects(unrecorded.weights.update(one, call, signal), faultOf("policy_unavailable"));
  const asleep = scene();
  asleep.operations.sleeping = "discard_all";
  await assert.rejects(asleep.weights.update(one, call, signal), faultOf("invalid_request", /asleep/));
  for (const { operations } of [refused, changed, unrecorded, asleep]) assert.deepEqual(operations.asked, []);
});

test("the change is recorded before it is made", async () => {
  const order: unknown[] = [];
  const { operations, weights } = scene({
    record: async (kind, actor, _subject, details) => {
      order.push(kind, actor.id, details, [...operations.asked]);
    },
  });
  await weights.update(one, call, signal);
  assert.deepEqual(order, ["weights.change", "key_one", { sha256: "ab", bytes: 1, mode: "keep" }, []]);
  assert.deepEqual([weights.worldSize(one, true), weights.worldSize(one, false)], [1, 1]);
});
