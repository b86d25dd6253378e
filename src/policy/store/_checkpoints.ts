/**
 * When what was committed goes from SQLite's log to the database: behind a sync of the log that nobody waits for.
 *
 * Why: left to itself SQLite syncs the log in the very commit that has made it long enough, 8 ms for 4 MiB, and whoever
 * waits for the disk waits for that. Here libuv's threads sync it meanwhile, a little each time, as the audit log's writes
 * wait behind it on the disk, so that a checkpoint finds next to nothing that is not there. Nothing depends on these
 * syncs: SQLite makes its own, and goes by what they say.
 * Used by the disk's thread only.
 */
import { close, fdatasync, openSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";

/** Rows that are written between two syncs; most are a page or two. */
const ROWS = 32;
/** Syncs between two checkpoints. */
const SYNCS = 8;
/** Pages after which SQLite does it by itself, 16 MiB; a reader that stays makes the log longer, as it always does. */
const MOST_PAGES = 4000;

function ignore(): void {}

export class Checkpoints {
  readonly #database: DatabaseSync;
  readonly #log: string;
  #descriptor: number | undefined;
  #rows = 0;
  #syncs = 0;
  #syncing = false;
  #closed = false;

  /** @param path of the database, which keeps a write-ahead log */
  constructor(database: DatabaseSync, path: string) {
    this.#database = database;
    this.#log = `${path}-wal`;
    database.exec(`PRAGMA wal_autocheckpoint = ${MOST_PAGES}`);
  }

  /** So many rows were written. */
  wrote(rows: number): void {
    this.#rows += rows;
    if (this.#rows < ROWS || this.#syncing) return;
    const descriptor = this.#opened();
    if (descriptor === undefined) return;
    this.#syncing = true;
    this.#rows = 0;
    fdatasync(descriptor, this.#synced);
  }

  /** Before the database is. */
  close(): void {
    this.#closed = true;
    if (!this.#syncing) this.#forget();
  }

  readonly #synced = (): void => {
    this.#syncing = false;
    if (this.#closed) this.#forget();
    else if (++this.#syncs % SYNCS === 0) this.#checkpoint();
  };

  /** Passive: it waits for nobody, and does what the readers and writers of other processes leave it to do. */
  #checkpoint(): void {
    try {
      this.#database.exec("PRAGMA wal_checkpoint(PASSIVE)");
    } catch {
      // In the middle of a transaction there is none; the next is soon. Of a disk that fails the next commit tells, and
      // what is committed lies safe in the log.
    }
  }

  /** @returns undefined: there is no log yet */
  #opened(): number | undefined {
    try {
      // It stays the same file as long as somebody has the database open, and SQLite takes no locks on it.
      this.#descriptor ??= openSync(this.#log, "r");
    } catch {
      this.#rows = 0;
    }
    return this.#descriptor;
  }

  #forget(): void {
    if (this.#descriptor !== undefined) close(this.#descriptor, ignore);
    this.#descriptor = undefined;
  }
}
