/**
 * The thread that SQLite runs in: one connection, one statement after the other, in the order in which they came.
 *
 * node:sqlite is synchronous, and a statement may wait for the disk or for another process's lock: here that holds
 * up nobody but other statements. Started by sqlite.ts; talks in `SqliteRequest` and `SqliteAnswer`.
 */
import "#base/no-environment-in-reports.ts";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { parentPort, workerData } from "node:worker_threads";
import type { Step } from "./step.ts";

interface Statement {
  readonly sql: string;
  readonly parameters: readonly SQLInputValue[];
}

/** A statement, or a whole transaction: a message each way costs more than most statements. */
export type SqliteRequest =
  | (Statement & { readonly id: number })
  | { readonly id: number; readonly steps: readonly (Statement & Pick<Step, "decides">)[] };

/** Of a transaction `changes` is how many of its steps were done. */
export type SqliteAnswer =
  | { readonly id: number; readonly rows: unknown[]; readonly changes: number | bigint }
  | { readonly id: number; readonly error: string; readonly code: number | undefined };

export interface SqliteThreadOptions {
  readonly path: string;
  readonly busyTimeoutMs: number;
}

/** Prepared statements that are kept. */
const KEPT = 256;

const { path, busyTimeoutMs } = workerData as SqliteThreadOptions;
const prepared = new Map<string, StatementSync>();
let database: DatabaseSync | undefined;

parentPort?.on("message", (request: SqliteRequest | "close") => {
  if (request === "close") {
    database?.close();
    parentPort?.close();
    return;
  }
  parentPort?.postMessage(answer(request));
});

function answer(request: SqliteRequest): SqliteAnswer {
  const { id } = request;
  try {
    if ("steps" in request) return { id, rows: [], changes: transact(request.steps) };
    const statement = prepare(request.sql);
    if (statement.columns().length > 0) return { id, rows: statement.all(...request.parameters), changes: 0 };
    return { id, rows: [], changes: statement.run(...request.parameters).changes };
  } catch (error) {
    const { message, errcode } = error as Error & { errcode?: number };
    return { id, error: message, code: errcode };
  }
}

/** @returns how many steps were done */
function transact(steps: Extract<SqliteRequest, { steps: unknown }>["steps"]): number {
  prepare("begin immediate").run();
  try {
    let done = 0;
    for (const { sql, parameters, decides = false } of steps) {
      const { changes } = prepare(sql).run(...parameters);
      done++;
      if (decides && Number(changes) === 0) break;
    }
    prepare("commit").run();
    return done;
  } catch (error) {
    // Some errors end the transaction by themselves.
    if (database?.isTransaction === true) prepare("rollback").run();
    throw error;
  }
}

function prepare(sql: string): StatementSync {
  const known = prepared.get(sql);
  if (known !== undefined) return known;
  database ??= open();
  const statement = database.prepare(sql);
  if (prepared.size >= KEPT) prepared.delete(prepared.keys().next().value as string);
  prepared.set(sql, statement);
  return statement;
}

function open(): DatabaseSync {
  const opened = new DatabaseSync(path, { timeout: busyTimeoutMs, enableForeignKeyConstraints: true });
  // NORMAL in WAL mode: what was committed outlives the process whatever ends it, and a power cut keeps the file whole.
  for (const pragma of ["journal_mode = WAL", "synchronous = NORMAL", "trusted_schema = OFF", "cell_size_check = ON"])
    opened.exec(`PRAGMA ${pragma}`);
  return opened;
}
