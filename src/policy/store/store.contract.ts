/**
 * What a store must do whatever is behind it: one set of tests, registered over each back end by store.test.ts.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { sql } from "kysely";
import { Secret } from "#base/secret.ts";
import { openStateDirectory, type StateDirectory } from "#policy/state.ts";
import { MIGRATIONS, type Migration } from "./migrations.ts";
import type { Step } from "./step.ts";
import { isTaken, openStore, type Store, type StoreOptions } from "./store.ts";
import { StoreError } from "./store-error.ts";

export interface StoreContract {
  readonly name: string;
  /** Why these tests cannot run here. */
  readonly skip: string | undefined;
  /** A place that is empty: a URL of a database, or undefined for the file. */
  place(): Promise<string | undefined>;
}

/** A state directory that goes with the test. */
export function scratchState(t: TestContext): StateDirectory {
  const path = mkdtempSync(join(tmpdir(), "castellan-store-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return openStateDirectory(path);
}

const EXTRA: Migration = {
  name: "a later thing",
  statements: ({ integer }) => [
    `create table later (name text not null, count ${integer} not null)`,
    "insert into later (name, count) select id, 7 from keys",
  ],
};
function stepOf(query: { compile(): Step }): Step {
  const { sql: text, parameters } = query.compile();
  return { sql: text, parameters };
}

const BROKEN: Migration = {
  name: "does not work",
  statements: ({ integer }) => [`create table half (a ${integer})`, "insert into nowhere values (1)"],
};

export function storeContract({ name, skip, place }: StoreContract): void {
  const scene = async (t: TestContext) => {
    const state = scratchState(t);
    const url = await place();
    const options: StoreOptions = { state, ...(url === undefined ? {} : { databaseUrl: new Secret(url) }) };
    const stores: Store[] = [];
    t.after(() => Promise.all(stores.map((store) => store.close())));
    return async (more: Partial<StoreOptions> = {}): Promise<Store> => {
      const store = await openStore({ ...options, ...more });
      stores.push(store);
      return store;
    };
  };
  const it = (what: string, run: (t: TestContext) => Promise<void>): void =>
    void test(`${name}: ${what}`, { skip: skip ?? false }, run);

  it("what one writes another reads, across a close", async (t) => {
    const open = await scene(t);
    const first = await open();
    await first.db.insertInto("tenants").values(tenant("a")).execute();
    const second = await open();
    assert.deepEqual(await second.db.selectFrom("tenants").selectAll().execute(), [tenant("a")]);
    await Promise.all([first.close(), second.close()]);
    const third = await open();
    assert.deepEqual(await third.db.selectFrom("tenants").select("name").execute(), [{ name: "a" }]);
  });

  it("whole numbers come back as numbers up to 2^53, text with every character", async (t) => {
    const { db } = await (await scene(t))();
    const odd = { ...tenant("ключ\u{1f511}'\"\\"), created_at: Number.MAX_SAFE_INTEGER };
    await db.insertInto("tenants").values(odd).execute();
    assert.deepEqual(await db.selectFrom("tenants").selectAll().executeTakeFirst(), odd);
    const counted = await db.updateTable("tenants").set({ limits: "{}" }).executeTakeFirst();
    assert.equal(Number(counted.numUpdatedRows), 1);
  });

  it("a row that is there already is told apart from other failures", async (t) => {
    const { db } = await (await scene(t))();
    await db.insertInto("tenants").values(tenant("a")).execute();
    await assert.rejects(db.insertInto("tenants").values(tenant("a")).execute(), (error) => isTaken(error));
    const orphan = { digest: "d", key_id: "nobody", generation: 1, created_at: 1, created_by: "t", ends_at: null };
    await assert.rejects(db.insertInto("key_secrets").values(orphan).execute(), (error) => !isTaken(error));
  });

  it("a transaction is whole or nothing", async (t) => {
    const { db } = await (await scene(t))();
    const failing = db.transaction().execute(async (transaction) => {
      await transaction.insertInto("tenants").values(tenant("a")).execute();
      throw new Error("no");
    });
    await assert.rejects(failing, /^Error: no$/);
    assert.deepEqual(await db.selectFrom("tenants").selectAll().execute(), []);
  });

  it("steps are one transaction: whole, nothing, or up to the one that decides", async (t) => {
    const { db, transact } = await (await scene(t))();
    const add = (name: string) => stepOf(db.insertInto("tenants").values(tenant(name)));
    const rename = (from: string, to: string) =>
      stepOf(db.updateTable("tenants").set({ name: to }).where("name", "=", from));
    const names = async () =>
      (await db.selectFrom("tenants").select("name").orderBy("name").execute()).map(({ name }) => name);
    assert.equal(await transact([add("a"), add("b")]), 2);
    await assert.rejects(transact([add("c"), add("a"), add("d")]), isTaken);
    assert.deepEqual(await names(), ["a", "b"]);
    assert.equal(await transact([add("c"), { ...rename("nobody", "x"), decides: true }, add("d")]), 2);
    assert.deepEqual(await names(), ["a", "b", "c"]);
    assert.equal(await transact([{ ...rename("c", "d"), decides: true }, rename("nobody", "x"), add("e")]), 3);
    assert.deepEqual(await names(), ["a", "b", "d", "e"]);
  });

  it("steps wait for a transaction that is open, and stay out of it", async (t) => {
    const { db, transact } = await (await scene(t))();
    let steps: Promise<number> | undefined;
    const failing = db.transaction().execute(async (transaction) => {
      await transaction.insertInto("tenants").values(tenant("a")).execute();
      steps = transact([stepOf(db.insertInto("tenants").values(tenant("b")))]);
      await transaction.insertInto("tenants").values(tenant("c")).execute();
      throw new Error("no");
    });
    await assert.rejects(failing, /^Error: no$/);
    await steps;
    assert.deepEqual(await db.selectFrom("tenants").select("name").execute(), [{ name: "b" }]);
  });

  it("transactions of several processes lose no update", async (t) => {
    const open = await scene(t);
    const stores = [await open(), await open(), await open()];
    const bump = ({ db }: Store): Promise<unknown> =>
      db.transaction().execute(async (transaction) => {
        await transaction
          .updateTable("revisions")
          .set((eb) => ({ value: eb("value", "+", 1) }))
          .where("name", "=", "keys")
          .execute();
        const { value } = await transaction
          .selectFrom("revisions")
          .select("value")
          .where("name", "=", "keys")
          .executeTakeFirstOrThrow();
        await transaction
          .insertInto("facts")
          .values({ name: String(value), value: "" })
          .execute();
      });
    await Promise.all(stores.flatMap((store) => Array.from({ length: 20 }, () => bump(store))));
    const { value } = await (stores[0] as Store).db
      .selectFrom("revisions")
      .select("value")
      .where("name", "=", "keys")
      .executeTakeFirstOrThrow();
    assert.equal(value, 60);
  });

  it("an old store is brought up, by one of several that start at once, and keeps its rows", async (t) => {
    const open = await scene(t);
    const old = await open({ migrations: MIGRATIONS.slice(0, 1) });
    await old.db.insertInto("tenants").values(tenant("a")).execute();
    await old.db.insertInto("keys").values(key("key_1", "a")).execute();
    await old.close();
    const newer = [...MIGRATIONS, EXTRA];
    const stores = await Promise.all(Array.from({ length: 4 }, () => open({ migrations: newer })));
    for (const { db } of stores) {
      const rows = await sql`select name, count from later`.execute(db);
      assert.deepEqual(rows.rows, [{ name: "key_1", count: 7 }]);
      const versions = await sql<{ version: number }>`select version from schema_versions order by version`.execute(db);
      assert.deepEqual(
        versions.rows.map(({ version }) => version),
        newer.map((_, i) => i + 1),
      );
    }
  });

  it("a store that is newer than the program is refused and left as it is", async (t) => {
    const open = await scene(t);
    await open({ migrations: [...MIGRATIONS, EXTRA] });
    await assert.rejects(open(), (error) => error instanceof StoreError && /newer Castellan/.test(error.message));
    await open({ migrations: [...MIGRATIONS, EXTRA] });
  });

  it("a migration that fails leaves nothing behind", async (t) => {
    const open = await scene(t);
    await assert.rejects(open({ migrations: [...MIGRATIONS, BROKEN] }), StoreError);
    const { db } = await open();
    await assert.rejects(sql`select * from half`.execute(db));
  });
}

export function tenant(name: string) {
  return { name, limits: "{}", created_at: 1, created_by: "test" };
}

export function key(id: string, tenant: string) {
  const never = { not_before: null, expires_at: null, disabled_at: null, deleted_at: null, last_used_at: null };
  const empty = { scopes: null, reach: "{}", limits: "{}", caps: "{}" };
  return { id, tenant, name: "", role: "user", ...empty, ...never, created_at: 1, created_by: "test", revision: 1 };
}
