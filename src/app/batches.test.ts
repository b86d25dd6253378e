import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { alone } from "./batches.ts";

test("a lock that cannot be had is told and asked for again, and ends nothing", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-batches-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const told: string[] = [];
  const failed = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  let open = 0;
  const runner = {
    start: () => {
      open++;
      started.resolve();
    },
    close: async () => {
      open--;
    },
  };
  const log = (level: string): void => {
    told.push(level);
    failed.resolve();
  };
  const stop = alone(join(folder, "later", "lock"), log, () => runner, 1);
  await failed.promise;
  mkdirSync(join(folder, "later"));
  await started.promise;
  assert.equal(told[0], "error");
  await stop();
  assert.equal(open, 0);
});

test("of two servers on one state directory one runs the batches, and the other takes over when it ends", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-batches-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const runs: string[] = [];
  const server = (name: string) => {
    const started = Promise.withResolvers<void>();
    const runner = () => ({
      start: () => {
        runs.push(`${name} runs`);
        started.resolve();
      },
      close: async () => void runs.push(`${name} ends`),
    });
    return { stop: alone(join(folder, "lock"), () => {}, runner, 1), started: started.promise };
  };
  const first = server("first");
  await first.started;
  const second = server("second");
  // It has had the time to ask for the lock, and would run now.
  for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate);
  assert.deepEqual(runs, ["first runs"]);
  await first.stop();
  await second.started;
  assert.deepEqual(runs, ["first runs", "first ends", "second runs"]);
  await second.stop();
  assert.equal(runs.at(-1), "second ends");
});
