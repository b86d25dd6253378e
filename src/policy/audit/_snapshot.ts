/**
 * The files of a log with their sizes at one moment: under the lock where it can be had, so that no write is in flight.
 * Callers: verification, reading.
 */
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { LockBusy, ProcessLock } from "./_lock.ts";
import { look, type Segment, segmentsIn } from "./_segments.ts";

const WAIT_MS = 2000;

export interface SizedSegment extends Segment {
  readonly size: number;
}

/** @throws system errors: there is no such directory, or it cannot be read */
export async function snapshot(directory: string): Promise<readonly SizedSegment[]> {
  const sized = () => segmentsIn(directory).map((segment) => ({ ...segment, size: look(segment.path)?.size ?? 0 }));
  const lock = lockOf(directory);
  if (lock === undefined) return sized();
  try {
    await lock.take(WAIT_MS);
    try {
      return sized();
    } finally {
      lock.release();
    }
  } catch (error) {
    // A writer that hangs holds it; what is there is read all the same.
    if (error instanceof LockBusy) return sized();
    throw error;
  } finally {
    lock.close();
  }
}

/** Nothing is made in a directory that is only looked at: a copy of a log has no lock. */
function lockOf(directory: string): ProcessLock | undefined {
  try {
    accessSync(join(directory, "lock"), constants.R_OK | constants.W_OK);
    return new ProcessLock(directory);
  } catch {
    return undefined;
  }
}
