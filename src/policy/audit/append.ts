/**
 * Appends a group to a file of the log that is as its writer left it: the lock, the look, the write and the lock's end in
 * one go, where waiting for the disk holds up nobody.
 *
 * Invariants: as the writer's own (_writer.ts): under the lock of all processes, and what could not be written whole is
 * taken away again. Nothing is judged here: of a file that is not as expected, and of a lock that another process has,
 * the writer is told, who looks by itself. Caller: the disk's thread.
 */
import { closeSync, fdatasyncSync, fstatSync, writeSync } from "node:fs";
import { ProcessLock } from "./_lock.ts";
import { APPEND, attempt, look, openSegment, SYNCED, undo } from "./_segments.ts";

/** What a group is appended to. */
export interface GroupPlace {
  /** The log's, where its lock is. */
  readonly directory: string;
  readonly path: string;
  /** The file as its writer left it. */
  readonly ino: number;
  readonly length: number;
}

export interface GroupOnDisk extends GroupPlace {
  /** Whole lines, in memory that threads share. */
  readonly bytes: Uint8Array;
}

/** `elsewhere`: the file is not as expected, or somebody else has the lock; nothing was written. */
export type Appended = "written" | "elsewhere";

/** What waits for the disk in the writer's place. @throws system errors: nothing of the group is in the log */
export type Appender = (group: GroupOnDisk) => Promise<Appended>;

interface Open {
  readonly path: string;
  readonly ino: number;
  readonly descriptor: number;
}

let lock: { readonly directory: string; readonly taken: ProcessLock } | undefined;
let open: Open | undefined;

/** @throws system errors: nothing of it is in the log, or nobody may rely on it */
export function appendGroup(place: GroupPlace, bytes: Uint8Array): Appended {
  try {
    const { taken } = lockOf(place.directory);
    if (!taken.tryTake()) return "elsewhere";
    try {
      return appendLocked(place, bytes);
    } finally {
      taken.release();
    }
  } catch (error) {
    // The directory may have been away: all is opened anew.
    forget();
    throw error;
  }
}

function appendLocked(place: GroupPlace, bytes: Uint8Array): Appended {
  const seen = look(place.path);
  if (seen?.ino !== place.ino || seen.size !== place.length) return "elsewhere";
  const descriptor = descriptorOf(place);
  if (descriptor === undefined) return "elsewhere";
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(descriptor, bytes, done);
    if (SYNCED === 0) fdatasyncSync(descriptor);
    return "written";
  } catch (error) {
    undo(descriptor, place.length);
    throw error;
  }
}

function lockOf(directory: string): NonNullable<typeof lock> {
  if (lock?.directory === directory) return lock;
  forget();
  lock = { directory, taken: new ProcessLock(directory) };
  return lock;
}

function descriptorOf({ path, ino }: GroupPlace): number | undefined {
  if (open?.path === path && open.ino === ino) return open.descriptor;
  closeFile();
  const descriptor = openSegment(path, APPEND);
  open = { path, ino: fstatSync(descriptor).ino, descriptor };
  return open.ino === ino ? descriptor : undefined;
}

function forget(): void {
  closeFile();
  const last = lock;
  lock = undefined;
  if (last !== undefined) attempt(() => last.taken.close());
}

function closeFile(): void {
  const last = open;
  open = undefined;
  if (last !== undefined) attempt(() => closeSync(last.descriptor));
}
