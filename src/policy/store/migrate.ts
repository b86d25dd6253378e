/**
 * Brings a store to this program's version, under a lock, all or nothing.
 *
 * Invariants: of several programs that start at once one migrates and the others wait; a store that is newer than the
 * program is refused untouched, since an older program could write what the newer one would misread.
 */
import { type Kysely, sql, type Transaction } from "kysely";
import type { Dialect, Migration } from "./migrations.ts";
import { StoreError } from "./store-error.ts";

/** What a back end does in its own way. */
export interface MigrationBackend {
  readonly dialect: Dialect;
  /** 1 when the table of applied versions is there. */
  readonly exists: string;
  /** Inside the transaction, before anything is read; undefined: the transaction itself keeps others out. */
  readonly lock: string | undefined;
}

/** @returns how many versions were applied now. @throws StoreError */
export async function migrate(
  db: Kysely<never>,
  backend: MigrationBackend,
  migrations: readonly Migration[],
): Promise<number> {
  // Mostly there is nothing to do, and then nobody has to wait for anybody.
  if (behind(await applied(db, backend), migrations) === 0) return 0;
  return db.transaction().execute(async (transaction) => {
    if (backend.lock !== undefined) await sql.raw(backend.lock).execute(transaction);
    const from = await applied(transaction, backend);
    const count = behind(from, migrations);
    if (from === 0) await makeTable(transaction, backend);
    for (let version = from + 1; version <= from + count; version++)
      await apply(transaction, backend, version, migrations[version - 1] as Migration);
    return count;
  });
}

/** @returns the version that the store has; 0: it is empty */
async function applied(db: Kysely<never>, { exists }: MigrationBackend): Promise<number> {
  const { rows } = await sql.raw(exists).execute(db);
  if (rows.length === 0) return 0;
  const newest = await sql<{ version: number | null }>`select max(version) as version from schema_versions`.execute(db);
  return newest.rows[0]?.version ?? 0;
}

/** @throws StoreError the store is newer */
function behind(version: number, migrations: readonly Migration[]): number {
  if (version > migrations.length) {
    throw new StoreError(
      `the database has version ${version} and this program knows versions up to ${migrations.length}: a newer Castellan wrote it; run that one`,
    );
  }
  return migrations.length - version;
}

async function makeTable(transaction: Transaction<never>, { dialect }: MigrationBackend): Promise<void> {
  const { integer, table } = dialect;
  await sql
    .raw(
      `create table schema_versions (version ${integer} not null primary key, name text not null, applied_at ${integer} not null)${table}`,
    )
    .execute(transaction);
}

async function apply(
  transaction: Transaction<never>,
  { dialect }: MigrationBackend,
  version: number,
  migration: Migration,
): Promise<void> {
  for (const statement of migration.statements(dialect)) await sql.raw(statement).execute(transaction);
  await sql`insert into schema_versions (version, name, applied_at) values (${version}, ${migration.name}, ${Date.now()})`.execute(
    transaction,
  );
}
