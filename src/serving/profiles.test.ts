import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { FakeOperations, type FakeParts, fakeServerOperations } from "./_fake-operations.ts";
import { grant } from "./_fixture.ts";

const may = grant("profile", "default");
const faultOf = (message: RegExp) => (error: unknown) =>
  error instanceof Fault && error.kind === "invalid_request" && message.test(error.message);
const timeoutOf = (message: RegExp) => (error: unknown) =>
  error instanceof Fault && error.kind === "request_timeout" && message.test(error.message);
/** What can go on has gone on. */
const turns = (): Promise<void> => new Promise((done) => setImmediate(done));

function scene(profiles: FakeParts["profiles"] = {}) {
  const operations = new FakeOperations();
  const written = new Map<string, string>();
  const folder = {
    ready: async () => {},
    write: async (name: string, text: string) => void written.set(name, text),
  };
  const made = fakeServerOperations({ operations, profiles: { folder, ...profiles } });
  return { operations, written, profiles: made.profiles };
}

test("a profile is two files with names of the server's own", async () => {
  const { operations, written, profiles } = scene();
  assert.equal(await profiles.start(may), 60);
  await assert.rejects(profiles.start(may), faultOf(/stop it first/));
  const { files, leftOut } = await profiles.stop(may);
  assert.deepEqual(leftOut, []);
  assert.match(files.join(" "), /^(profile-\d{8}T\d{6}Z-[0-9a-f]{8})-http\.cpuprofile \1-engine\.trace\.json$/);
  assert.deepEqual(
    [...written],
    [
      [files[0], '{"nodes":[]}'],
      [files[1], '{"traceEvents":[],"displayTimeUnit":"ms"}'],
    ],
  );
  assert.deepEqual(operations.asked, ["start-profile", "stop-profile"]);
  await assert.rejects(profiles.stop(may), faultOf(/No profile/));
});

test("it ends by itself, and is written once, whoever comes first", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { operations, written, profiles } = scene({ maxSeconds: 5 });
  await assert.rejects(profiles.start(may, 6), faultOf(/5 seconds at most/));
  assert.equal(await profiles.start(may, 2), 2);
  t.mock.timers.tick(2000);
  const [one, other] = [profiles.stop(may), profiles.stop(may)];
  assert.deepEqual((await one).files, (await other).files);
  assert.deepEqual([written.size, operations.asked], [2, ["start-profile", "stop-profile"]]);
  await profiles.start(may, 1);
  t.mock.timers.tick(1000);
  await profiles.start(may, 1);
  await profiles.stop(may);
  assert.equal(written.size, 6, "one that nobody stopped makes room for the next");
});

test("what is too large is not written, and said; what cannot be had does not spoil the rest", async () => {
  const large = scene({ cpu: { start: async () => {}, stop: async () => ({ nodes: "x".repeat(1000) }) } });
  await large.profiles.start(may);
  const { files, leftOut } = await large.profiles.stop(may);
  assert.deepEqual([files.length, leftOut.length, large.written.size], [1, 1, 1]);
  assert.match(leftOut[0] ?? "", /http\.cpuprofile$/);
  const broken = scene({
    cpu: {
      start: async () => {},
      stop: async () => {
        throw new Error("no profiler");
      },
    },
  });
  await broken.profiles.start(may);
  assert.match((await broken.profiles.stop(may)).leftOut[0] ?? "", /http\.cpuprofile$/);
});

test("a start that fails leaves nothing recording", async () => {
  const { operations, profiles } = scene({
    cpu: {
      start: async () => {
        throw new Error("no profiler");
      },
      stop: async () => ({}),
    },
  });
  await assert.rejects(profiles.start(may), /no profiler/);
  assert.deepEqual(operations.asked, ["start-profile", "stop-profile"]);
  await assert.rejects(profiles.stop(may), faultOf(/No profile/));
});

test("an engine that does not answer: the start fails in time, and the next one works", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { operations, written, profiles } = scene({ waitMs: 10 });
  const hanging = Promise.withResolvers<void>();
  operations.waits.set("start-profile", hanging.promise);
  const late = assert.rejects(profiles.start(may), timeoutOf(/engines do not answer: nothing is recorded/));
  await turns();
  await assert.rejects(profiles.start(may), faultOf(/stop it first/));
  t.mock.timers.tick(10);
  await late;
  await assert.rejects(profiles.stop(may), faultOf(/No profile/));
  hanging.resolve();
  await turns();
  assert.deepEqual(operations.asked, ["start-profile", "stop-profile"], "what began too late was told to stop");
  operations.waits.clear();
  await profiles.start(may);
  assert.equal((await profiles.stop(may)).files.length, 2);
  assert.equal(written.size, 2);
});

test("an engine that begins late does not end the profile that has begun meanwhile", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { operations, profiles } = scene({ waitMs: 10 });
  const hanging = Promise.withResolvers<void>();
  operations.waits.set("start-profile", hanging.promise);
  const late = assert.rejects(profiles.start(may), timeoutOf(/engines/));
  await turns();
  t.mock.timers.tick(10);
  await late;
  operations.waits.clear();
  await profiles.start(may);
  hanging.resolve();
  await turns();
  assert.deepEqual(operations.asked, ["start-profile", "start-profile"]);
  await profiles.stop(may);
});

test("what does not answer at the end is left out; the rest is written, and there is a next one", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const never = new Promise<never>(() => {});
  const { operations, profiles } = scene({ waitMs: 10 });
  await profiles.start(may);
  operations.waits.set("stop-profile", never);
  const stopped = profiles.stop(may);
  await turns();
  t.mock.timers.tick(10);
  const { files, leftOut } = await stopped;
  assert.match(files.join(), /^[^,]*http\.cpuprofile$/);
  assert.match(leftOut.join(), /^[^,]*engine\.trace\.json$/);
  operations.waits.clear();
  await profiles.start(may);
  assert.equal((await profiles.stop(may)).files.length, 2);
  const noProfiler = scene({ waitMs: 10, cpu: { start: () => never, stop: async () => ({}) } });
  const late = assert.rejects(noProfiler.profiles.start(may), timeoutOf(/profiler/));
  await turns();
  t.mock.timers.tick(10);
  await late;
  assert.deepEqual(noProfiler.operations.asked, ["start-profile", "stop-profile"]);
  for (const folder of [
    { ready: () => never, write: async () => {} },
    { ready: async () => {}, write: () => never },
  ]) {
    const deaf = scene({ waitMs: 10, folder });
    const failed = assert.rejects(
      deaf.profiles.start(may).then(() => deaf.profiles.stop(may)),
      timeoutOf(/folder/),
    );
    await turns();
    t.mock.timers.tick(10);
    await failed;
    await assert.rejects(deaf.profiles.stop(may), faultOf(/No profile/));
  }
});
