/**
 * Keys in the store and the feed that keeps servers up to date, over both back ends; the first key, the pepper and the
 * file of version 0.1.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, type TestContext, test } from "node:test";
import { Secret } from "#base/secret.ts";
import { Fault } from "#core/fault.ts";
import { postgresMissing, startPostgres, type TestPostgres } from "#test/fixtures/postgres.ts";
import { until } from "#test/harness.ts";
import { ensureFirstKey, importOldKeys } from "./first-key.ts";
import { KeyFeed, type KeyFeedOptions } from "./key-feed.ts";
import { KeyError, type KeySpec } from "./key-spec.ts";
import { KeyStore } from "./key-store.ts";
import { KeySet, keyDigest } from "./keys.ts";
import { openPepper, readPepper } from "./pepper.ts";
import { StateError, statePepper } from "./state.ts";
import { scratchState } from "./store/store.contract.ts";
import { openStore, type Store } from "./store/store.ts";

let postgres: TestPostgres | undefined;
before(async () => {
  if (postgresMissing === undefined) postgres = await startPostgres();
});
after(() => postgres?.stop());

const SPEC: KeySpec = {
  tenant: "acme",
  name: "build bot",
  role: "service",
  scopes: ["inference", "metrics:read"],
  reach: { models: ["llama-*"], networks: ["10.0.0.0/8"], priority: -2 },
  limits: { requestsPerMinute: 60, budgets: [{ period: "month", unit: "usd", amount: 10_000_000 }] },
  caps: { n: 2 },
  notBefore: 500,
  expiresAt: 5_000_000,
};
const PLAIN: KeySpec = { tenant: "default", name: "", role: "user", reach: {}, limits: {}, caps: {} };

interface Scene {
  /** A store of its own over the same place, as another process has. */
  open(): Promise<{ readonly store: Store; readonly keys: KeyStore }>;
  feed(options?: Partial<KeyFeedOptions>): Promise<{ readonly set: KeySet; readonly feed: KeyFeed }>;
  at(time: number): void;
  readonly logged: string[];
}

async function scene(t: TestContext, url: string | undefined): Promise<Scene> {
  const state = scratchState(t);
  const pepper = statePepper(state);
  const logged: string[] = [];
  const closers: (() => Promise<void>)[] = [];
  t.after(async () => {
    for (const close of closers.reverse()) await close();
  });
  let now = 1000;
  const clock = (): number => now;
  const open = async () => {
    const store = await openStore({ state, ...(url === undefined ? {} : { databaseUrl: new Secret(url) }) });
    closers.push(() => store.close());
    return { store, keys: new KeyStore(store, pepper, clock) };
  };
  return {
    open,
    at: (time) => {
      now = time;
    },
    logged,
    feed: async (options = {}) => {
      const { store } = await open();
      const set = new KeySet(pepper, [], clock);
      const log = (_level: string, message: string): void => void logged.push(message);
      // No timer: the tests say when to look.
      const feed = await KeyFeed.start({ store, keys: set, log, intervalMs: 1e9, now: clock, ...options });
      closers.push(() => feed.close());
      return { set, feed };
    },
  };
}

function detail(set: KeySet, key: Secret): string | undefined {
  try {
    set.find(key.expose());
  } catch (error) {
    assert.ok(error instanceof Fault && error.kind === "unauthenticated");
    return error.detail;
  }
  return undefined;
}

for (const kind of ["SQLite", "PostgreSQL"] as const) {
  const skip = kind === "PostgreSQL" ? (postgresMissing ?? false) : false;
  const it = (what: string, run: (scene: Scene) => Promise<void>): void =>
    void test(`${kind}: ${what}`, { skip }, async (t) =>
      run(await scene(t, kind === "PostgreSQL" ? await postgres?.database() : undefined)),
    );

  it("a record comes back as it was made, without its key", async ({ open }) => {
    const { store, keys } = await open();
    const { record, key } = await keys.create(SPEC, "test");
    assert.match(record.id, /^key_[0-9A-Za-z]{16}$/);
    assert.match(key.expose(), /^cst_[0-9A-Za-z]{46}$/);
    const expected = { ...SPEC, id: record.id, createdAt: 1000, createdBy: "test" };
    const secrets = [{ generation: 1, createdAt: 1000, createdBy: "test" }];
    assert.deepEqual(record, { ...expected, secrets });
    assert.deepEqual(await keys.get(record.id), { ...expected, secrets });
    assert.equal(await keys.get("key_nobody"), undefined);
    const rows = [
      await store.db.selectFrom("keys").selectAll().execute(),
      await store.db.selectFrom("key_secrets").selectAll().execute(),
    ];
    assert.ok(!JSON.stringify(rows).includes(key.expose().slice(4, 30)));
    assert.ok(!record.id.slice(4).includes(key.expose().slice(4, 12)));
  });

  it("what a key cannot be is said, and leaves nothing", async ({ open }) => {
    const { keys } = await open();
    const bad: readonly [Partial<KeySpec>, RegExp][] = [
      [{ tenant: "a b" }, /^tenant: /],
      [{ tenant: "" }, /^tenant: /],
      [{ name: "a\u001b[31mb" }, /^name: has a character/],
      [{ name: "x".repeat(101) }, /^name: /],
      [{ role: "root" as never }, /^role: /],
      [{ role: "user", scopes: ["ops"] }, /role user does not have the scope ops/],
      [{ scopes: ["all" as never] }, /^scopes\.0: /],
      [{ reach: { networks: ["10.0.0.0/33"] } }, /^reach\.networks\.0: is no network/],
      [{ reach: { models: [""] } }, /^reach\.models\.0: /],
      [{ limits: { requestsPerMinute: -1 } }, /^limits\.requestsPerMinute: /],
      [{ limits: { requestsPerMinute: 1.5 } }, /^limits\.requestsPerMinute: /],
      [{ limits: { perhaps: 1 } as never }, /perhaps/],
      [{ caps: { n: -1 } }, /^caps\.n: /],
      [{ notBefore: 5, expiresAt: 5 }, /end before it begins/],
    ];
    for (const [change, message] of bad)
      await assert.rejects(keys.create({ ...PLAIN, ...change }, "test"), (error) => {
        assert.ok(error instanceof KeyError);
        assert.match(error.message, message);
        return true;
      });
    assert.equal(await keys.count(), 0);
    assert.equal(await keys.hasTenant("default"), false);
  });

  it("a rotated key works in both generations until the overlap ends, under one id", async ({ open, feed, at }) => {
    const { keys } = await open();
    const { set, feed: following } = await feed();
    const first = await keys.create(PLAIN, "test");
    const { id } = first.record;
    const second = await keys.rotate(id, 5000, "test");
    assert.equal(second.record.id, id);
    assert.deepEqual(second.record.secrets, [
      { generation: 1, createdAt: 1000, createdBy: "test", endsAt: 6000 },
      { generation: 2, createdAt: 1000, createdBy: "test" },
    ]);
    await following.refresh();
    for (const { key } of [first, second]) assert.equal(set.find(key.expose()).id, id);
    at(2000);
    const third = await keys.rotate(id, 0, "test");
    assert.deepEqual(
      third.record.secrets.map(({ endsAt }) => endsAt),
      [2000, 2000, undefined],
    );
    await following.refresh();
    for (const { key } of [first, second]) assert.match(detail(set, key) ?? "", /rotated away/);
    assert.equal(set.find(third.key.expose()).id, id);
    at(9000);
    const fourth = await keys.rotate(id, 1000, "test");
    assert.deepEqual(
      fourth.record.secrets.map(({ endsAt }) => endsAt),
      [2000, 2000, 10_000, undefined],
      "an end that was earlier stays",
    );
    for (const overlap of [-1, 0.5, 1e12]) await assert.rejects(keys.rotate(id, overlap, "test"), KeyError);
  });

  it("disabling stops every generation, enabling brings them back, deleting is for good", async ({ open, feed }) => {
    const { keys } = await open();
    const { set, feed: following } = await feed();
    const first = await keys.create(PLAIN, "test");
    const { id } = first.record;
    const second = await keys.rotate(id, 5000, "test");
    const both = [first.key, second.key];
    await following.refresh();
    assert.equal((await keys.disable(id)).disabledAt, 1000);
    await following.refresh();
    for (const key of both) assert.equal(detail(set, key), `${id} is disabled`);
    assert.equal((await keys.enable(id)).disabledAt, undefined);
    await following.refresh();
    for (const key of both) assert.equal(detail(set, key), undefined);
    assert.equal((await keys.delete(id)).deletedAt, 1000);
    await following.refresh();
    for (const key of both) assert.equal(detail(set, key), `${id} is deleted`);
    assert.deepEqual(await keys.list(), []);
    assert.equal((await keys.list({ deleted: true })).length, 1);
    const late = [
      () => keys.rotate(id, 0, "test"),
      () => keys.disable(id),
      () => keys.enable(id),
      () => keys.delete(id),
    ];
    for (const change of late) await assert.rejects(change(), /^KeyError: the key key_\w+ is deleted$/);
    await assert.rejects(keys.disable("key_nobody"), /there is no key key_nobody/);
    const { set: later } = await feed();
    assert.equal(later.size, 0, "a later start need not know it");
  });

  it("lists by tenant, page by page, and finds by name", async ({ open, at }) => {
    const { keys } = await open();
    for (let n = 0; n < 7; n++) {
      at(1000 + Math.floor(n / 3));
      await keys.create({ ...PLAIN, tenant: n % 2 === 0 ? "even" : "odd", name: `n${n % 3}` }, "test");
    }
    const seen: string[] = [];
    for (let after: { createdAt: number; id: string } | undefined; ; ) {
      const page = await keys.list({ limit: 2, ...(after === undefined ? {} : { after }) });
      seen.push(...page.map(({ id }) => id));
      after = page.at(-1);
      if (after === undefined) break;
    }
    assert.equal(new Set(seen).size, 7);
    assert.equal(seen.length, 7);
    assert.equal((await keys.list({ tenant: "odd" })).length, 3);
    assert.equal((await keys.named("n1")).length, 2);
    assert.equal((await keys.named("n9")).length, 0);
    assert.equal(await keys.count(), 7);
  });

  it("another process's change is in force without being asked for", async ({ open, feed }) => {
    const { keys } = await open();
    const { set } = await feed({ intervalMs: 20 });
    const { record, key } = await keys.create(PLAIN, "test");
    await until("the new key is known", () => detail(set, key) === undefined);
    await keys.disable(record.id);
    await until("it is disabled", () => detail(set, key) === `${record.id} is disabled`);
  });

  it("rights arrive whole, and equal rights are one object", async ({ open, feed }) => {
    const { keys } = await open();
    const made = [await keys.create(SPEC, "test"), await keys.create(SPEC, "test")];
    const { set } = await feed();
    const [one, two] = made.map(({ key }) => set.find(key.expose()));
    assert.equal(one?.tenant, "acme");
    assert.deepEqual([...(one?.scopes ?? [])], SPEC.scopes);
    assert.deepEqual(one?.reach, SPEC.reach);
    assert.deepEqual(one?.limits, SPEC.limits);
    assert.deepEqual(one?.caps, SPEC.caps);
    assert.notEqual(one?.id, two?.id);
    assert.equal(one?.reach, two?.reach);
  });

  it("a row that other hands changed opens nothing, and nothing else suffers", async ({ open, feed, logged }) => {
    const { keys, store } = await open();
    const good = await keys.create(PLAIN, "test");
    for (const change of [
      { role: "god" },
      { scopes: '["everything"]' },
      { reach: "{" },
      { limits: '{"requestsPerMinute":"many"}' },
      { caps: '{"unheard":1}' },
    ]) {
      const bad = await keys.create(PLAIN, "test");
      await store.db.updateTable("keys").set(change).where("id", "=", bad.record.id).execute();
      const { set } = await feed();
      assert.match(detail(set, bad.key) ?? "", /is disabled/, JSON.stringify(change));
      assert.equal(detail(set, good.key), undefined);
      assert.ok(logged.some((message) => /cannot be read/.test(message)));
      await assert.rejects(keys.get(bad.record.id), KeyError);
    }
  });

  it("many keys come in pages, however few revisions they share", async ({ open, feed }) => {
    const { keys, store } = await open();
    const { key } = await keys.create(PLAIN, "test");
    const [row] = await store.db.selectFrom("keys").selectAll().execute();
    assert.ok(row);
    const count = 2500;
    for (let from = 0; from < count; from += 500) {
      const names = Array.from({ length: 500 }, (_, i) => `key_x${from + i}`);
      await store.db
        .insertInto("keys")
        .values(names.map((id) => ({ ...row, id })))
        .execute();
      await store.db
        .insertInto("key_secrets")
        .values(
          names.map((id) => ({
            digest: digestOf(id),
            key_id: id,
            generation: 1,
            created_at: 1,
            created_by: "",
            ends_at: null,
          })),
        )
        .execute();
    }
    const { set } = await feed();
    assert.equal(set.size, count + 1);
    assert.equal(detail(set, key), undefined);
  });

  it("last uses are written in batches, and at the end", async ({ open, feed, at }) => {
    const { keys } = await open();
    const { record, key } = await keys.create(PLAIN, "test");
    const { set, feed: following } = await feed();
    const lastUse = async () => (await keys.get(record.id))?.lastUsedAt;
    at(100_000);
    set.find(key.expose());
    assert.equal(await lastUse(), undefined);
    await following.flushUses();
    assert.equal(await lastUse(), 100_000);
    at(200_000);
    set.find(key.expose());
    await following.close();
    assert.equal(await lastUse(), 200_000);
  });

  it("a store that is silent for too long makes the feed stale, one that answers fresh", async ({ open, feed, at }) => {
    await open();
    const { feed: following } = await feed({ maxAgeMs: 10_000 });
    at(11_000);
    assert.equal(following.stale, false);
    at(11_001);
    assert.equal(following.stale, true);
    await following.refresh();
    assert.equal(following.stale, false);
  });

  it("of servers that start at once one makes the first key, and none ever again", async ({ open }) => {
    const stores = [await open(), await open(), await open()];
    const made = await Promise.all(stores.map(({ keys }) => ensureFirstKey(keys)));
    assert.equal(made.filter((key) => key !== undefined).length, 1);
    const [{ keys }] = stores as [(typeof stores)[0]];
    const [record] = await keys.list();
    assert.deepEqual([record?.role, record?.tenant], ["user", "default"]);
    await keys.delete(record?.id ?? "");
    assert.equal(await ensureFirstKey(keys), undefined, "who deleted the last key wants none");
  });
}

function digestOf(id: string): string {
  return keyDigest(Buffer.alloc(32), id).toString("hex");
}

test("a store knows its pepper: another one, or none, stops the start", async (t) => {
  const state = scratchState(t);
  const store = await openStore({ state });
  t.after(() => store.close());
  const pepper = await openPepper(store, state);
  assert.deepEqual(await openPepper(store, state), pepper);
  assert.deepEqual(await openPepper(store, state, pepper), pepper);
  await assert.rejects(
    openPepper(store, state, Buffer.alloc(32, 1)),
    (error) => error instanceof StateError && /another pepper/.test(error.message),
  );
  rmSync(join(state.path, "pepper"));
  await assert.rejects(
    openPepper(store, state),
    (error) => error instanceof StateError && /is missing/.test(error.message),
  );
  assert.equal(state.read("pepper"), undefined, "none is made in its place");
  assert.deepEqual(await openPepper(store, state, pepper), pepper);
});

test("a pepper file holds 32 bytes or their hex digits", () => {
  const bytes = Buffer.alloc(32, 0xab);
  assert.deepEqual(readPepper(bytes), bytes);
  assert.deepEqual(readPepper(Buffer.from(`${"ab".repeat(32)}\n`)), bytes);
  for (const bad of ["", "short", "ab".repeat(31), "zz".repeat(32), "ab".repeat(33)])
    assert.throws(() => readPepper(Buffer.from(bad)), StateError);
});

test("keys of version 0.1 work on, as users, and their file is put aside", async (t) => {
  const state = scratchState(t);
  const pepper = statePepper(state);
  const old = ["old-one", "old-two"];
  const file = {
    version: 1,
    keys: old.map((key, i) => ({ id: `key_${i + 1}`, digest: keyDigest(pepper, key).toString("hex") })),
  };
  const bytes = Buffer.from(JSON.stringify(file));
  state.write("keys.json", bytes);
  const store = await openStore({ state });
  t.after(() => store.close());
  const keys = new KeyStore(store, await openPepper(store, state));
  assert.equal(await importOldKeys(state, keys), 2);
  const set = new KeySet(pepper);
  const feed = await KeyFeed.start({ store, keys: set, log: () => {} });
  t.after(() => feed.close());
  for (const key of old) assert.equal(set.find(key).role, "user");
  assert.equal(state.read("keys.json"), undefined);
  assert.deepEqual(state.read("keys.json.imported"), bytes);
  assert.equal(await importOldKeys(state, keys), 0);
  // A crash before the file was put aside, and a deletion since.
  const [first] = await keys.list();
  await keys.delete(first?.id ?? "");
  state.write("keys.json", bytes);
  assert.equal(await importOldKeys(state, keys), 0);
  assert.equal(await keys.count(), 1);
  assert.equal(await ensureFirstKey(keys), undefined);
});

test("a damaged keys.json of version 0.1, or one without its pepper, stops the start and stays", async (t) => {
  const state = scratchState(t);
  const store = await openStore({ state });
  t.after(() => store.close());
  const keys = new KeyStore(store, Buffer.alloc(32));
  const good = `{"version":1,"keys":[{"id":"key_1","digest":"${"ab".repeat(32)}"}]}`;
  const bad = [
    "",
    "{",
    "null",
    good.slice(0, -5),
    '{"version":1,"keys":[]}',
    good.replace('"version":1', '"version":2'),
    good.replace("key_1", "root"),
  ];
  for (const content of bad) {
    state.write("keys.json", Buffer.from(content));
    await assert.rejects(
      importOldKeys(state, keys),
      (error) => error instanceof StateError && /is damaged/.test(error.message),
    );
    assert.equal(state.read("keys.json")?.toString(), content);
  }
  state.write("keys.json", Buffer.from(good));
  await assert.rejects(
    openPepper(store, state),
    (error) => error instanceof StateError && /is missing/.test(error.message),
  );
  assert.equal(await keys.count(), 0);
});

test("a feed outlives an outage of its store and says so once", { skip: postgresMissing ?? false }, async (t) => {
  const own = await startPostgres();
  t.after(() => own.stop());
  const { open, feed, logged } = await scene(t, await own.database());
  const { keys } = await open();
  const { record, key } = await keys.create(PLAIN, "test");
  const { set } = await feed({ intervalMs: 10 });
  await own.kill();
  await until("the outage is noticed", () => logged.some((message) => /does not answer/.test(message)));
  assert.equal(detail(set, key), undefined, "known keys go on");
  await own.start();
  await until("it answers again", () => logged.some((message) => /answers again/.test(message)));
  await keys.disable(record.id);
  await until("changes arrive again", () => detail(set, key) !== undefined);
  assert.equal(logged.filter((message) => /does not answer/.test(message)).length, 1);
});
