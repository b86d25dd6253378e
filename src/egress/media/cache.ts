/**
 * Media that were fetched before, on disk: off unless a folder is named, small, and nobody's to read or to change.
 *
 * A URL leads to a digest (its reference), tenant and digest lead to the bytes (the content): what a tenant has under
 * several URLs, signed ones say, is kept once.
 * Invariants (Wall: T113): references are found by tenant, kind and URL together, contents by tenant and digest, both under
 * names that tell none of them; they are encrypted and authenticated (AES-256-GCM) together with that name, so that a file
 * that was changed, moved or brought from elsewhere is no file; all of it has an end in bytes and in time; a disk that
 * fails is a cache that misses. What comes out is judged again as if it had been fetched.
 * Without a key of the operator's the key is of this start, and everything goes with it.
 * Callers: fetcher.ts; app opens it.
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { isAlive } from "#base/alive.ts";
import { parseJson, stringifyJson } from "#base/json.ts";
import { isForeign, isOpen, OTHERS_ANY } from "#base/owner.ts";
import type { MediaRequest } from "./fetcher.ts";
import type { Media } from "./verify.ts";

export interface MediaCacheOptions {
  readonly directory: string;
  /** 32 bytes or more; undefined: a key of this start. */
  readonly key?: Uint8Array;
  readonly maxBytes: number;
  readonly maxAgeMs: number;
}

export interface KeptMedia {
  readonly bytes: Buffer;
  readonly type: string;
}

/** With what it is told apart by. */
export type MediaToKeep = Pick<Media, "bytes" | "type" | "digest">;

type Place = MediaRequest & { readonly tenant: string };

export class MediaCacheError extends Error {
  override readonly name = "MediaCacheError";
}

const NAME = /^[0-9a-f]{64}$/;
const MAGIC = Buffer.from("CMC2");
const IV = 12;
const TAG = 16;
const MAX_ENTRIES = 100_000;

/** `digest`: of a reference. */
const Head = z.strictObject({ type: z.string(), at: z.number(), digest: z.string().optional() });

interface Opened extends KeptMedia {
  readonly digest: string | undefined;
}

const EMPTY = Buffer.alloc(0);

export class MediaCache {
  readonly #folder: string;
  readonly #options: MediaCacheOptions;
  readonly #nameKey: Uint8Array;
  readonly #contentKey: Uint8Array;
  /** name → bytes on disk; the first is the one that was used longest ago. */
  readonly #entries = new Map<string, number>();
  #bytes = 0;

  private constructor(folder: string, options: MediaCacheOptions, key: Uint8Array) {
    this.#folder = folder;
    this.#options = options;
    this.#nameKey = new Uint8Array(hkdfSync("sha256", key, "", "castellan media cache: names", 32));
    this.#contentKey = new Uint8Array(hkdfSync("sha256", key, "", "castellan media cache: content", 32));
  }

  /** @throws MediaCacheError for people */
  static async open(options: MediaCacheOptions): Promise<MediaCache> {
    const { directory, key } = options;
    if (key !== undefined && key.length < 32) throw new MediaCacheError("the media cache's key has less than 32 bytes");
    await ownFolder(directory);
    await removeDead(directory);
    const folder = join(
      directory,
      key === undefined ? `start-${process.pid}-${randomBytes(6).toString("hex")}` : "kept",
    );
    await ownFolder(folder);
    const cache = new MediaCache(folder, options, key ?? randomBytes(32));
    if (key !== undefined) await cache.#readFolder();
    return cache;
  }

  /** Undefined: it is not there, too old, or not what was put there. */
  async get(place: Place): Promise<KeptMedia | undefined> {
    const reference = await this.#take(this.#referenceOf(place));
    if (reference?.digest === undefined) return undefined;
    const content = await this.#take(this.#contentOf(place.tenant, reference.digest));
    return content === undefined ? undefined : { bytes: content.bytes, type: reference.type };
  }

  async put(place: Place, { bytes, type, digest: { algorithm, hex } }: MediaToKeep): Promise<void> {
    const digest = `${algorithm}:${hex}`;
    const name = this.#contentOf(place.tenant, digest);
    const size = this.#entries.get(name);
    if (size === undefined) await this.#keep(name, this.#seal(name, bytes, { type }));
    else this.#touch(name, size);
    if (!this.#entries.has(name)) return;
    const reference = this.#referenceOf(place);
    await this.#keep(reference, this.#seal(reference, EMPTY, { type, digest }));
  }

  /** What has the name; gone where it is not what was put there. */
  async #take(name: string): Promise<Opened | undefined> {
    const size = this.#entries.get(name);
    if (size === undefined) return undefined;
    const found = await this.#read(name, size).catch(() => undefined);
    if (found === undefined) await this.#drop(name);
    else this.#touch(name, size);
    return found;
  }

  async #keep(name: string, sealed: Buffer): Promise<void> {
    if (sealed.length > this.#options.maxBytes) return;
    while (this.#bytes + sealed.length > this.#options.maxBytes || this.#entries.size >= MAX_ENTRIES) {
      const [oldest] = this.#entries.keys();
      if (oldest === undefined) break;
      await this.#drop(oldest);
    }
    await this.#drop(name);
    // Counted before it is written, so that those that are written at the same time see it.
    this.#count(name, sealed.length);
    await this.#write(name, sealed).catch(() => this.#drop(name));
  }

  async close(): Promise<void> {
    if (this.#options.key === undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  #referenceOf({ tenant, kind, url }: Place): string {
    return this.#nameOf(["reference", tenant, kind, url]);
  }

  #contentOf(tenant: string, digest: string): string {
    return this.#nameOf(["content", tenant, digest]);
  }

  #nameOf(of: readonly string[]): string {
    return createHmac("sha256", this.#nameKey).update(stringifyJson(of)).digest("hex");
  }

  #touch(name: string, size: number): void {
    if (!this.#entries.delete(name)) return;
    this.#entries.set(name, size);
  }

  #count(name: string, size: number): void {
    this.#bytes += size - (this.#entries.get(name) ?? 0);
    this.#entries.set(name, size);
  }

  async #drop(name: string): Promise<void> {
    const size = this.#entries.get(name);
    if (size === undefined) return;
    this.#entries.delete(name);
    this.#bytes -= size;
    await rm(join(this.#folder, name), { force: true }).catch(() => {});
  }

  #seal(name: string, bytes: Buffer, facts: { readonly type: string; readonly digest?: string }): Buffer {
    const iv = randomBytes(IV);
    const cipher = createCipheriv("aes-256-gcm", this.#contentKey, iv);
    cipher.setAAD(Buffer.from(name));
    const head = Buffer.from(stringifyJson({ ...facts, at: Date.now() }));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(head.length);
    const sealed = [cipher.update(length), cipher.update(head), cipher.update(bytes), cipher.final()];
    return Buffer.concat([MAGIC, iv, cipher.getAuthTag(), ...sealed]);
  }

  #unseal(name: string, sealed: Buffer): Opened | undefined {
    const [iv, tag, start] = [MAGIC.length, MAGIC.length + IV, MAGIC.length + IV + TAG];
    if (sealed.length < start || !sealed.subarray(0, iv).equals(MAGIC)) return undefined;
    const decipher = createDecipheriv("aes-256-gcm", this.#contentKey, sealed.subarray(iv, tag), {
      authTagLength: TAG,
    });
    decipher.setAAD(Buffer.from(name));
    decipher.setAuthTag(sealed.subarray(tag, start));
    const plain = Buffer.concat([decipher.update(sealed.subarray(start)), decipher.final()]);
    const end = 4 + plain.readUInt32BE();
    const { type, at, digest } = Head.parse(parseJson(plain.subarray(4, end)));
    return Date.now() - at > this.#options.maxAgeMs ? undefined : { type, digest, bytes: plain.subarray(end) };
  }

  /** @throws whatever is wrong with the file */
  async #read(name: string, size: number): Promise<Opened | undefined> {
    const file = await open(join(this.#folder, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const found = await file.stat();
      if (!found.isFile() || found.size !== size) return undefined;
      return this.#unseal(name, await file.readFile());
    } finally {
      await file.close();
    }
  }

  async #write(name: string, sealed: Buffer): Promise<void> {
    const temporary = join(this.#folder, `${name}.${randomBytes(6).toString("hex")}`);
    let file: FileHandle | undefined;
    try {
      file = await open(temporary, "wx", 0o600);
      await file.writeFile(sealed);
      await file.close();
      await rename(temporary, join(this.#folder, name));
    } catch (error) {
      await file?.close().catch(() => {});
      await rm(temporary, { force: true });
      throw error;
    }
  }

  /** What an earlier start left, oldest first; what is not ours or half written goes. */
  async #readFolder(): Promise<void> {
    const found: { name: string; size: number; at: number }[] = [];
    for (const name of await readdir(this.#folder)) {
      const path = join(this.#folder, name);
      const { size, mtimeMs } = await lstat(path);
      const fits = NAME.test(name) && found.length < MAX_ENTRIES && Date.now() - mtimeMs <= this.#options.maxAgeMs;
      if (fits) found.push({ name, size, at: mtimeMs });
      else await rm(path, { force: true, recursive: true });
    }
    for (const { name, size } of found.sort((a, b) => a.at - b.at)) this.#count(name, size);
    for (const name of [...this.#entries.keys()]) if (this.#bytes > this.#options.maxBytes) await this.#drop(name);
  }
}

/** Made, or there and this user's alone. @throws MediaCacheError */
async function ownFolder(path: string): Promise<void> {
  let folder: FileHandle;
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (error) {
    throw new MediaCacheError(
      `${path} is not a folder for media (${(error as NodeJS.ErrnoException).code ?? "error"})`,
    );
  }
  try {
    const found = await folder.stat();
    if (isForeign(found) || isOpen(found, OTHERS_ANY))
      throw new MediaCacheError(`${path} is open to other users, or another user's: chmod 700 it`);
  } finally {
    await folder.close();
  }
}

/** Folders of starts that did not end in order; their keys are gone. */
async function removeDead(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const [, pid] = /^start-(\d{1,10})-[0-9a-f]{12}$/.exec(name) ?? [];
    if (pid !== undefined && !isAlive(Number(pid))) await rm(join(directory, name), { recursive: true, force: true });
  }
}
