/**
 * Kysely over node:sqlite, for which it has no dialect of its own: the driver, with SQLite in a thread.
 *
 * Invariants: one connection, lent to one borrower at a time; a transaction takes the write lock when it begins, so
 * that none fails in its middle because another process wrote first; the thread keeps the program from ending only
 * while an answer is due. Caller: store.ts.
 */
import type { SQLInputValue } from "node:sqlite";
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type Kysely,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from "kysely";
import type { Disk } from "./disk.ts";
import type { DiskAnswer } from "./disk-thread.ts";
import type { Step } from "./step.ts";
import { StoreError } from "./store-error.ts";

export function sqliteDialect(driver: SqliteDriver): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => driver,
    createIntrospector: (db: Kysely<never>) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}

export class SqliteDriver implements Driver {
  readonly #disk: Disk;
  #connection: SqliteConnection | undefined;
  /** Resolves when the last borrower so far has given the connection back. */
  #free: Promise<void> = Promise.resolve();
  #release: (() => void) | undefined;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  async init(): Promise<void> {
    this.#connection = new SqliteConnection(this.#disk);
  }

  async acquireConnection(): Promise<SqliteConnection> {
    const before = this.#free;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#free = promise;
    await before;
    this.#release = resolve;
    if (this.#connection === undefined) throw new StoreError("the store is closed");
    return this.#connection;
  }

  async releaseConnection(): Promise<void> {
    this.#release?.();
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw("begin immediate"));
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw("commit"));
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw("rollback"));
  }

  /** A transaction in one message. @returns how many steps were done */
  async transact(steps: readonly Step[]): Promise<number> {
    const connection = await this.acquireConnection();
    try {
      return await connection.transact(steps);
    } finally {
      this.#release?.();
    }
  }

  async destroy(): Promise<void> {
    await this.#free;
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection !== undefined) await this.#disk.close();
  }
}

type Rows = Extract<DiskAnswer, { rows: unknown[] }>;

class SqliteConnection implements DatabaseConnection {
  readonly #disk: Disk;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const { rows, changes } = await this.#disk.ask<Rows>({ sql, parameters: parameters.map(plain) });
    return { rows: rows as R[], numAffectedRows: BigInt(changes) };
  }

  async transact(steps: readonly Step[]): Promise<number> {
    const plainly = steps.map((step) => ({ ...step, parameters: step.parameters.map(plain) }));
    return Number((await this.#disk.ask<Rows>({ steps: plainly })).changes);
  }

  // biome-ignore lint/correctness/useYield: the interface wants a generator, and pages are asked for one by one
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new StoreError("rows are read in pages here, not streamed");
  }
}

/** What SQLite binds: no booleans, and bytes without the pool that a Buffer may be a window into. */
function plain(value: unknown): SQLInputValue {
  if (typeof value === "boolean") return value ? 1 : 0;
  return value instanceof Uint8Array ? new Uint8Array(value) : (value as SQLInputValue);
}
