/**
 * Downloads one file into its `.partial`, resuming what is there, and hashes as it goes.
 *
 * Invariants: bytes are written in order from 0; the hash covers exactly the bytes in the file; the caller holds
 * the file's lock. Nothing under the final name exists before the digest of all bytes was right.
 * A dropped, stalled or truncated transfer goes on where it stopped, a bounded number of times. A server that
 * ignores the range, or has another ETag, or answers 416, makes it start over.
 * Callers: hub-model.ts.
 */
import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, rename, rm, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { z } from "zod";
import type { OutboundResponse } from "#egress/fetch.ts";
import type { Hub, HubFile } from "#egress/hub.ts";
import { HubError } from "#egress/hub-names.ts";
import { EgressError } from "#egress/policy.ts";
import { type CachePlace, readWhole, writeWhole } from "./cache.ts";
import { hashPrefix } from "./digest.ts";
import { ModelError } from "./model-error.ts";
import { openPrivate } from "./private-directory.ts";

export interface DownloadOptions {
  /** Bytes in the file so far; starts with what an earlier run left. */
  readonly onBytes?: (done: number) => void;
  readonly signal?: AbortSignal | undefined;
  /** First pause before trying again, doubling; milliseconds. 500 unless said. */
  readonly retryDelayMs?: number;
}

/** Failures in a row, each with less than this many new bytes, that end the download. */
const MAX_FAILURES = 5;
const PROGRESS_BYTES = 1024 * 1024;
const MAX_DELAY_MS = 30_000;

const Tag = z.object({ etag: z.string().max(1024) });

/** @throws ModelError digest | size | disk, EgressError, HubError */
export async function download(
  hub: Pick<Hub, "open">,
  file: HubFile,
  place: CachePlace,
  options: DownloadOptions,
): Promise<void> {
  const handle = await openPrivate(place.partial, constants.O_RDWR | constants.O_CREAT);
  try {
    const part = new Partial(handle, file, place);
    await part.adopt(options);
    await refuseWithoutRoom(place, file.size - part.received);
    await fetchAll(hub, part, options);
    if (!part.isRight() && part.inherited > 0) {
      // Bytes of an earlier run may have been spoilt on the disk: once more, with none of them.
      await part.restart();
      await fetchAll(hub, part, options);
    }
    if (!part.isRight()) {
      await part.remove();
      throw new ModelError(
        "digest",
        `${file.path}: the SHA-256 of what was downloaded is not the one in the hub's metadata; it was removed`,
      );
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(place.partial, place.file);
  await rm(place.partialTag, { force: true });
  await syncDirectory(place);
}

/** The file under way: bytes, their hash, and the tag they came with. */
class Partial {
  readonly file: HubFile;
  private readonly handle: FileHandle;
  private readonly place: CachePlace;
  private hash: Hash = createHash("sha256");
  received = 0;
  /** Bytes that an earlier run left. */
  inherited = 0;
  etag: string | undefined;

  constructor(handle: FileHandle, file: HubFile, place: CachePlace) {
    this.handle = handle;
    this.file = file;
    this.place = place;
  }

  /** Takes over what lies there, hashing it. */
  async adopt(options: DownloadOptions): Promise<void> {
    const { size } = await this.handle.stat();
    if (size > this.file.size) return this.restart();
    this.received = await hashPrefix(this.hash, this.handle, size, options);
    this.inherited = this.received;
    this.etag = (await readWhole(this.place.partialTag, Tag))?.etag;
  }

  async restart(): Promise<void> {
    await this.handle.truncate(0);
    this.hash = createHash("sha256");
    this.received = 0;
    this.inherited = 0;
    this.etag = undefined;
  }

  /** @throws ModelError size when there are more bytes than the hub said. */
  async append(chunk: Uint8Array): Promise<void> {
    if (this.received + chunk.byteLength > this.file.size) throw wrongSize(this.file, `more than ${this.file.size}`);
    let written = 0;
    while (written < chunk.byteLength) {
      const { bytesWritten } = await this.handle.write(
        chunk,
        written,
        chunk.byteLength - written,
        this.received + written,
      );
      written += bytesWritten;
    }
    this.hash.update(chunk);
    this.received += chunk.byteLength;
  }

  /** Keeps a strong tag for later runs (If-Range takes no weak one, RFC 9110 13.1.5). */
  async tag(etag: string | undefined): Promise<void> {
    if (etag === undefined || !/^"[\x21\x23-\x7e]{0,200}"$/.test(etag) || etag === this.etag) return;
    this.etag = etag;
    await writeWhole(this.place.partialTag, { etag });
  }

  /** To be asked when all bytes are there. */
  isRight(): boolean {
    return this.received === this.file.size && this.hash.copy().digest("hex") === this.file.sha256;
  }

  async remove(): Promise<void> {
    for (const path of [this.place.partial, this.place.partialTag]) await rm(path, { force: true });
  }
}

async function fetchAll(hub: Pick<Hub, "open">, part: Partial, options: DownloadOptions): Promise<void> {
  let failures = 0;
  while (part.received < part.file.size) {
    const before = part.received;
    try {
      await transfer(hub, part, options);
    } catch (error) {
      if (!isTransient(error)) throw error;
      failures = part.received - before >= PROGRESS_BYTES ? 1 : failures + 1;
      if (failures >= MAX_FAILURES) throw error;
      const delayMs = Math.min((options.retryDelayMs ?? 500) * 2 ** (failures - 1), MAX_DELAY_MS);
      await wait(delayMs, undefined, options.signal === undefined ? {} : { signal: options.signal });
    }
  }
}

async function transfer(hub: Pick<Hub, "open">, part: Partial, options: DownloadOptions): Promise<void> {
  const response = await hub.open(part.file, { offset: part.received, etag: part.etag }, options.signal);
  try {
    await align(part, response);
    await part.tag(response.headers.get("etag"));
    options.onBytes?.(part.received);
    for await (const chunk of response.body) {
      await part.append(chunk);
      options.onBytes?.(part.received);
    }
  } finally {
    response.close();
  }
  if (part.received < part.file.size) throw new EgressError("network", "the download ended early");
}

/** Makes the file's end meet the answer's first byte, or refuses the answer. */
async function align(part: Partial, response: OutboundResponse): Promise<void> {
  const { file } = part;
  if (response.status === 416) {
    if (part.received === 0) throw new EgressError("protocol", "the server answered 416 to a request without a range");
    await part.restart();
    throw new EgressError("network", "the server refused to go on where the download had stopped");
  }
  if (response.status === 206) {
    const range = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/.exec(response.headers.get("content-range") ?? "");
    if (range !== null && Number(range[3]) !== file.size) throw wrongSize(file, String(range[3]));
    if (part.received > 0 && Number(range?.[1]) === part.received && Number(range?.[2]) === file.size - 1) return;
    throw new EgressError("protocol", "the server sent another range than the one asked for");
  }
  const length = response.headers.get("content-length");
  if (length !== undefined && Number(length) !== file.size) throw wrongSize(file, length);
  if (part.received > 0) await part.restart();
}

function isTransient(error: unknown): boolean {
  return (
    (error instanceof EgressError && error.transient) || (error instanceof HubError && error.code === "unavailable")
  );
}

function wrongSize(file: HubFile, found: string): ModelError {
  return new ModelError(
    "size",
    `${file.path}: the hub's metadata says ${file.size} bytes, the server sends ${found.slice(0, 20)}`,
  );
}

async function refuseWithoutRoom(place: CachePlace, needed: number): Promise<void> {
  const disk = await statfs(dirname(place.file));
  const free = disk.bavail * disk.bsize;
  if (needed <= free) return;
  const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);
  throw new ModelError("disk", `the download needs ${gib(needed)} GiB and the cache's disk has ${gib(free)} GiB free`);
}

/** The new name survives a power cut. */
async function syncDirectory(place: CachePlace): Promise<void> {
  if (process.platform === "win32") return;
  await using directory = await open(dirname(place.file), constants.O_RDONLY);
  await directory.sync();
}
