/**
 * A lock between processes: a file that only one can create.
 *
 * The file names its holder (host, process id, a random mark) and the holder touches it every few seconds. It is
 * stale, and taken over, when its process is gone on this host, or when nobody touched it for a minute (a holder
 * on another host, or in another container with the same cache), or when whoever made it died before it wrote who it
 * is. Takeover moves the stale file aside under a
 * name of our own first, so of several takers one wins; whoever finds that it moved a fresh lock puts it back. A
 * holder that lost its lock learns it from `lost` within a touch, and must stop.
 * Callers: hub-model.ts, app/run-batch.ts for its output, app/batches.ts for who runs batches.
 */
import { randomUUID } from "node:crypto";
import { link, readFile, rename, stat, unlink, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as wait } from "node:timers/promises";
import { isAlive } from "#base/alive.ts";
import { systemCode } from "./model-error.ts";

const TOUCH_MS = 5_000;
const STALE_MS = 60_000;
const POLL_MS = 100;
/** From the making of a lock to its text at most; whoever took longer finds that the lock is another's. */
const UNNAMED_MS = 5_000;

/** Marks of the locks that this process holds: our own process id in a lock file says nothing by itself. */
const held = new Set<string>();

export interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called once when somebody else holds the lock. */
  readonly onWait?: () => void;
}

/**
 * Runs `work` while holding the lock; waits for it without limit (the signal ends the wait).
 * @param work `lost` aborts when the lock was taken from us.
 */
export async function withLock<T>(
  path: string,
  options: LockOptions,
  work: (lost: AbortSignal) => Promise<T>,
): Promise<T> {
  const text = `${hostname()}\n${process.pid}\n${randomUUID()}\n`;
  held.add(text);
  try {
    await acquire(path, text, options);
    return await hold(path, text, work);
  } finally {
    held.delete(text);
  }
}

async function acquire(path: string, text: string, options: LockOptions): Promise<void> {
  let told = false;
  while (!(await create(path, text))) {
    if (await takeOverStale(path)) continue;
    // Without a text nobody says that they hold it.
    if (!told && (await read(path)) !== "") {
      told = true;
      options.onWait?.();
    }
    await wait(POLL_MS, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }
}

async function hold<T>(path: string, text: string, work: (lost: AbortSignal) => Promise<T>): Promise<T> {
  const lost = new AbortController();
  const touch = setInterval(async () => {
    const now = new Date();
    const ours = (await read(path)) === text;
    await utimes(path, now, now).catch(() => {});
    if (!ours) lost.abort();
  }, TOUCH_MS);
  try {
    return await work(lost.signal);
  } finally {
    clearInterval(touch);
    if ((await read(path)) === text) await unlink(path).catch(() => {});
  }
}

async function create(path: string, text: string): Promise<boolean> {
  try {
    await writeFile(path, text, { flag: "wx", mode: 0o600 });
    return (await read(path)) === text;
  } catch (error) {
    if (systemCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** @returns whether it is worth trying to create the lock at once. */
async function takeOverStale(path: string): Promise<boolean> {
  const text = await read(path);
  if (text === undefined) return true;
  if (!(await isStale(path, text))) return false;
  const aside = `${path}.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return true;
    throw error;
  }
  // Between the look and the move somebody else may have taken over: then this is their lock.
  if ((await read(aside)) !== text) await link(aside, path).catch(() => {});
  await unlink(aside).catch(() => {});
  return true;
}

async function isStale(path: string, text: string): Promise<boolean> {
  const [host, pid] = text.split("\n");
  const age = await stat(path).then(
    (found) => Date.now() - found.mtimeMs,
    () => 0,
  );
  if (age > (text === "" ? UNNAMED_MS : STALE_MS)) return true;
  if (host !== hostname() || pid === undefined || !/^[0-9]{1,10}$/.test(pid)) return false;
  return Number(pid) === process.pid ? !held.has(text) : !isAlive(Number(pid));
}

async function read(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return undefined;
  }
}
