/**
 * Both ledgers by the contract, and what each has of its own.
 */
import assert from "node:assert/strict";
import { after, before, type TestContext, test } from "node:test";
import { silentLog } from "#base/log.ts";
import { Secret } from "#base/secret.ts";
import { redisMissing, startRedis, type TestRedis } from "#test/fixtures/redis.ts";
import { until } from "#test/harness.ts";
import { FallbackLedger } from "./fallback-ledger.ts";
import { ledgerContract } from "./ledger.contract.ts";
import { entryAt, type Ledger, LedgerError, SPENT_NOTHING, type Spent } from "./ledger.ts";
import { MemoryLedger } from "./memory-ledger.ts";
import { connectRedis, isPlainRemote, RedisUrlError } from "./redis.ts";
import { RedisLedger } from "./redis-ledger.ts";
import type { Rule, Subject } from "./rules.ts";
import { DAY_MS, MINUTE_MS } from "./windows.ts";

const KEY: Subject = { kind: "key", id: "k" };
const held: Rule = { kind: "concurrent_requests", measure: "calls", window: "held", limit: 2 };
const perDay: Rule = { kind: "tokens_per_day", measure: "tokens", window: "day", limit: 100 };
const perMinute: Rule = { kind: "tokens_per_minute", measure: "tokens", window: "minute", limit: 100 };

let redis: TestRedis | undefined;
before(async () => {
  if (redisMissing === undefined) redis = await startRedis();
});
after(() => redis?.stop());

ledgerContract({
  name: "memory",
  skip: undefined,
  servers: 1,
  place: async () => (spent) => new MemoryLedger(spent),
  propertyRuns: 300,
});

ledgerContract({
  name: "Redis",
  skip: redisMissing,
  servers: 2,
  place: async (t) => {
    await redis?.clear();
    return (spent) => shared(t, spent).ledger;
  },
  propertyRuns: 12,
});

function shared(t: TestContext, spent: Spent = SPENT_NOTHING, leaseMs = 60_000, server = redis as TestRedis) {
  const states: string[] = [];
  const connection = connectRedis({ url: new Secret(server.url), onState: (state) => states.push(state) });
  const inner = new RedisLedger({ redis: connection, spent, log: silentLog, leaseMs });
  // The first take comes when the connection is there.
  const ledger: Ledger = {
    take: async (entries) => {
      await until("connected", () => states.includes("ready"));
      return inner.take(entries);
    },
    close: () => inner.close(),
  };
  t.after(() => connection.close());
  return { ledger, states, connection };
}

test("memory: counters of ended windows go", async () => {
  const ledger = new MemoryLedger(SPENT_NOTHING);
  const at = Date.UTC(2026, 10, 25);
  for (let i = 0; i < 20_000; i++) {
    const outcome = await ledger.take([
      entryAt({ kind: "key", id: `k${i}` }, i % 2 ? perMinute : held, 1, at + i * MINUTE_MS),
    ]);
    assert.ok(outcome.ok);
    await outcome.settle();
  }
  assert.ok(ledger.size < 10_000, `${ledger.size}`);
});

test("memory: a clock that goes back opens no window again", async () => {
  const ledger = new MemoryLedger(SPENT_NOTHING);
  const at = Date.UTC(2026, 10, 25, 12);
  assert.ok((await ledger.take([entryAt(KEY, perDay, 60, at)])).ok);
  assert.ok((await ledger.take([entryAt(KEY, perDay, 60, at + DAY_MS)])).ok);
  assert.ok(!(await ledger.take([entryAt(KEY, perDay, 60, at)])).ok);
});

const withRedis = { skip: redisMissing ?? false };

test("Redis: what a server had open when it died goes back, what was settled stays", withRedis, async (t) => {
  await redis?.clear();
  const at = Date.now() + DAY_MS;
  const dying = shared(t, SPENT_NOTHING, 300);
  const entries = [entryAt(KEY, held, 1, at), entryAt(KEY, perDay, 30, at)];
  const settled = await dying.ledger.take(entries);
  assert.ok(settled.ok);
  await settled.settle([0, 20]);
  assert.ok((await dying.ledger.take(entries)).ok);
  assert.ok((await dying.ledger.take(entries)).ok);
  // It dies: no sign of life, no settlement.
  await dying.connection.close();
  const other = shared(t, SPENT_NOTHING, 300).ledger;
  await until("its lease has ended", async () => {
    const outcome = await other.take([entryAt(KEY, held, 2, at)]);
    if (outcome.ok) await outcome.settle();
    return outcome.ok;
  });
  assert.ok(!(await other.take([entryAt(KEY, perDay, 81, at)])).ok);
  assert.ok((await other.take([entryAt(KEY, perDay, 80, at)])).ok);
  assert.deepEqual(await redis?.client.keys("{castellan}:open:*").then((keys) => keys.length), 1);
  await other.close();
});

test(
  "Redis: a server that was taken for dead books what it used, and gives nothing back twice",
  withRedis,
  async (t) => {
    await redis?.clear();
    const at = Date.now() + DAY_MS;
    const { ledger } = shared(t);
    const take = await ledger.take([entryAt(KEY, held, 1, at), entryAt(KEY, perDay, 50, at)]);
    assert.ok(take.ok);
    // Another server sees its lease ended.
    for (const name of (await redis?.client.zrange("{castellan}:servers", "0", "-1")) ?? [])
      await redis?.client.zadd("{castellan}:servers", "1", name);
    const other = shared(t, SPENT_NOTHING, 300).ledger;
    await until("given back", async () => (await other.take([entryAt(KEY, perDay, 100, at)])).ok || false);
    await redis?.client.del(...((await redis.client.keys("*tokens_per_day*")) ?? []));
    assert.ok((await other.take([entryAt(KEY, perDay, 1, at)])).ok);
    await take.settle([0, 30]);
    const rest = await other.take([entryAt(KEY, held, 2, at), entryAt(KEY, perDay, 69, at)]);
    assert.ok(rest.ok);
    assert.deepEqual(rest.used, [2, 100]);
  },
);

test(
  "Redis: when it is away takes fail, settlements are made up for, and a lost memory is read anew",
  withRedis,
  async (t) => {
    const own = await startRedis(["--appendonly", "yes", "--appendfsync", "always"]);
    t.after(() => own.stop());
    const at = Date.now() + DAY_MS;
    let spent = 0;
    const { ledger, states } = shared(t, async () => spent, 600, own);
    const [first, second] = [
      await ledger.take([entryAt(KEY, perDay, 60, at), entryAt(KEY, held, 1, at)]),
      await ledger.take([entryAt(KEY, held, 1, at)]),
    ];
    assert.ok(first.ok && second.ok);
    await own.kill();
    await until("it is away", () => states.at(-1) === "away");
    await assert.rejects(async () => ledger.take([entryAt(KEY, perDay, 1, at)]), LedgerError);
    await first.settle([10, 0]);
    await second.settle();
    await own.start();
    await until("settled", async () => {
      try {
        const outcome = await ledger.take([entryAt(KEY, held, 2, at)]);
        if (outcome.ok) await outcome.settle();
        return outcome.ok;
      } catch {
        return false;
      }
    });
    assert.ok(!(await ledger.take([entryAt(KEY, perDay, 91, at)])).ok);
    assert.ok((await ledger.take([entryAt(KEY, perDay, 80, at)])).ok);
    spent = 95;
    await own.clear();
    assert.ok(!(await ledger.take([entryAt(KEY, perDay, 6, at)])).ok);
    assert.ok((await ledger.take([entryAt(KEY, perDay, 5, at)])).ok);
  },
);

test("Redis: with a fallback every server holds the limits by itself meanwhile", async () => {
  const told: unknown[] = [];
  const away: Ledger = { take: () => Promise.reject(new LedgerError("away")), close: async () => {} };
  const ledger = new FallbackLedger(away, new MemoryLedger(SPENT_NOTHING), (error) => told.push(error));
  const entries = [entryAt(KEY, held, 2, Date.now())];
  const outcome = await ledger.take(entries);
  assert.ok(outcome.ok);
  assert.ok(!(await ledger.take(entries)).ok);
  await outcome.settle();
  assert.ok((await ledger.take(entries)).ok);
  assert.equal(told.length, 3);
});

test("Redis: URLs that are none are refused without their password; which are plain", () => {
  for (const bad of ["hunter2", "http://u:hunter2@h", "redis://", "redis://:hunter2@h/x", "redis://:hunter2@h/1/2"])
    assert.throws(
      () => connectRedis({ url: new Secret(bad), onState: () => {} }),
      (error) => error instanceof RedisUrlError && !String(error.stack).includes("hunter2"),
    );
  assert.equal(isPlainRemote(new Secret("redis://10.0.0.1")), true);
  assert.equal(isPlainRemote(new Secret("redis://127.0.0.1:1/2")), false);
  assert.equal(isPlainRemote(new Secret("redis://[::1]")), false);
  assert.equal(isPlainRemote(new Secret("rediss://h")), false);
});
