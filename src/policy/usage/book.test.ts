/**
 * Groups of additions: gathered, written once, kept while they cannot be.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "#base/log.ts";
import { Fault } from "#core/fault.ts";
import { until } from "#test/harness.ts";
import { createUsageBook, type UsageGroup } from "./book.ts";
import { NO_COUNTS, type UsageRow } from "./usage.ts";

const row = (key: string, requests: number, more: Partial<UsageRow> = {}): UsageRow => ({
  ...NO_COUNTS,
  key,
  tenant: "t",
  model: "m",
  day: "2026-11-25",
  requests,
  ...more,
});
const unavailable = (error: unknown) => error instanceof Fault && error.kind === "policy_unavailable";

function rig(add: (group: UsageGroup) => Promise<void> = async () => {}) {
  const groups: UsageGroup[] = [];
  const sink = {
    add: async (group: UsageGroup) => {
      await add(group);
      groups.push(group);
    },
  };
  return { groups, book: createUsageBook({ sink, log: silentLog, retryMs: 1 }) };
}

test("what comes together is one group, rows of one key are added up", async () => {
  const { groups, book } = rig();
  await Promise.all([book.post(row("a", 1, { cost: 3 })), book.post(row("b", 1)), book.post(row("a", 2, { cost: 4 }))]);
  assert.deepEqual(
    groups.map(({ number, rows }) => [number, rows.map(({ key, requests, cost }) => [key, requests, cost])]),
    [
      [
        1,
        [
          ["a", 3, 7],
          ["b", 1, 0],
        ],
      ],
    ],
  );
});

test("what comes while a group is written goes into the next, and waits for it", async () => {
  let release = (): void => {};
  const first = new Promise<void>((done) => {
    release = done;
  });
  let begun = false;
  const { groups, book } = rig(({ number }) => {
    begun = true;
    return number === 1 ? first : Promise.resolve();
  });
  const one = book.post(row("a", 1));
  let written = false;
  await until("the first group is on its way", () => begun);
  const two = book.post(row("a", 1)).then(() => {
    written = true;
  });
  assert.equal(written, false);
  release();
  await Promise.all([one, two]);
  assert.deepEqual(
    groups.map(({ number }) => number),
    [1, 2],
  );
});

test("names are never mixed up", async () => {
  const { groups, book } = rig();
  await Promise.all([
    book.post(row("a b", 1, { tenant: "c" })),
    book.post(row("a", 1, { tenant: "b c" })),
    book.post(row("a", 1, { tenant: "b c", day: "2026-11-26" })),
  ]);
  assert.equal(groups[0]?.rows.length, 3);
});

test("while the table is away nobody waits for it; what was posted is written once it is back", async () => {
  let away = true;
  const { groups, book } = rig(async () => {
    if (away) throw new Error("away");
  });
  const first = book.post(row("a", 1));
  await new Promise((done) => setTimeout(done, 1));
  const second = book.post(row("b", 1));
  await assert.rejects(first, unavailable);
  await assert.rejects(second, unavailable);
  assert.equal(book.failing, true);
  await assert.rejects(book.post(row("c", 1)), unavailable);
  away = false;
  await until("the table is back", () => !book.failing);
  await book.post(row("d", 1));
  assert.deepEqual(groups.flatMap(({ rows }) => rows.map(({ key }) => key)).sort(), ["a", "b", "c", "d"]);
  assert.equal(new Set(groups.map(({ number }) => number)).size, groups.length);
});

test("closing writes what is there, and ends even if it cannot", async () => {
  const { groups, book } = rig();
  const posted = book.post(row("a", 1));
  await book.close();
  await posted;
  assert.equal(groups.length, 1);
  const broken = rig(async () => {
    throw new Error("away");
  });
  const lost = assert.rejects(broken.book.post(row("a", 1)), unavailable);
  await broken.book.close();
  await lost;
});
