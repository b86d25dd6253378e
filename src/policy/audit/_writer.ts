/**
 * Appends groups of records: one lock, one write that is on the disk when it returns, for a whole group. As long as the
 * file is as it was left and nothing but records is due, somebody else does both (append.ts), where there is one.
 *
 * Invariants: under the lock of all processes, behind a look whether the file is as it was left; a group is in the log
 * whole or, as far as the disk lets us, not at all; records are chained in the order of their bytes, over all files;
 * after any failure the position is found anew from the files. One commit at a time. Callers: log.ts.
 */
import {
  closeSync,
  constants,
  fdatasync,
  fsync,
  ftruncateSync,
  open as openFile,
  unlinkSync,
  write as writeFile,
} from "node:fs";
import { promisify } from "node:util";
import { dayOf } from "#policy/limits/windows.ts";
import { fits, Group } from "./_group.ts";
import { ProcessLock } from "./_lock.ts";
import { findPosition, type Note, type Position } from "./_position.ts";
import {
  APPEND,
  attempt,
  look,
  openSegment,
  readFirst,
  type Segment,
  SYNCED,
  segmentOf,
  segmentsIn,
  undo,
} from "./_segments.ts";
import type { Appender } from "./append.ts";
import type { Heads, Known } from "./heads.ts";
import { body, FORMAT } from "./record.ts";
import type { SignedHead, Signer } from "./signing.ts";

const DAY_MS = 86_400_000;
const LOCK_TIMEOUT_MS = 2000;
const BEGIN = APPEND | constants.O_CREAT;

/** What of the file system the writer needs to fail: tests do. */
export interface Disk {
  /** @returns bytes written, which may be fewer */
  write(descriptor: number, bytes: Uint8Array): Promise<number>;
  sync(descriptor: number): Promise<void>;
}

const written = promisify(writeFile);
export const DISK: Disk = {
  write: async (descriptor, bytes) => (await written(descriptor, bytes)).bytesWritten,
  sync: SYNCED === 0 ? promisify(fdatasync) : async () => {},
};

export interface WriterOptions {
  readonly directory: string;
  readonly signer: Signer;
  readonly heads: Heads;
  /** Bytes of a file at most, but for its last group. */
  readonly fileBytes: number;
  /** Files at most. */
  readonly keepFiles: number;
  /** Days that a file is kept; undefined: as long as there is room. */
  readonly keepDays: number | undefined;
  /** A checkpoint after so many records, or so much time in which there were any. */
  readonly checkpointRecords: number;
  readonly checkpointMs: number;
  readonly disk: Disk;
  readonly now: () => number;
}

export interface Committed {
  /** Number of the first body; the others follow. */
  readonly first: number;
  readonly notes: readonly Note[];
  /** The head that a checkpoint of this commit has signed. */
  readonly head: { readonly seq: number; readonly hash: string } | undefined;
}

const NO_NOTES: readonly Note[] = [];
const NO_SEGMENTS: readonly Segment[] = [];

export class Writer {
  readonly #options: WriterOptions;
  #lock: ProcessLock | undefined;
  #position: Position | undefined;
  readonly #group = new Group();
  #descriptor: number | undefined;
  #known: Known | undefined;
  /** Of cuts that were made and are not yet told in the log. */
  #owed: readonly Note[] = NO_NOTES;
  #unsigned = 0;
  #signedAt: number;
  #publishing: Promise<void> = Promise.resolve();
  /** Who waits for the disk, as far as anybody else may. */
  appender: Appender | undefined;
  /** Nobody else had written when it was looked last. */
  #alone = false;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#known = options.heads.last();
    this.#signedAt = options.now();
  }

  /** A checkpoint is due because of the time. */
  get dueAt(): number | undefined {
    return this.#unsigned === 0 ? undefined : this.#signedAt + this.#options.checkpointMs;
  }

  /**
   * @param sign a checkpoint at the end, if anything came since the last one
   * @throws system errors, LockBusy: none of it is in the log, or nobody may rely on it
   */
  async commit(bodies: readonly string[], sign = false): Promise<Committed> {
    const by = sign ? undefined : this.appender;
    return (by && (await this.#appendBy(by, bodies))) ?? (await this.#appendHere(bodies, sign));
  }

  async close(): Promise<void> {
    this.#forget();
    this.#closeLock();
    await this.#publishing;
  }

  /** @returns undefined: nothing was written, as more has to be done, or looked at, than to append */
  async #appendBy(appender: Appender, bodies: readonly string[]): Promise<Committed | undefined> {
    const position = this.#position;
    if (position === undefined || !this.#alone || this.#owed.length > 0 || this.#full(position)) return undefined;
    if (this.#checkpointDue(bodies.length) || !fits(bodies)) return undefined;
    const group = this.#group;
    group.begin(position);
    for (const text of bodies) group.add(text);
    if (!group.shared) return undefined;
    const { directory } = this.#options;
    const { path } = segmentOf(directory, position.number);
    try {
      const done = await appender({ directory, path, ino: position.ino, length: position.size, bytes: group.bytes });
      this.#alone = done === "written";
    } catch (error) {
      this.#forget();
      throw error;
    }
    if (!this.#alone) return undefined;
    this.#unsigned += bodies.length;
    this.#moveBehind(group, position);
    return { first: position.seq + 1, notes: NO_NOTES, head: undefined };
  }

  async #appendHere(bodies: readonly string[], sign: boolean): Promise<Committed> {
    // Opened anew after a failure: the directory may have been away.
    this.#lock ??= new ProcessLock(this.#options.directory);
    const lock = this.#lock;
    await lock.take(LOCK_TIMEOUT_MS);
    try {
      return await this.#append(bodies, sign);
    } catch (error) {
      this.#forget();
      // What was counted as signed may not be.
      this.#unsigned++;
      throw error;
    } finally {
      lock.release();
      if (this.#position === undefined) this.#closeLock();
    }
  }

  async #append(bodies: readonly string[], sign: boolean): Promise<Committed> {
    const notes = await this.#catchUp();
    const { now } = this.#options;
    if (this.#position !== undefined && this.#full(this.#position)) await this.#endFile(this.#position);
    const position = this.#position as Position;
    const group = this.#group;
    group.begin(position);
    const pruned = position.begin ? await this.#beginFile(position, group) : NO_SEGMENTS;
    for (const { kind, fields } of notes) group.add(body(kind, now(), fields));
    const first = group.seq + 1;
    for (const text of bodies) group.add(text);
    this.#unsigned += group.seq - position.seq;
    const due = sign || notes.some(({ kind }) => kind === "damage") || this.#checkpointDue();
    const head = due && this.#unsigned > 0 ? this.#checkpoint(group, position) : undefined;
    if (group.seq > position.seq) await this.#write(group);
    this.#owed = NO_NOTES;
    if (head !== undefined) this.#publish(head, position.number);
    for (const { path } of pruned) unlinkSync(path);
    return { first, notes, head };
  }

  /** What happened to the file since we left it: others have appended, or it is not the one it was. */
  async #catchUp(): Promise<readonly Note[]> {
    const { directory } = this.#options;
    const at = this.#position;
    if (at !== undefined && this.#descriptor !== undefined) {
      const seen = look(segmentOf(directory, at.number).path);
      this.#alone = seen?.ino === at.ino && seen.size === at.size;
      if (this.#alone) return this.#owed;
    }
    this.#forget();
    const { position, notes, cut } = findPosition(directory, this.#known);
    const repairs = notes.filter(({ kind }) => kind === "repair");
    if (cut !== undefined) cutTo(cut.segment, cut.size);
    const told = [...this.#owed, ...notes];
    this.#owed = [...this.#owed, ...repairs];
    if (!position.begin) this.#descriptor = openSegment(segmentOf(directory, position.number).path, BEGIN);
    this.#position = position;
    return told;
  }

  #full({ begin, size, day }: Position): boolean {
    const { fileBytes, now } = this.#options;
    return !begin && (size >= fileBytes || day !== dayOf(now()));
  }

  /** A file ends with a checkpoint. */
  async #endFile(position: Position): Promise<void> {
    const group = this.#group;
    group.begin(position);
    const head = this.#checkpoint(group, position);
    await this.#write(group);
    this.#publish(head, position.number);
    this.#closeFile();
    const { seq, hash } = group;
    this.#position = { ...position, seq, hash, number: position.number + 1, begin: true, size: 0 };
  }

  /** @returns the files that go once the record of it is written */
  async #beginFile(position: Position, group: Group): Promise<readonly Segment[]> {
    const { directory, now, signer } = this.#options;
    const at = now();
    const { path } = segmentOf(directory, position.number);
    this.#descriptor = openSegment(path, BEGIN);
    await syncDirectory(directory);
    const ino = look(path)?.ino ?? 0;
    this.#position = { ...position, begin: false, ino, size: 0, day: dayOf(at) };
    const { chain, number } = position;
    group.add(body("segment", at, { format: FORMAT, chain, number, publicKey: signer.publicKey }));
    const pruned = this.#outdated(at);
    const kept = segmentsIn(directory)[pruned.length];
    const first = pruned.length === 0 || kept === undefined ? undefined : readFirst(kept.path);
    if (first === undefined) return [];
    group.add(body("prune", at, { files: pruned.map(({ name }) => name), through: first.seq - 1, hash: first.prev }));
    return pruned;
  }

  /** The oldest files, as far as there are too many or they are too old; never the newest two. */
  #outdated(at: number): readonly Segment[] {
    const { directory, keepFiles, keepDays } = this.#options;
    const segments = segmentsIn(directory);
    const oldest = keepDays === undefined ? Number.NEGATIVE_INFINITY : at - keepDays * DAY_MS;
    let count = Math.max(0, segments.length - keepFiles);
    const limit = Math.max(0, segments.length - 2);
    // A file's successor begins when it ends.
    while (count < limit && Date.parse(readFirst(segments[count + 1]?.path ?? "")?.time ?? "") < oldest) count++;
    return segments.slice(0, Math.min(count, limit));
  }

  /** @param more records that are not counted yet */
  #checkpointDue(more = 0): boolean {
    const { checkpointRecords, checkpointMs, now } = this.#options;
    const unsigned = this.#unsigned + more;
    return unsigned >= checkpointRecords || (unsigned > 0 && now() >= this.#signedAt + checkpointMs);
  }

  #checkpoint(group: Group, { chain }: Position) {
    const { signer, now } = this.#options;
    const at = now();
    const head = signer.sign({ chain, seq: group.seq, hash: group.hash, time: new Date(at).toISOString() });
    group.add(body("checkpoint", at, { signature: head.signature, key: head.key }));
    this.#unsigned = 0;
    this.#signedAt = at;
    return head;
  }

  /** Nobody waits for it: an answer needs its record, not a signature. */
  #publish(head: SignedHead, number: number): void {
    const { heads } = this.#options;
    this.#publishing = this.#publishing.then(() => heads.publish(head, number));
  }

  async #write(group: Group): Promise<void> {
    const { disk } = this.#options;
    const descriptor = this.#descriptor;
    const position = this.#position;
    if (descriptor === undefined || position === undefined) throw new Error("no file of the audit log is open");
    const { bytes } = group;
    try {
      let done = await disk.write(descriptor, bytes);
      while (done < bytes.length) done += await disk.write(descriptor, bytes.subarray(done));
      await disk.sync(descriptor);
    } catch (error) {
      undo(descriptor, position.size);
      throw error;
    }
    this.#moveBehind(group, position);
  }

  #moveBehind({ seq, hash, bytes }: Group, position: Position): void {
    this.#position = { ...position, size: position.size + bytes.length, seq, hash };
    this.#known = { chain: position.chain, number: position.number, seq, hash };
  }

  #forget(): void {
    this.#closeFile();
    this.#position = undefined;
    this.#alone = false;
  }

  #closeFile(): void {
    const descriptor = this.#descriptor;
    this.#descriptor = undefined;
    if (descriptor !== undefined) attempt(() => closeSync(descriptor));
  }

  #closeLock(): void {
    const lock = this.#lock;
    this.#lock = undefined;
    if (lock !== undefined) attempt(() => lock.close());
  }
}

function cutTo({ path }: Segment, size: number): void {
  const descriptor = openSegment(path, constants.O_WRONLY);
  try {
    ftruncateSync(descriptor, size);
  } finally {
    closeSync(descriptor);
  }
}

const opened = promisify(openFile);
const synced = promisify(fsync);

/** So that the file's name survives a power cut. */
async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === "win32") return;
  const descriptor = await opened(directory, constants.O_RDONLY);
  try {
    await synced(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
