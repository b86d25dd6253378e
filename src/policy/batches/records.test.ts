/** Records of files and batches over both stores. */
import assert from "node:assert/strict";
import { after, before } from "node:test";
import { postgresMissing, startPostgres, type TestPostgres } from "#test/fixtures/postgres.ts";
import { recordsContract } from "./records.contract.ts";

let postgres: TestPostgres | undefined;
before(async () => {
  if (postgresMissing === undefined) postgres = await startPostgres();
});
after(() => postgres?.stop());

recordsContract({ name: "SQLite", skip: undefined, place: async () => undefined });
recordsContract({
  name: "PostgreSQL",
  skip: postgresMissing,
  place: async () => {
    assert.ok(postgres);
    return postgres.database();
  },
});
