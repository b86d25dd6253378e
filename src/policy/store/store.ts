/**
 * The store: what outlives a start and is shared between processes (keys, and what is counted under them). One shape
 * over two back ends: SQLite in the state directory for one machine, PostgreSQL for many servers.
 *
 * Invariants: an open store has this program's version of the tables; no statement holds up the event loop; the file
 * is ours alone (Wall: T02). Queries are written once, in what both back ends understand.
 * Callers: policy/ and app/.
 */
import { CompiledQuery, Kysely } from "kysely";
import type { Secret } from "#base/secret.ts";
import type { StateDirectory } from "#policy/state.ts";
import { Disk } from "./disk.ts";
import { type MigrationBackend, migrate } from "./migrate.ts";
import { MIGRATIONS, type Migration } from "./migrations.ts";
import type { Tables } from "./schema.ts";
import { SqliteDriver, sqliteDialect } from "./sqlite.ts";
import type { Step } from "./step.ts";
import { reasonOf, StoreError } from "./store-error.ts";

export type Database = Kysely<Tables>;

export interface Store {
  readonly kind: "sqlite" | "postgres";
  readonly db: Database;
  /**
   * A transaction that is known before it begins, in one message where that is cheaper.
   * @returns how many steps were done: all, or those up to one that decided against the others
   */
  transact(steps: readonly Step[]): Promise<number>;
  /** Who waits for the disk that the state directory is on; undefined: this store needs nobody. */
  readonly disk: Disk | undefined;
  /** Waits for what is on its way. */
  close(): Promise<void>;
}

export interface StoreOptions {
  readonly state: StateDirectory;
  /** Absent: the file in the state directory. */
  readonly databaseUrl?: Secret;
  /** A connection broke while nobody used it. */
  readonly onError?: (message: string) => void;
  /** Others than this program's own, for tests of it. */
  readonly migrations?: readonly Migration[];
}

export const DATABASE_FILE = "policy.db";
/** How long a statement waits for another process's transaction. */
const BUSY_TIMEOUT_MS = 5000;

/** Any number that no other program on the same database uses. */
const POSTGRES_LOCK = 7_260_419_003;

const SQLITE: MigrationBackend = {
  dialect: { integer: "integer", table: " strict" },
  exists: "select 1 from sqlite_master where type = 'table' and name = 'schema_versions'",
  lock: undefined,
};

const POSTGRES: MigrationBackend = {
  dialect: { integer: "bigint", table: "" },
  // Not to_regclass: its cache may not have heard, in a transaction, of a table that another one made meanwhile.
  exists: "select 1 from pg_catalog.pg_class where relname = 'schema_versions' and pg_table_is_visible(oid)",
  lock: `select pg_advisory_xact_lock(${POSTGRES_LOCK})`,
};

/** Opens it, makes it where it is missing, brings it up to date. @throws StateError | StoreError */
export async function openStore(options: StoreOptions): Promise<Store> {
  const connected = await connect(options);
  const { kind, db } = connected;
  try {
    await migrate(
      db as unknown as Kysely<never>,
      kind === "sqlite" ? SQLITE : POSTGRES,
      options.migrations ?? MIGRATIONS,
    );
  } catch (error) {
    await db.destroy();
    if (error instanceof StoreError) throw error;
    const what = kind === "sqlite" ? `${options.state.path}/${DATABASE_FILE}` : "the PostgreSQL database";
    throw new StoreError(`${what} cannot be used: ${reasonOf(error)}`);
  }
  return { ...connected, close: () => db.destroy() };
}

async function connect({ state, databaseUrl, onError = () => {} }: StoreOptions): Promise<Omit<Store, "close">> {
  if (databaseUrl !== undefined) {
    // Its driver is loaded where there is such a database.
    const { postgresDialect } = await import("./postgres.ts");
    const db: Database = new Kysely({ dialect: postgresDialect(databaseUrl, onError) });
    return { kind: "postgres", db, transact: (steps) => stepByStep(db, steps), disk: undefined };
  }
  const disk = new Disk({ path: state.reserve(DATABASE_FILE), busyTimeoutMs: BUSY_TIMEOUT_MS });
  const driver = new SqliteDriver(disk);
  const db: Database = new Kysely({ dialect: sqliteDialect(driver) });
  return { kind: "sqlite", db, transact: (steps) => driver.transact(steps), disk };
}

function stepByStep(db: Database, steps: readonly Step[]): Promise<number> {
  return db.transaction().execute(async (transaction) => {
    let done = 0;
    for (const { sql, parameters, decides = false } of steps) {
      const { numAffectedRows = 0n } = await transaction.executeQuery(CompiledQuery.raw(sql, [...parameters]));
      done++;
      if (decides && numAffectedRows === 0n) break;
    }
    return done;
  });
}

/** SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE; unique_violation. */
const TAKEN: readonly unknown[] = [1555, 2067, "23505"];

/** Whether a statement failed because a row with this key is there already. */
export function isTaken(error: unknown): boolean {
  return error instanceof Error && TAKEN.includes((error as Error & { code?: unknown }).code);
}
