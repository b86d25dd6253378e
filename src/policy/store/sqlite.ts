/**
 * Kysely over node:sqlite, for which it has no dialect of its own: the driver, with SQLite in a thread.
 *
 * Invariants: one connection, lent to one borrower at a time; a transaction takes the write lock when it begins, so
 * that none fails in its middle because another process wrote first; the thread keeps the program from ending only
 * while an answer is due. Caller: store.ts.
 */
import { Worker } from "node:worker_threads";
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
import type { SqliteAnswer, SqliteRequest, SqliteThreadOptions } from "./sqlite-thread.ts";
import type { Step } from "./step.ts";
import { StoreError } from "./store-error.ts";

const ENTRY = new URL(import.meta.url.endsWith(".ts") ? "./sqlite-thread.ts" : "./sqlite-thread.js", import.meta.url);

/** A statement that SQLite refused. */
export class SqliteError extends Error {
  override readonly name = "SqliteError";
  /** SQLite's extended result code. */
  readonly code: number | undefined;

  constructor(message: string, code: number | undefined) {
    super(message);
    this.code = code;
  }
}

export function sqliteDialect(driver: SqliteDriver): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => driver,
    createIntrospector: (db: Kysely<never>) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}

export class SqliteDriver implements Driver {
  readonly #options: SqliteThreadOptions;
  #connection: SqliteConnection | undefined;
  /** Resolves when the last borrower so far has given the connection back. */
  #free: Promise<void> = Promise.resolve();
  #release: (() => void) | undefined;

  constructor(options: SqliteThreadOptions) {
    this.#options = options;
  }

  async init(): Promise<void> {
    this.#connection = new SqliteConnection(this.#options);
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
    await connection?.close();
  }
}

type Rows = Extract<SqliteAnswer, { rows: unknown[] }>;

type Asked = Pick<Step, "sql" | "parameters"> | { readonly steps: readonly Step[] };

interface Waiting {
  readonly resolve: (rows: Rows) => void;
  readonly reject: (error: Error) => void;
}

class SqliteConnection implements DatabaseConnection {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #broken: StoreError | undefined;

  constructor(options: SqliteThreadOptions) {
    this.#worker = new Worker(ENTRY, { workerData: options, env: {}, argv: [], name: "store" });
    this.#worker.unref();
    this.#worker.on("message", (answer: SqliteAnswer) => this.#settle(answer));
    this.#worker.on("error", (error) => this.#break(`the store's thread failed: ${(error as Error).message}`));
    this.#worker.on("exit", () => this.#break("the store's thread has ended"));
  }

  async executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const { rows, changes } = await this.#ask({ sql, parameters: parameters.map(plain) });
    return { rows: rows as R[], numAffectedRows: BigInt(changes) };
  }

  async transact(steps: readonly Step[]): Promise<number> {
    const plainly = steps.map((step) => ({ ...step, parameters: step.parameters.map(plain) }));
    return Number((await this.#ask({ steps: plainly })).changes);
  }

  // biome-ignore lint/correctness/useYield: the interface wants a generator, and pages are asked for one by one
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new StoreError("rows are read in pages here, not streamed");
  }

  async close(): Promise<void> {
    const ended = new Promise((done) => this.#worker.once("exit", done));
    this.#worker.ref();
    this.#worker.postMessage("close");
    if (this.#broken === undefined) await ended;
  }

  #ask(what: Asked): Promise<Rows> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    const id = this.#nextId++;
    this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...what } as SqliteRequest);
    });
  }

  #settle(answer: SqliteAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (this.#waiting.size === 0) this.#worker.unref();
    if ("error" in answer) waiting?.reject(new SqliteError(answer.error, answer.code));
    else waiting?.resolve(answer);
  }

  #break(message: string): void {
    this.#broken ??= new StoreError(message);
    for (const { reject } of this.#waiting.values()) reject(this.#broken);
    this.#waiting.clear();
  }
}

/** What SQLite binds: no booleans, and bytes without the pool that a Buffer may be a window into. */
function plain(value: unknown): unknown {
  if (typeof value === "boolean") return value ? 1 : 0;
  return value instanceof Uint8Array ? new Uint8Array(value) : value;
}
