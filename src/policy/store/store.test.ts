/**
 * The store over both back ends, and what each has of its own: SQLite's file and thread, PostgreSQL's URL and outages.
 */
import assert from "node:assert/strict";
import { chmodSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";
import { sql } from "kysely";
import { Secret } from "#base/secret.ts";
import { StateError } from "#policy/state.ts";
import { postgresMissing, startPostgres, type TestPostgres } from "#test/fixtures/postgres.ts";
import { until } from "#test/harness.ts";
import { scratchState, storeContract, tenant } from "./store.contract.ts";
import { DATABASE_FILE, openStore } from "./store.ts";
import { StoreError } from "./store-error.ts";

let postgres: TestPostgres | undefined;
before(async () => {
  if (postgresMissing === undefined) postgres = await startPostgres();
});
after(() => postgres?.stop());

const url = async (): Promise<string> => {
  assert.ok(postgres);
  return postgres.database();
};

storeContract({ name: "SQLite", skip: undefined, place: async () => undefined });
storeContract({ name: "PostgreSQL", skip: postgresMissing, place: url });

test("the database file is private from its first byte, its companions too", async (t) => {
  const state = scratchState(t);
  const mask = process.umask(0);
  try {
    const store = await openStore({ state });
    await store.db.insertInto("tenants").values(tenant("a")).execute();
    const files = readdirSync(state.path);
    assert.ok(files.includes(`${DATABASE_FILE}-wal`), "the write-ahead log is in use");
    for (const file of files) assert.equal(statSync(join(state.path, file)).mode & 0o777, 0o600, file);
    await store.close();
  } finally {
    process.umask(mask);
  }
});

test("a database file that others can read, or that is a link, is refused", async (t) => {
  for (const spoil of [
    (path: string) => writeFileSync(path, "", { mode: 0o644 }),
    (path: string) => symlinkSync("/dev/null", path),
    (path: string) => {
      writeFileSync(path, "", { mode: 0o600 });
      writeFileSync(`${path}-wal`, "");
      chmodSync(`${path}-wal`, 0o666);
    },
  ]) {
    const state = scratchState(t);
    spoil(join(state.path, DATABASE_FILE));
    await assert.rejects(openStore({ state }), StateError);
  }
});

test("a file that is no database is refused with its path", async (t) => {
  const state = scratchState(t);
  state.create(DATABASE_FILE, Buffer.from("x".repeat(4096)));
  await assert.rejects(
    openStore({ state }),
    (error) => error instanceof StoreError && error.message.includes(DATABASE_FILE),
  );
});

test("while another process holds SQLite's lock, the event loop goes on and the statement waits", async (t) => {
  const state = scratchState(t);
  const store = await openStore({ state });
  t.after(() => store.close());
  const other = new DatabaseSync(join(state.path, DATABASE_FILE));
  other.exec("begin immediate");
  let written = false;
  const write = store.db
    .insertInto("tenants")
    .values(tenant("a"))
    .execute()
    .then(() => {
      written = true;
    });
  let turns = 0;
  await until("the loop has turned a hundred times", () => ++turns > 100);
  assert.equal(written, false);
  other.exec("commit");
  other.close();
  await write;
  assert.equal((await store.db.selectFrom("tenants").selectAll().execute()).length, 1);
});

test("rules between tables hold in SQLite, and a closed store says that it is closed", async (t) => {
  const store = await openStore({ state: scratchState(t) });
  assert.deepEqual((await sql`pragma foreign_keys`.execute(store.db)).rows, [{ foreign_keys: 1 }]);
  assert.deepEqual((await sql`pragma synchronous`.execute(store.db)).rows, [{ synchronous: 1 }]);
  await store.close();
  await assert.rejects(store.db.selectFrom("tenants").selectAll().execute());
});

test("a database URL that cannot be used is told without its password", async (t) => {
  const state = scratchState(t);
  for (const bad of ["nonsense:hunter2", "mysql://u:hunter2@h/d", "postgres://u:hunter2@127.0.0.1:1/d?connect=1"]) {
    await assert.rejects(openStore({ state, databaseUrl: new Secret(bad) }), (error) => {
      assert.ok(error instanceof StoreError, String(error));
      assert.doesNotMatch(`${error.stack} ${JSON.stringify(error)} ${error.cause}`, /hunter2/);
      return true;
    });
  }
});

test("another machine's PostgreSQL is asked for TLS unless the URL says otherwise", async (t) => {
  const { createServer } = await import("node:net");
  const first = (): Promise<Buffer> => new Promise((done) => taken.push(done));
  const taken: ((head: Buffer) => void)[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (head) => {
      taken.shift()?.(head);
      socket.destroy();
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  const asked = async (host: string, query = ""): Promise<boolean> => {
    const head = first();
    const databaseUrl = new Secret(`postgres://u@${host}:${port}/d${query}`);
    await assert.rejects(openStore({ state: scratchState(t), databaseUrl }), StoreError);
    // SSLRequest: length 8, code 80877103.
    return (await head).subarray(0, 8).equals(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]));
  };
  assert.equal(await asked("127.0.0.1"), false);
  assert.equal(await asked("127.0.0.1", "?sslmode=verify-full"), true);
  // A name that leads here and that nobody can take for this machine's own.
  assert.equal(await asked("[::ffff:127.0.0.1]"), true);
  assert.equal(await asked("[::ffff:127.0.0.1]", "?sslmode=disable"), false);
});

test("PostgreSQL may go away and come back", { skip: postgresMissing ?? false }, async (t) => {
  const own = await startPostgres();
  t.after(() => own.stop());
  const broken: string[] = [];
  const store = await openStore({
    state: scratchState(t),
    databaseUrl: new Secret(await own.database()),
    onError: (message) => broken.push(message),
  });
  t.after(() => store.close());
  await store.db.insertInto("tenants").values(tenant("a")).execute();
  await own.kill();
  await assert.rejects(store.db.selectFrom("tenants").selectAll().execute());
  await own.start();
  assert.equal((await store.db.selectFrom("tenants").selectAll().execute()).length, 1);
  assert.ok(broken.length > 0, "the idle connection's end was told");
});

test("PostgreSQL dies under queries: they fail, and nothing else", { skip: postgresMissing ?? false }, async (t) => {
  const own = await startPostgres();
  t.after(() => own.stop());
  const store = await openStore({ state: scratchState(t), databaseUrl: new Secret(await own.database()) });
  const running = Array.from({ length: 4 }, () => sql`select pg_sleep(60)`.execute(store.db));
  const ended = Promise.allSettled(running);
  await until("the queries run", async () => {
    const { rows } = await sql<{ n: number }>`
      select count(*) as n from pg_stat_activity where query like 'select pg_sleep%'`.execute(store.db);
    return rows[0]?.n === 4;
  });
  await own.kill();
  for (const { status } of await ended) assert.equal(status, "rejected");
  // An unheard error of a connection would have ended the test's process by now.
  await own.start();
  const { rows } = await sql<{ one: number }>`select 1 as one`.execute(store.db);
  assert.equal(rows[0]?.one, 1);
  await store.close();
});
