/**
 * The thread that waits for the disk: SQLite over one connection, and groups of the audit log, one after the other in the
 * order in which they came.
 *
 * node:sqlite is synchronous, and a statement may wait for the disk or for another process's lock, as a write does that is
 * on the disk when it returns: here that holds up nobody but what else waits for the disk. Started by disk.ts; takes
 * lists of `DiskRequest` and answers each with a list of `DiskAnswer`.
 */
import "#base/no-environment-in-reports.ts";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { parentPort, workerData } from "node:worker_threads";
import { type Appended, appendGroup, type GroupPlace } from "#policy/audit/append.ts";
import { Checkpoints } from "./_checkpoints.ts";
import type { Step } from "./step.ts";

interface Statement {
  readonly sql: string;
  readonly parameters: readonly SQLInputValue[];
}

/** @param size bytes of the group. @param memory where it lies; absent: where the last one lay */
interface Append extends GroupPlace {
  readonly size: number;
  readonly memory?: SharedArrayBuffer;
}

/** A statement, a whole transaction, or a group of the audit log. */
export type DiskRequest =
  | Statement
  | { readonly steps: readonly (Statement & Pick<Step, "decides">)[] }
  | { readonly append: Append };

/** Of a transaction `changes` is how many of its steps were done. */
export type DiskAnswer =
  | { readonly rows: unknown[]; readonly changes: number | bigint }
  | { readonly appended: Appended }
  | { readonly error: string; readonly code: number | string | undefined };

export interface DiskThreadOptions {
  readonly path: string;
  readonly busyTimeoutMs: number;
}

/** Prepared statements that are kept. */
const KEPT = 256;

const { path, busyTimeoutMs } = workerData as DiskThreadOptions;
const prepared = new Map<string, StatementSync>();
let database: DatabaseSync | undefined;
let checkpoints: Checkpoints | undefined;

let memory: Uint8Array | undefined;

parentPort?.on("message", (requests: readonly DiskRequest[] | "close") => {
  if (requests === "close") {
    checkpoints?.close();
    database?.close();
    parentPort?.close();
    return;
  }
  parentPort?.postMessage(requests.map(answer));
});

function answer(request: DiskRequest): DiskAnswer {
  try {
    if ("append" in request) return { appended: append(request.append) };
    if ("steps" in request) return { rows: [], changes: transact(request.steps) };
    const statement = prepare(request.sql);
    if (statement.columns().length > 0) return { rows: statement.all(...request.parameters), changes: 0 };
    const { changes } = statement.run(...request.parameters);
    checkpoints?.wrote(Number(changes));
    return { rows: [], changes };
  } catch (error) {
    const { message, errcode, code } = error as Error & { errcode?: number; code?: string };
    return { error: message, code: errcode ?? code };
  }
}

function append({ size, memory: told, ...place }: Append): Appended {
  if (told !== undefined) memory = new Uint8Array(told);
  if (memory === undefined) throw new Error("nobody said where groups lie");
  return appendGroup(place, memory.subarray(0, size));
}

/** @returns how many steps were done */
function transact(steps: Extract<DiskRequest, { steps: unknown }>["steps"]): number {
  prepare("begin immediate").run();
  try {
    let done = 0;
    for (const { sql, parameters, decides = false } of steps) {
      const { changes } = prepare(sql).run(...parameters);
      done++;
      if (decides && Number(changes) === 0) break;
    }
    prepare("commit").run();
    checkpoints?.wrote(done);
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
  checkpoints = new Checkpoints(opened, path);
  return opened;
}
