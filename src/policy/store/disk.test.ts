/**
 * The disk's thread: what is asked of it together, what fails by itself, and the audit log's groups in it.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFileSync, readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Bench, bench, isChained } from "#policy/audit/_fixture.ts";
import { segmentsIn } from "#policy/audit/_segments.ts";
import type { Appended, GroupOnDisk } from "#policy/audit/append.ts";
import type { AuditLog, AuditLogOptions } from "#policy/audit/log.ts";
import { verifyLog } from "#policy/audit/verify.ts";
import { Disk, DiskError } from "./disk.ts";
import type { DiskAnswer } from "./disk-thread.ts";
import { StoreError } from "./store-error.ts";

type Rows = Extract<DiskAnswer, { rows: unknown[] }>;

function opened(t: TestContext, folder: string): Disk {
  const disk = new Disk({ path: join(folder, "scratch.db"), busyTimeoutMs: 1000 });
  t.after(() => disk.close());
  return disk;
}

/** A log whose groups the thread appends, and what became of each. */
function beside(it: Bench, disk: Disk, options: Partial<AuditLogOptions> = {}) {
  const log = it.open(options);
  const done: Appended[] = [];
  log.appendBy(async (group: GroupOnDisk) => {
    const appended = await disk.append(group);
    done.push(appended);
    return appended;
  });
  return { log, done };
}

/** From the third group on a log knows that it is alone. */
async function settled(log: AuditLog): Promise<void> {
  for (let i = 0; i < 2; i++) await log.append("event", { settled: i });
}

const numbers = (it: Bench): unknown[] =>
  it
    .records()
    .map(({ fields }) => fields["i"])
    .filter((i) => i !== undefined);

test("what is asked together is answered in its order, and what fails fails alone", async (t) => {
  const disk = opened(t, bench(t).statePath);
  const answers = await Promise.allSettled([
    disk.ask<Rows>({ sql: "create table t (n integer) strict", parameters: [] }),
    disk.ask<Rows>({ sql: "insert into t values ('x')", parameters: [] }),
    disk.ask<Rows>({ sql: "insert into t values (?)", parameters: [7] }),
    disk.ask<Rows>({ sql: "select n from t", parameters: [] }),
  ]);
  assert.deepEqual(
    answers.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled", "fulfilled"],
  );
  const [, refused, , read] = answers;
  assert.ok(refused?.status === "rejected" && refused.reason instanceof DiskError && refused.reason.code === 3091);
  assert.ok(read?.status === "fulfilled");
  assert.deepEqual(
    read.value.rows.map((row) => ({ ...(row as object) })),
    [{ n: 7 }],
  );
});

test("what cannot be told to a thread is refused, and the thread goes on", async (t) => {
  const disk = opened(t, bench(t).statePath);
  const before = disk.ask<Rows>({ sql: "select 1 as one", parameters: [] });
  await new Promise(setImmediate);
  const unspeakable = disk.ask({ sql: "select ?", parameters: [(() => {}) as unknown as number] });
  await assert.rejects(unspeakable, { name: "DataCloneError" });
  assert.equal((await before).rows.length, 1);
  assert.equal((await disk.ask<Rows>({ sql: "select 1 as one", parameters: [] })).rows.length, 1);
});

test("what was asked before the end is done, and nothing behind it", async (t) => {
  const disk = new Disk({ path: join(bench(t).statePath, "scratch.db"), busyTimeoutMs: 1000 });
  const last = disk.ask<Rows>({ sql: "select 1 as one", parameters: [] });
  await Promise.all([disk.close(), last]);
  await assert.rejects(disk.ask({ sql: "select 1", parameters: [] }), StoreError);
});

test("groups are appended by the thread, chained with what the log wrote itself, over files and days", async (t) => {
  const it = bench(t);
  const { log, done } = beside(it, opened(t, it.statePath), { fileBytes: 3000, checkpointRecords: 40 });
  await settled(log);
  for (let i = 0; i < 60; i++) {
    if (i === 30) it.now += 86_400_000;
    await log.append("event", { i });
  }
  await log.close();
  assert.deepEqual(
    numbers(it),
    Array.from({ length: 60 }, (_, i) => i),
  );
  assert.ok(isChained(it.lines()));
  assert.ok(segmentsIn(it.directory).length > 2);
  assert.ok(done.filter((how) => how === "written").length > 30, done.join());
  const checked = await verifyLog(it.directory);
  assert.deepEqual(checked.findings, []);
  assert.ok(it.records().filter(({ kind }) => kind === "checkpoint").length >= 3);
});

test("a checkpoint that is due is written though the thread appends what is not", async (t) => {
  const it = bench(t);
  const { log, done } = beside(it, opened(t, it.statePath), { checkpointRecords: 10 });
  for (let i = 0; i < 35; i++) await log.append("event", { i });
  const signed = it.records().flatMap(({ kind, seq }) => (kind === "checkpoint" ? [seq] : []));
  assert.equal(signed.length, 3, signed.join());
  assert.ok(done.length >= 25 && !done.includes("elsewhere"), done.join());
});

test("a group larger than what threads share is written by the log itself, a small one behind it by the thread", async (t) => {
  const it = bench(t);
  const { log, done } = beside(it, opened(t, it.statePath), { fileBytes: 1 << 24 });
  await settled(log);
  const text = "x".repeat(10_000);
  await Promise.all(Array.from({ length: 60 }, (_, i) => log.append("event", { i, text })));
  // In characters it would fit.
  const wide = "中".repeat(10_000);
  await Promise.all(Array.from({ length: 20 }, (_, i) => log.append("event", { i: 60 + i, text: wide })));
  assert.deepEqual(done, []);
  for (let i = 80; i < 83; i++) await log.append("event", { i, text: "ü" });
  assert.deepEqual(
    numbers(it),
    Array.from({ length: 83 }, (_, i) => i),
  );
  assert.deepEqual(done, ["written", "written", "written"]);
  assert.ok(isChained(it.lines()));
});

test("several logs append to one chain, with the thread and without", async (t) => {
  const it = bench(t);
  const one = beside(it, opened(t, it.statePath));
  const two = beside(it, opened(t, it.statePath));
  const three = it.open();
  await settled(one.log);
  await one.log.append("event", { i: 0 });
  assert.deepEqual(one.done, ["written"]);
  for (let round = 0; round < 20; round++)
    await Promise.all([one.log, two.log, three].map((log, who) => log.append("event", { i: round, who })));
  assert.ok(one.done.includes("elsewhere"), "it was seen that others had written");
  for (const { log } of [one, two]) await log.close();
  await three.close();
  assert.equal(numbers(it).length, 61);
  assert.ok(isChained(it.lines()));
  assert.deepEqual((await verifyLog(it.directory)).findings, []);
});

test("what somebody else has left in the file is found as without the thread", async (t) => {
  const it = bench(t);
  const { log, done } = beside(it, opened(t, it.statePath));
  await settled(log);
  await log.append("event", { i: 0 });
  const [segment] = segmentsIn(it.directory);
  assert.ok(segment);
  appendFileSync(segment.path, '{"seq":99');
  await log.append("event", { i: 1 });
  assert.deepEqual(done, ["written", "elsewhere"]);
  assert.ok(it.records().some(({ kind }) => kind === "repair"));
  assert.ok(isChained(it.lines()));
});

test("a directory that goes away and comes back: refused meanwhile, and a gap is told", async (t) => {
  const it = bench(t);
  const { log } = beside(it, opened(t, it.statePath));
  await settled(log);
  await log.append("event", { i: 0 });
  renameSync(it.directory, `${it.directory}-away`);
  await assert.rejects(log.append("event", { i: 1 }));
  renameSync(`${it.directory}-away`, it.directory);
  await log.append("event", { i: 2 });
  assert.deepEqual(numbers(it), [0, 2]);
  assert.ok(it.records().some(({ kind }) => kind === "gap"));
  assert.ok(isChained(it.lines()));
});

test("a log goes on by itself when the thread has ended", async (t) => {
  const it = bench(t);
  const disk = new Disk({ path: join(it.statePath, "scratch.db"), busyTimeoutMs: 1000 });
  const { log, done } = beside(it, disk);
  await settled(log);
  await log.append("event", { i: 0 });
  await disk.close();
  await log.append("event", { i: 1 });
  assert.deepEqual(done, ["written", "elsewhere"]);
  assert.deepEqual(numbers(it), [0, 1]);
});

/** Appends what fits, and half of what does not: no file may grow beyond 4 KiB there. */
const FULL = `
  const { appendGroup } = await import(process.argv[1]);
  const { statSync } = await import("node:fs");
  const [directory, path] = process.argv.slice(2);
  const put = (bytes) => { const { ino, size } = statSync(path); return appendGroup({ directory, path, ino, length: size }, Buffer.alloc(bytes, "x")); };
  const said = [put(1000)];
  try { said.push(put(8000)); } catch (error) { said.push(error.code); }
  console.log([...said, put(1000)].join());
`;

test("what could not be written whole is taken away again", async (t) => {
  const it = bench(t);
  const log = it.open();
  await log.append("event", {});
  await log.close();
  const [segment] = segmentsIn(it.directory);
  assert.ok(segment);
  const before = readFileSync(segment.path);
  const module = new URL("../audit/append.ts", import.meta.url).href;
  const command = `trap '' XFSZ; ulimit -f 8; exec "$0" --disable-warning=ExperimentalWarning --input-type=module -e "$@"`;
  const said = execFileSync("/bin/sh", ["-c", command, process.execPath, FULL, module, it.directory, segment.path]);
  assert.equal(said.toString().trim(), "written,EFBIG,written");
  assert.equal(statSync(segment.path).size, before.length + 2000);
  assert.ok(readFileSync(segment.path).subarray(0, before.length).equals(before));
});
