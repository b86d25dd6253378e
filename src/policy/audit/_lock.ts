/**
 * One writer at a time, among all processes that append to one log.
 *
 * The lock is SQLite's own on an empty database file: the operating system lets go of it when its holder dies, so
 * there is no stale lock to judge. It is asked for without waiting inside SQLite, which would hold the event loop.
 * Callers: _writer.ts and whoever reads a log that may be written to.
 */
import { closeSync, lstatSync, openSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { setTimeout as wait } from "node:timers/promises";

const FILE = "lock";
const BUSY = 5;
const POLL_MS = 2;

export class LockBusy extends Error {
  override readonly name = "LockBusy";
}

export class ProcessLock {
  readonly #database: DatabaseSync;
  readonly #begin: StatementSync;
  readonly #end: StatementSync;

  /** @throws system errors: the file cannot be had */
  constructor(directory: string) {
    const path = join(directory, FILE);
    provide(path);
    this.#database = new DatabaseSync(path, { timeout: 0 });
    // Nothing is ever written to it, so there is no journal to look for at each turn.
    this.#database.exec("PRAGMA journal_mode=memory");
    this.#begin = this.#database.prepare("BEGIN IMMEDIATE");
    this.#end = this.#database.prepare("ROLLBACK");
  }

  tryTake(): boolean {
    try {
      this.#begin.run();
      return true;
    } catch (error) {
      if (((error as { errcode?: number }).errcode ?? 0) % 256 === BUSY) return false;
      throw error;
    }
  }

  /** @throws LockBusy somebody else held it all the time */
  async take(timeoutMs: number): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!this.tryTake()) {
      if (performance.now() >= end) throw new LockBusy("another process holds the lock of the audit log");
      await wait(POLL_MS * (1 + Math.random()));
    }
  }

  release(): void {
    this.#end.run();
  }

  close(): void {
    this.#database.close();
  }
}

/**
 * A file of ours, no link. One that is there is not opened: where it is closed again, the system lets go of what another
 * lock of this process holds on it (POSIX, fcntl).
 */
function provide(path: string): void {
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    if (!lstatSync(path).isFile()) throw Object.assign(new Error(`${path} is not a file of ours`), { code: "EACCES" });
  }
}
