import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "#base/log.ts";
import { type Batch, type BatchChange, type BatchRecords, type BatchStatus, OPEN_STATUSES } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { Files } from "./files.ts";
import { BatchRunner } from "./runner.ts";

const batch: Batch = {
  id: "batch_1",
  tenant: "t",
  author: { id: "k", kind: "key", role: "user", scopes: [], reach: {}, limits: {}, caps: {} },
  status: "validating",
  endpoint: "/v1/completions",
  inputFileId: "file-1",
  window: "24h",
  metadata: null,
  createdAt: 0,
  expiresAt: Number.MAX_SAFE_INTEGER,
  times: {},
  counts: { total: 0, completed: 0, failed: 0 },
};

test("a store that was away for a moment does not end a batch, nor lose what was done of it", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-runner-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(
    join(folder, batch.inputFileId),
    '{"custom_id":"a","method":"POST","url":"/v1/completions","body":{}}\n',
  );
  let [now, runs, away] = [batch, 0, false];
  const over = Promise.withResolvers<void>();
  const records = {
    open: async () => (OPEN_STATUSES.includes(now.status) ? [now] : []),
    get: async () => now,
    change: async (_id: string, from: readonly BatchStatus[], change: BatchChange) => {
      if (away) {
        away = false;
        throw new Fault("policy_unavailable", "The store is away.");
      }
      if (from.includes(now.status)) now = { ...now, ...change };
      if (!OPEN_STATUSES.includes(now.status)) over.resolve();
      return true;
    },
    addFile: async () => true,
    removeFile: async () => {},
    expiredFiles: async () => [],
    fileIds: async () => [],
    removeOver: async () => {},
  } as unknown as BatchRecords;
  const room = { allBytes: 1, tenantBytes: 1, tenantFiles: 1 };
  const runner = new BatchRunner({
    records,
    files: new Files({ records, folder, room, keepMs: 1000 }),
    call: () => ({
      run: async () => {
        runs++;
        away = true;
        return { customId: "a", id: "1", requestId: "2", status: 200, answer: "{}" };
      },
      close: () => {},
    }),
    width: 1,
    mostLines: 10,
    lineBytes: 1000,
    mostBytes: 100_000,
    keepMs: 1000,
    log: silentLog,
  });
  runner.start();
  await over.promise;
  await runner.close();
  assert.deepEqual([now.status, now.counts, runs], ["completed", { total: 1, completed: 1, failed: 0 }, 1]);
});

test("a batch whose end cannot be kept is not tried again and again without a pause", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-runner-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  let tries = 0;
  const records = {
    open: async () => [batch],
    get: async () => batch,
    change: async () => {
      tries++;
      throw new Error("the disk is full");
    },
    expiredFiles: async () => [],
    fileIds: async () => [],
    removeOver: async () => {},
  } as unknown as BatchRecords;
  const room = { allBytes: 1, tenantBytes: 1, tenantFiles: 1 };
  const runner = new BatchRunner({
    records,
    files: new Files({ records, folder, room, keepMs: 1 }),
    call: () => assert.fail("no line is run"),
    width: 1,
    mostLines: 1,
    lineBytes: 1,
    mostBytes: 1,
    keepMs: 1,
    log: silentLog,
  });
  runner.start();
  for (let turn = 0; turn < 3000 && tries < 20; turn++) await new Promise(setImmediate);
  await runner.close();
  assert.ok(tries > 0 && tries < 20, `${tries} tries`);
});
