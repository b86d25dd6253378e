/**
 * What was committed reaches the database file while the program runs, whatever else holds the database.
 */
import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { Checkpoints } from "./_checkpoints.ts";

/** More than two checkpoints, and far fewer pages than SQLite waits for by itself. */
const ROWS = 1000;

interface Store {
  readonly path: string;
  readonly database: DatabaseSync;
  readonly checkpoints: Checkpoints;
}

function opened(t: TestContext): Store {
  const folder = mkdtempSync(join(tmpdir(), "castellan-checkpoints-"));
  const path = join(folder, "scratch.db");
  const database = new DatabaseSync(path);
  t.after(() => {
    if (database.isOpen) database.close();
    rmSync(folder, { recursive: true });
  });
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t (n INTEGER)");
  return { path, database, checkpoints: new Checkpoints(database, path) };
}

/** One row a transaction; syncs have time to end now and then. */
async function write({ database, checkpoints }: Store, rows: number): Promise<void> {
  const insert = database.prepare("INSERT INTO t VALUES (?)");
  for (let n = 0; n < rows; n++) {
    insert.run(n);
    checkpoints.wrote(1);
    if (n % 10 === 0) await wait(1);
  }
}

/** What the file has of it without its log. */
function inFile({ path }: Store): number {
  copyFileSync(path, `${path}.copy`);
  const copy = new DatabaseSync(`${path}.copy`);
  try {
    const there = copy.prepare("SELECT count(*) AS n FROM sqlite_schema").get()?.["n"];
    return there === 0 ? 0 : Number(copy.prepare("SELECT count(*) AS n FROM t").get()?.["n"]);
  } finally {
    copy.close();
  }
}

/** At last: the disk may be slow, and no test waits for ever. */
async function until(holds: () => boolean): Promise<boolean> {
  for (let i = 0; i < 500 && !holds(); i++) await wait(10);
  return holds();
}

test("rows reach the file long before SQLite would see to it, and the log begins anew", async (t) => {
  const store = opened(t);
  await write(store, ROWS);
  assert.ok(await until(() => inFile(store) > ROWS / 2), `${inFile(store)} rows are in the file`);
  const { size } = statSync(`${store.path}-wal`);
  await write(store, ROWS);
  assert.ok(await until(() => inFile(store) > 1.5 * ROWS));
  assert.ok(statSync(`${store.path}-wal`).size < 1.5 * size + 2 ** 20, "it did not go on growing");
});

test("who reads holds up no writer: its rows wait in the log", async (t) => {
  const store = opened(t);
  const reader = new DatabaseSync(store.path);
  try {
    await write(store, 1);
    reader.exec("BEGIN");
    assert.equal(reader.prepare("SELECT count(*) AS n FROM t").get()?.["n"], 1);
    await write(store, ROWS);
    await wait(50);
    assert.equal(reader.prepare("SELECT count(*) AS n FROM t").get()?.["n"], 1, "what it began with");
    reader.exec("COMMIT");
  } finally {
    reader.close();
  }
  await write(store, ROWS);
  assert.ok(await until(() => inFile(store) > ROWS));
  assert.equal(store.database.prepare("SELECT count(*) AS n FROM t").get()?.["n"], 1 + 2 * ROWS);
});

test("closed in the middle of a sync nothing is touched any more, and nothing is lost", async (t) => {
  const store = opened(t);
  const insert = store.database.prepare("INSERT INTO t VALUES (?)");
  for (let n = 0; n < ROWS; n++) {
    insert.run(n);
    store.checkpoints.wrote(1);
  }
  store.checkpoints.close();
  store.database.close();
  await wait(20);
  assert.equal(inFile(store), ROWS);
});
