/**
 * Files of batches: contents in a folder of the state directory under names made here, records in the store.
 *
 * Invariants: a file is its tenant's, and nobody else's exists (Wall: T74); what a client names a file never stands in a
 * path; a record has its content, whole, on the disk before anybody sees it; bytes and number are bounded for a tenant
 * and for all, while they are written too, and what is old goes; what a batch answered is never lost for want of room. Made by the app.
 */

import { open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { newId } from "#base/ids.ts";
import type { BatchRecords, FileRoom, PageRequest, StoredFile } from "#core/batches.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { Grant } from "#core/principal.ts";
import { type Held, Room } from "./room.ts";

/** What the form says besides the file. */
export interface UploadWords {
  /** Milliseconds; absent: as long as files are kept. */
  readonly keepMs?: number;
}

export interface Upload {
  readonly content: AsyncIterable<Uint8Array>;
  readonly name: string;
  /** Bytes that are sure to come. */
  readonly atLeast: number;
}

/** A form with one file, while it is read. */
export type ReadUpload = (take: (upload: Upload) => Promise<void>) => Promise<UploadWords>;

export interface FilesOptions {
  readonly records: BatchRecords;
  /** Ours alone. */
  readonly folder: string;
  readonly room: FileRoom;
  readonly keepMs: number;
}

const UPLOADS = 16;
const TENANT_UPLOADS = 4;
const STAGED = ".upload-";
/** What is younger may be another server's, on the same directory, that is at it now. */
const STRAY_MS = 3_600_000;
/** What a person's terminal would take for something else. */
const CONTROLS = /[\p{Cc}\p{Cf}]/gu;

export class Files {
  readonly #options: FilesOptions;
  readonly #uploading = new Map<string, number>();
  readonly #room: Room;

  constructor(options: FilesOptions) {
    this.#options = options;
    this.#room = new Room(options.records, options.room);
  }

  /** @throws Fault payload_too_large | overloaded | what `read` throws */
  async upload({ principal }: Grant<"batch">, read: ReadUpload): Promise<StoredFile> {
    const { tenant, id: createdBy } = principal;
    const done = this.#begin(tenant);
    const staged = join(this.#options.folder, `${STAGED}${newId()}`);
    let held: Held | undefined;
    try {
      const room = await this.#room.hold(tenant);
      held = room;
      let taken: { name: string; bytes: number } | undefined;
      const { keepMs } = await read(async ({ content, name, atLeast }) => {
        room.reach(atLeast);
        taken = { name: name.replaceAll(CONTROLS, ""), bytes: await write(staged, content, room) };
      });
      if (taken === undefined) throw invalid("file", "The form has no file.");
      const now = Date.now();
      const expiresAt = now + Math.min(keepMs ?? Number.POSITIVE_INFINITY, this.#options.keepMs);
      const words = { id: `file-${newId()}`, tenant, createdBy, purpose: "batch" as const, ...taken, createdAt: now };
      const file = { ...words, expiresAt };
      await this.#adopt(staged, file, room, false);
      return file;
    } finally {
      held?.release();
      done();
      await rm(staged, { force: true });
    }
  }

  #begin(tenant: string): () => void {
    const all = [...this.#uploading.values()].reduce((sum, count) => sum + count, 0);
    const own = this.#uploading.get(tenant) ?? 0;
    if (all >= UPLOADS || own >= TENANT_UPLOADS)
      throw new Fault("overloaded", "Too many files are being uploaded at once.", { retryAfterMs: 1000 });
    this.#uploading.set(tenant, own + 1);
    return () => {
      const left = (this.#uploading.get(tenant) ?? 1) - 1;
      if (left === 0) this.#uploading.delete(tenant);
      else this.#uploading.set(tenant, left);
    };
  }

  /** Room for what a batch of the tenant writes. */
  hold(tenant: string): Promise<Held> {
    return this.#room.hold(tenant);
  }

  /** What is wrong when there is none. */
  full(): Fault {
    return this.#room.full();
  }

  /** Gives a file of this folder its name and record. @throws Fault payload_too_large: there is no room */
  async #adopt(path: string, file: StoredFile, held: Held, anyhow: boolean): Promise<void> {
    await rename(path, this.path(file.id));
    try {
      await this.#room.add(file, held, anyhow);
    } catch (error) {
      await rm(this.path(file.id), { force: true });
      throw error;
    }
  }

  /**
   * A batch's output, of which the rows have been on this disk for long: what was answered is kept, whether there is room
   * or not, and a tenant that has none left uploads nothing. The same id may come again after a crash.
   */
  async adoptOutput(
    path: string,
    file: Pick<StoredFile, "id" | "tenant" | "createdBy" | "name">,
    held: Held,
  ): Promise<void> {
    const now = Date.now();
    await this.#options.records.removeFile(file.id);
    const { size: bytes } = await stat(path);
    const expiresAt = now + this.#options.keepMs;
    await this.#adopt(path, { ...file, purpose: "batch_output", bytes, createdAt: now, expiresAt }, held, true);
  }

  /** @throws Fault file_not_found */
  async get({ principal }: Grant<"batch">, id: string): Promise<StoredFile> {
    const file = await this.#options.records.file(principal.tenant, id);
    if (file === undefined || file.expiresAt <= Date.now()) throw notFound(id);
    return file;
  }

  /** @throws Fault invalid_request: no file of the tenant has the id that it goes on behind */
  async list(
    { principal }: Grant<"batch">,
    page: PageRequest & { readonly purpose?: string; readonly oldestFirst?: boolean },
  ): Promise<readonly StoredFile[]> {
    const found = await this.#options.records.files(principal.tenant, page);
    if (found === undefined) throw invalid("after", "There is no file of this id to go on behind.");
    return found;
  }

  /** @throws Fault file_not_found | file_elsewhere */
  async content(grant: Grant<"batch">, id: string): Promise<{ pieces: AsyncIterable<Uint8Array>; length: number }> {
    const { id: name, bytes, elsewhere } = await this.get(grant, id);
    if (elsewhere === true)
      throw new Fault(
        "file_elsewhere",
        "The content of this file is on another server of this service: ask for it there, by way of the server that the file or the batch was given to.",
      );
    await stat(this.path(name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") throw notFound(id);
      throw error;
    });
    return { pieces: piecesOf(this.path(name), bytes), length: bytes };
  }

  /** @throws Fault file_not_found | invalid_request: a batch reads it */
  async remove(grant: Grant<"batch">, id: string): Promise<void> {
    const { records } = this.#options;
    const file = await this.get(grant, id);
    if (await records.reads(file.id)) throw invalid("file_id", "A batch that is not over reads this file.");
    await records.removeFile(file.id);
    await rm(this.path(file.id), { force: true });
  }

  path(id: string): string {
    return join(this.#options.folder, id);
  }

  /** Takes away what is old, what a crash left or another server deleted: files without a record, rows of batches that are over. */
  async sweep(): Promise<void> {
    const { records, folder } = this.#options;
    for (const id of await records.expiredFiles(Date.now())) {
      await records.removeFile(id);
      await rm(this.path(id), { force: true });
    }
    const known = new Set([...(await records.fileIds()), ...(await records.open()).map(({ id }) => id)]);
    for (const name of await readdir(folder)) {
      const ours = name.startsWith("file-") || name.startsWith("batch_");
      // Rows of a batch are `batch_….rows` and what stands beside them.
      const stray = name.startsWith(STAGED) || (ours && !known.has(name.split(".")[0] ?? ""));
      if (stray && (await stat(join(folder, name))).mtimeMs < Date.now() - STRAY_MS)
        await rm(join(folder, name), { force: true });
    }
  }
}

function notFound(id: string): Fault {
  return new Fault("file_not_found", `File with id '${id}' not found.`);
}

/** @returns how many bytes it has; all of them on the disk. @throws Fault payload_too_large: there is no more room */
async function write(path: string, content: AsyncIterable<Uint8Array>, room: Held): Promise<number> {
  const file = await open(path, "wx", 0o600);
  try {
    let bytes = 0;
    for await (const piece of content) {
      room.reach(bytes + piece.length);
      for (let at = 0; at < piece.length; ) at += (await file.write(piece, at)).bytesWritten;
      bytes += piece.length;
    }
    await file.datasync();
    return bytes;
  } finally {
    await file.close();
  }
}

const PIECE = 64 * 1024;

/** Opens it when it is read: an answer that never begins leaves nothing open. */
async function* piecesOf(path: string, bytes: number): AsyncGenerator<Uint8Array> {
  const file = await open(path, "r");
  try {
    for (let at = 0; at < bytes; ) {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(Math.min(PIECE, bytes - at)), 0, undefined, at);
      if (bytesRead === 0) throw new Error("a file is shorter than its record says");
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}
