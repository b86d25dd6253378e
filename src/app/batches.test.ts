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
