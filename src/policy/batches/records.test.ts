/** Records of files and batches over both stores. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Fault } from "#core/fault.ts";
import { scratchState } from "#policy/store/store.contract.ts";
import { openStore } from "#policy/store/store.ts";
import { postgresMissing, startPostgres, type TestPostgres } from "#test/fixtures/postgres.ts";
import { recordsContract } from "./records.contract.ts";
import { batchRecords } from "./records.ts";

let postgres: TestPostgres | undefined;
before(async () => {
  if (postgresMissing === undefined) postgres = await startPostgres();
});
after(() => postgres?.stop());

test("a store that is away is told as such", async (t) => {
  const store = await openStore({ state: scratchState(t) });
  const records = batchRecords(store.db, "node");
  await store.close();
  for (const ask of [() => records.file("t", "file-1"), () => records.open(), () => records.removeFile("file-1")])
    await assert.rejects(ask(), (error) => error instanceof Fault && error.kind === "policy_unavailable");
});

recordsContract({ name: "SQLite", skip: undefined, place: async () => undefined });
recordsContract({
  name: "PostgreSQL",
  skip: postgresMissing,
  place: async () => {
    assert.ok(postgres);
    return postgres.database();
  },
});
