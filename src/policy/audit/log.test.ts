/**
 * The log by itself: what is promised is on the disk, chained, whatever fails and whoever else writes.
 */
import assert from "node:assert/strict";
import {
  appendFileSync,
  chmodSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { bench, isChained } from "./_fixture.ts";
import { segmentsIn } from "./_segments.ts";
import { DISK } from "./_writer.ts";
import { AuditFailure } from "./log.ts";
import { MAX_LINE } from "./record.ts";
import { verifyLog } from "./verify.ts";

const kinds = (records: readonly { readonly kind: string }[]): string[] => records.map(({ kind }) => kind);
const failsWith = (reason: string) => (error: unknown) => error instanceof AuditFailure && error.reason === reason;
const fault = (code: string) => Object.assign(new Error(code), { code });

test("records are on the disk in their order, chained, in private files, when their promises resolve", async (t) => {
  const it = bench(t);
  const log = it.open();
  const seqs = await Promise.all(Array.from({ length: 50 }, (_, i) => log.append("event", { i })));
  assert.deepEqual(
    seqs,
    Array.from({ length: 50 }, (_, i) => i + 2),
    "the file's own record is the first",
  );
  assert.deepEqual(
    it
      .records()
      .slice(1)
      .map(({ fields }) => fields["i"]),
    Array.from({ length: 50 }, (_, i) => i),
  );
  await log.close();
  assert.ok(isChained(it.lines()));
  assert.equal(it.records().at(-1)?.kind, "checkpoint");
  assert.equal(statSync(it.directory).mode & 0o777, 0o700);
  for (const name of readdirSync(it.directory)) assert.equal(statSync(join(it.directory, name)).mode & 0o077, 0, name);
  await assert.rejects(log.append("event", {}), failsWith("closed"));
});

test("what waits is written together", async (t) => {
  const it = bench(t);
  let writes = 0;
  const log = it.open();
  it.write = (fd, bytes) => {
    writes++;
    return DISK.write(fd, bytes);
  };
  await Promise.all(Array.from({ length: 500 }, (_, i) => log.append("event", { i })));
  assert.ok(writes <= 3, `${writes} writes`);
});

test("the chain goes on over a restart", async (t) => {
  const it = bench(t);
  for (let i = 0; i < 3; i++) {
    const log = it.open();
    await log.append("event", { i });
    await log.close();
  }
  assert.ok(isChained(it.lines()));
  assert.equal(segmentsIn(it.directory).length, 1);
});

test("several writers append to one chain", async (t) => {
  const it = bench(t);
  const logs = [it.open(), it.open(), it.open()];
  await Promise.all(
    logs.flatMap((log, writer) => Array.from({ length: 40 }, (_, i) => log.append("event", { writer, i }))),
  );
  for (const log of logs) {
    await log.append("event", { writer: "again" });
    await log.close();
  }
  assert.ok(isChained(it.lines()));
  assert.equal(kinds(it.records()).filter((kind) => kind === "event").length, 123);
  assert.deepEqual((await verifyLog(it.directory)).findings, []);
});

test("a file ends with its size and with the day; the next one goes on; the oldest go, and it is told", async (t) => {
  const it = bench(t);
  const log = it.open({ fileBytes: 2000, keepFiles: 4 });
  for (let i = 0; i < 40; i++) await log.append("event", { i, text: "x".repeat(200) });
  it.now += 86_400_000;
  await log.append("event", { last: true });
  await log.close();
  const segments = segmentsIn(it.directory);
  assert.equal(segments.length, 4);
  assert.ok((segments[0]?.number ?? 0) > 4);
  for (const { path } of segments) assert.ok(statSync(path).size < 4000);
  const checked = await verifyLog(it.directory);
  assert.deepEqual(checked.findings, []);
  assert.match(checked.notes.join(), /were removed because of their number or age/);
});

test("files go by age, too", async (t) => {
  const it = bench(t);
  const log = it.open({ keepDays: 3 });
  for (let i = 0; i < 10; i++) {
    await log.append("event", { i });
    it.now += 86_400_000;
  }
  assert.ok(segmentsIn(it.directory).length <= 5);
  await log.close();
  assert.deepEqual((await verifyLog(it.directory)).findings, []);
});

test("heads are signed after so many records, and after a time in which there were any", async (t) => {
  const it = bench(t);
  const log = it.open({ checkpointRecords: 10, checkpointMs: 5000 });
  for (let i = 0; i < 25; i++) await log.append("event", { i });
  const signed = () => kinds(it.records()).filter((kind) => kind === "checkpoint").length;
  const before = signed();
  assert.ok(before >= 2);
  it.now += 6000;
  await log.append("event", {});
  assert.equal(signed(), before + 1);
  await log.close();
  const heads = readFileSync(join(it.statePath, "..", "heads"), "utf8")
    .trim()
    .split("\n");
  assert.equal(heads.length, signed());
  assert.deepEqual((await verifyLog(it.directory, { heads: heads.map((text) => JSON.parse(text)) })).findings, []);
});

test("a line that a crash left unfinished is taken away, and the log says so", async (t) => {
  const it = bench(t);
  const first = it.open();
  await first.append("event", { i: 1 });
  const file = segmentsIn(it.directory)[0]?.path ?? "";
  appendFileSync(file, '{"seq":3,"prev":"00');
  assert.deepEqual(
    (await verifyLog(it.directory)).findings.map(({ kind }) => kind),
    ["torn"],
  );
  const second = it.open();
  await second.append("event", { i: 2 });
  assert.ok(isChained(it.lines()));
  assert.deepEqual(kinds(it.records()), ["segment", "event", "repair", "event"]);
  assert.equal(it.records()[2]?.fields["bytes"], 19);
  assert.ok(it.logged.some(({ level, message }) => level === "warn" && /unfinished line/.test(message)));
  assert.deepEqual((await verifyLog(it.directory)).findings, []);
});

test("a crash right after a file was begun leaves a file that is begun again", async (t) => {
  const it = bench(t);
  const first = it.open();
  await first.append("event", { i: 1 });
  appendFileSync(join(it.directory, "audit-00000002.jsonl"), "{", { mode: 0o600 });
  const second = it.open();
  await second.append("event", { i: 2 });
  await second.close();
  assert.ok(isChained(it.lines()));
  assert.deepEqual((await verifyLog(it.directory)).findings, []);
});

test("a disk that is full refuses, keeps none of it, and is used again when there is room", async (t) => {
  const it = bench(t);
  const log = it.open();
  await log.append("event", { i: 1 });
  // Half of the bytes fit: what was refused shall not stand there.
  it.write = async (fd, bytes) => {
    await DISK.write(fd, bytes.subarray(0, bytes.length >> 1));
    throw fault("ENOSPC");
  };
  await assert.rejects(log.append("event", { i: 2 }), failsWith("full"));
  await assert.rejects(log.append("event", { i: 3 }), failsWith("full"));
  assert.equal(log.healthy, false);
  assert.equal(it.lines().length, 2);
  it.write = undefined;
  await log.append("event", { i: 4 });
  assert.equal(log.healthy, true);
  assert.ok(isChained(it.lines()));
  const gap = it.records().find(({ kind }) => kind === "gap");
  assert.deepEqual([gap?.fields["refused"], gap?.fields["reason"]], [2, "full"]);
  assert.deepEqual([log.stats().failures.full, log.stats().records.event], [2, 2]);
});

test("it tries again by itself", async (t) => {
  const it = bench(t);
  const log = it.open();
  it.write = async () => {
    throw fault("EIO");
  };
  await assert.rejects(log.append("event", {}), failsWith("other"));
  it.write = undefined;
  it.now += 5000;
  for (let i = 0; i < 500 && !log.healthy; i++) await new Promise((done) => setTimeout(done, 10));
  assert.ok(log.healthy);
  assert.ok(kinds(it.records()).includes("gap"));
});

test("a write that does not return is given up, and blocks no caller", async (t) => {
  const it = bench(t);
  const log = it.open({ timeoutMs: 20 });
  await log.append("event", { i: 1 });
  let release: (() => void) | undefined;
  const held = new Promise<void>((done) => {
    release = done;
  });
  it.write = async (fd, bytes) => {
    await held;
    return DISK.write(fd, bytes);
  };
  await assert.rejects(log.append("event", { i: 2 }), failsWith("timeout"));
  await assert.rejects(log.append("event", { i: 3 }), failsWith("timeout"), "at once: nothing is written meanwhile");
  it.write = undefined;
  release?.();
  for (let i = 0; i < 500 && !log.healthy; i++) {
    it.now += 1000;
    await new Promise((done) => setTimeout(done, 10));
  }
  await log.append("event", { i: 4 });
  assert.ok(isChained(it.lines()));
  assert.equal(it.records().find(({ kind }) => kind === "gap")?.fields["refused"], 2);
});

test("a directory that goes away refuses until it is back", async (t) => {
  const it = bench(t);
  const log = it.open();
  await log.append("event", { i: 1 });
  renameSync(it.directory, `${it.directory}-away`);
  await assert.rejects(log.append("event", { i: 2 }), failsWith("missing"));
  renameSync(`${it.directory}-away`, it.directory);
  await log.append("event", { i: 3 });
  assert.ok(isChained(it.lines()));
});

test("a file that goes away while it is written to is damage, and the numbers go on", async (t) => {
  const it = bench(t);
  const log = it.open();
  await log.append("event", { i: 1 });
  rmSync(segmentsIn(it.directory)[0]?.path ?? "");
  const seq = await log.append("event", { i: 2 });
  assert.equal(seq, 5, "segment 3, damage 4");
  assert.deepEqual(kinds(it.records()), ["segment", "damage", "event", "checkpoint"]);
  const found = (await verifyLog(it.directory)).findings.map(({ kind }) => kind);
  assert.deepEqual(found, ["damage", "missing"]);
});

test("a log that was cut while no server ran is damage at the next start", async (t) => {
  const it = bench(t);
  const log = it.open();
  for (let i = 0; i < 5; i++) await log.append("event", { i });
  await log.close();
  const file = segmentsIn(it.directory)[0]?.path ?? "";
  const kept = it.lines().slice(0, 3).join("\n").length + 1;
  truncateSync(file, kept);
  const next = it.open();
  await next.append("event", { after: true });
  assert.ok(it.logged.some(({ level, message }) => level === "error" && /damaged/.test(message)));
  const damage = it.records().find(({ kind }) => kind === "damage");
  assert.deepEqual([damage?.fields["from"], damage?.fields["to"]], [4, 6]);
  assert.equal(segmentsIn(it.directory).length, 2, "the cut file is left as it is");
});

test("a file whose end is no record is left alone; the next one says so", async (t) => {
  const it = bench(t);
  const log = it.open();
  await log.append("event", { i: 1 });
  const file = segmentsIn(it.directory)[0]?.path ?? "";
  appendFileSync(file, `${"\0".repeat(100)}\n`);
  const size = statSync(file).size;
  await log.append("event", { i: 2 });
  assert.equal(statSync(file).size, size);
  assert.deepEqual(kinds(it.records().slice(3)), ["segment", "damage", "event", "checkpoint"]);
});

test("a file that others can read is not written to", async (t) => {
  const it = bench(t);
  const log = it.open();
  await log.append("event", { i: 1 });
  await log.close();
  chmodSync(segmentsIn(it.directory)[0]?.path ?? "", 0o644);
  await assert.rejects(it.open().append("event", { i: 2 }), failsWith("permission"));
});

test("a body is never longer than what is read as a line", () => {
  // The largest: a call with 2 parts of content of 16384 characters, of which each may take 6 bytes.
  assert.ok(16_384 * 6 + 10_000 < MAX_LINE);
});
