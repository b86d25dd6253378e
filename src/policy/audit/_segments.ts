/**
 * The files of a log: `audit-00000001.jsonl` and on, in one directory, and what can be told from a file's two ends.
 *
 * Reading is synchronous and bounded; it happens at the start, after a rotation and when another process has written.
 * Callers: the writer and who appends for it, verification, reading.
 */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { isForeign, isOpen, OTHERS_ANY } from "#base/owner.ts";
import { hashOf, MAX_LINE, parseRecord, type StoredRecord } from "./record.ts";

const NAME = /^audit-(\d{8,12})\.jsonl$/;
const LINE_FEED = 0x0a;
/** A write with it is on the disk when it returns; where there is no such flag, fdatasync follows. */
export const SYNCED: number = constants.O_DSYNC ?? 0;
export const APPEND: number = constants.O_WRONLY | constants.O_APPEND | SYNCED;

export interface Segment {
  readonly number: number;
  readonly name: string;
  readonly path: string;
}

export function segmentOf(directory: string, number: number): Segment {
  const name = `audit-${String(number).padStart(8, "0")}.jsonl`;
  return { number, name, path: join(directory, name) };
}

/** In order. @throws system errors */
export function segmentsIn(directory: string): Segment[] {
  return readdirSync(directory)
    .map((name) => NAME.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map((digits) => ({
      number: Number(digits),
      name: `audit-${digits}.jsonl`,
      path: join(directory, `audit-${digits}.jsonl`),
    }))
    .sort((a, b) => a.number - b.number);
}

/** A file of ours that others can neither read nor write. @throws Error with what is wrong, or a system error */
export function openSegment(path: string, flags: number): number {
  const safe = (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
  const descriptor = openSync(path, flags | safe, 0o600);
  const stats = fstatSync(descriptor);
  if (stats.isFile() && !isForeign(stats) && !isOpen(stats, OTHERS_ANY)) return descriptor;
  closeSync(descriptor);
  throw Object.assign(new Error(`${path} is not a private file of ours`), { code: "EACCES" });
}

/** What was refused shall not stand in the log. If it stays, the next commit finds it and goes on behind it. */
export function undo(descriptor: number, size: number): void {
  attempt(() => ftruncateSync(descriptor, size));
}

export function attempt(work: () => void): void {
  try {
    work();
  } catch {
    // The failure that led here is the one that is told.
  }
}

export interface FileEnd {
  readonly ino: number;
  readonly size: number;
  /** The last whole line; undefined: there is none. */
  readonly last: { readonly record: StoredRecord; readonly hash: string } | undefined;
  /** Bytes behind the last line feed: a write that was cut. */
  readonly torn: Buffer;
  /** There is a last line, and it is no record. */
  readonly unreadable: boolean;
}

export function readEnd(path: string): FileEnd {
  const descriptor = openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
  try {
    const { size, ino } = fstatSync(descriptor);
    const bytes = readAt(descriptor, Math.max(0, size - 4 * MAX_LINE), Math.min(size, 4 * MAX_LINE));
    const end = bytes.lastIndexOf(LINE_FEED);
    const torn = bytes.subarray(end + 1);
    const whole = bytes.length === size;
    if (end < 0) return { ino, size, last: undefined, torn, unreadable: !whole };
    const start = end === 0 ? 0 : bytes.lastIndexOf(LINE_FEED, end - 1) + 1;
    const text = bytes.subarray(start, end);
    const record = start === 0 && !whole ? undefined : parseRecord(text);
    const last = record === undefined ? undefined : { record, hash: hashOf(text) };
    return { ino, size, last, torn, unreadable: record === undefined };
  } finally {
    closeSync(descriptor);
  }
}

/** The record that a file begins with. */
export function readFirst(path: string): StoredRecord | undefined {
  const descriptor = openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
  try {
    const bytes = readAt(descriptor, 0, Math.min(fstatSync(descriptor).size, MAX_LINE));
    const end = bytes.indexOf(LINE_FEED);
    return end < 0 ? undefined : parseRecord(bytes.subarray(0, end));
  } finally {
    closeSync(descriptor);
  }
}

function readAt(descriptor: number, from: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const got = readSync(descriptor, bytes, done, length - done, from + done);
    if (got === 0) break;
    done += got;
  }
  return bytes.subarray(0, done);
}

/** Undefined: the path names nothing. @throws other system errors */
export function look(path: string): { readonly ino: number; readonly size: number } | undefined {
  return statSync(path, { throwIfNoEntry: false });
}
