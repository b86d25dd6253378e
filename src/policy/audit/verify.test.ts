/**
 * Verification: every kind of alteration is found, at its place, and nothing is found in a log that was left alone.
 */
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { type Bench, bench } from "./_fixture.ts";
import { segmentsIn } from "./_segments.ts";
import { headFile, parseHead } from "./heads.ts";
import { hashOf, line, parseRecord } from "./record.ts";
import { PUBLIC_FILE, readPublicKey } from "./signing.ts";
import { type FindingKind, type Verification, type VerifyOptions, verifyLog } from "./verify.ts";

/** Two files and a few checkpoints, closed in order: 30 records of calls. */
async function written(t: TestContext, fileBytes = 3000): Promise<Bench> {
  const it = bench(t);
  const log = it.open({ fileBytes, checkpointRecords: 8 });
  for (let i = 0; i < 30; i++) await log.append("event", { event: `n${i}` });
  await log.close();
  assert.ok(fileBytes > 3000 || segmentsIn(it.directory).length >= 2);
  return it;
}

const check = (it: Bench, options: VerifyOptions = {}): Promise<Verification> => verifyLog(it.directory, options);
const kindsOf = ({ findings }: Verification): FindingKind[] => findings.map(({ kind }) => kind);
const file = (it: Bench, i: number): string => segmentsIn(it.directory).at(i)?.path ?? "";

/** Changes the lines of a file. */
function edit(path: string, change: (lines: string[]) => string[]): void {
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  writeFileSync(
    path,
    change(lines)
      .map((text) => `${text}\n`)
      .join(""),
  );
}

/** Chains the lines anew, as somebody would who knows how. */
function rechained(lines: readonly string[]): string[] {
  let prev: string | undefined;
  return lines.map((text, i) => {
    const rest = text.slice(text.indexOf('"time"'));
    const seq = (parseRecord(lines[0] ?? "")?.seq ?? 1) + i;
    const again = line(seq, prev ?? parseRecord(text)?.prev ?? "", rest);
    prev = hashOf(again);
    return again;
  });
}

test("a log that was left alone", async (t) => {
  const it = await written(t);
  const found = await check(it);
  assert.deepEqual(found.findings, []);
  assert.deepEqual([found.records, found.unsigned, found.first?.seq], [it.lines().length, 0, 1]);
  assert.equal(found.last?.hash, hashOf(it.lines().at(-1) ?? ""));
  assert.ok(found.checkpoints >= 4);
});

test("an altered record", async (t) => {
  const it = await written(t);
  edit(file(it, 0), (lines) => lines.with(3, (lines[3] ?? "").replace('"n2"', '"n9"')));
  const found = await check(it);
  assert.deepEqual(kindsOf(found), ["altered"]);
  assert.deepEqual([found.findings[0]?.line, found.findings[0]?.file], [5, "audit-00000001.jsonl"]);
  assert.match(found.findings[0]?.text ?? "", /record 4\b/);
});

test("a missing record, a missing file, a missing beginning", async (t) => {
  const it = await written(t);
  edit(file(it, 0), (lines) => lines.toSpliced(4, 2));
  const found = await check(it);
  assert.deepEqual(kindsOf(found), ["missing"]);
  assert.match(found.findings[0]?.text ?? "", /records 5 to 6/);

  const other = await written(t);
  const middle = segmentsIn(other.directory).length > 2 ? 1 : 0;
  rmSync(file(other, middle));
  const gone = await check(other);
  assert.ok(kindsOf(gone).every((kind) => kind === "missing") && gone.findings.length >= 1);
});

test("swapped records", async (t) => {
  const it = await written(t);
  edit(file(it, 0), (lines) => lines.with(3, lines[4] ?? "").with(4, lines[3] ?? ""));
  assert.ok(kindsOf(await check(it)).includes("reordered"));
});

test("a record that was put in", async (t) => {
  const it = await written(t);
  edit(file(it, 0), (lines) => {
    const before = lines[3] ?? "";
    const forged = line(5, hashOf(before), '"time":"2026-11-25T12:00:00.000Z","kind":"event","event":"forged"}');
    return lines.toSpliced(4, 0, forged);
  });
  const found = await check(it);
  assert.ok(kindsOf(found).includes("inserted"), kindsOf(found).join());
});

test("a log that somebody chained anew does not hold its signatures", async (t) => {
  const it = await written(t, 1 << 20);
  edit(file(it, -1), (lines) => rechained(lines.with(1, (lines[1] ?? "").replace(/"n\d+"/, '"forged"'))));
  const found = await check(it);
  assert.deepEqual([...new Set(kindsOf(found))], ["signature"]);
});

test("a cut end shows against a head that was kept, in the state directory or elsewhere", async (t) => {
  const it = await written(t);
  edit(file(it, -1), (lines) => lines.slice(0, -2));
  assert.deepEqual((await check(it)).findings, [], "the chain alone cannot tell");
  const kept = parseHead(readFileSync(join(it.statePath, headFile(it.directory))));
  assert.ok(kept !== undefined);
  assert.deepEqual(kindsOf(await check(it, { heads: [kept] })), ["truncated"]);
});

test("another key than the log's", async (t) => {
  const it = await written(t);
  const own = readPublicKey(readFileSync(join(it.statePath, PUBLIC_FILE), "utf8"));
  assert.ok(own !== undefined);
  assert.deepEqual((await check(it, { publicKey: own })).findings, []);
  const found = await check(it, { publicKey: generateKeyPairSync("ed25519").publicKey });
  assert.ok(found.findings.length > 0 && kindsOf(found).every((kind) => kind === "signature"));
});

test("bytes that are no records, and lines without an end", async (t) => {
  const it = await written(t);
  const path = file(it, -1);
  writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(600_000, "x")]));
  assert.deepEqual(kindsOf(await check(it)), ["torn"]);
  edit(file(it, 0), (lines) => lines.with(2, "not json").with(6, '{"seq":"7"}'));
  assert.deepEqual(kindsOf(await check(it)), ["unreadable", "missing", "unreadable", "missing", "torn"]);
});

test("no change of a byte goes unseen, as long as the head is known", async (t) => {
  const it = await written(t);
  const heads = [{ hash: hashOf(it.lines().at(-1) ?? "") }];
  const path = file(it, 0);
  const original = readFileSync(path);
  const changes = fc.tuple(fc.nat(original.length - 1), fc.integer({ min: 1, max: 255 }));
  await fc.assert(
    fc.asyncProperty(changes, async ([at, flip]) => {
      const changed = Buffer.from(original);
      changed[at] = (changed[at] ?? 0) ^ flip;
      writeFileSync(path, changed);
      assert.notEqual((await check(it, { heads })).findings.length, 0, `byte ${at} ^ ${flip}`);
    }),
    { numRuns: 150 },
  );
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: original.length - 1 }), async (size) => {
      writeFileSync(path, original.subarray(0, size));
      assert.notEqual((await check(it, { heads })).findings.length, 0, `cut to ${size}`);
    }),
    { numRuns: 80 },
  );
});
