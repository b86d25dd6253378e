/**
 * Adapters as they are loaded: private copies of what was hashed, as GGUF.
 *
 *   <folder>/gguf-<sha256>.gguf        an adapter that came as a GGUF
 *            peft-<key>.gguf           one made of a folder in PEFT form; the key names the folder's digest, the model
 *            <name>.json               its SHA-256 and length
 *            staging-<uuid>/           files on their way
 *
 * Invariants (Wall: T102): a source is opened once and copied while it is hashed; from then on only the copy is read, so
 * what is loaded is what was hashed. A file that lies here already is hashed anew before it is used. The folder is ours
 * alone (0700) and bounded: what was used longest ago and is not in use goes first. One source is worked on at a time.
 * Made by the app.
 */
import { createHash, randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { stringifyJson } from "#base/json.ts";
import { AdapterFileError, type AdapterFiles, CONFIG_FILE, openAdapter, WEIGHTS_FILE } from "./adapter-file.ts";
import { readWhole, writeWhole } from "./cache.ts";
import { sha256OfFile } from "./digest.ts";
import { systemCode } from "./model-error.ts";
import { type BaseModel, CONVERTER, convertPeft, MAX_CONFIG_BYTES } from "./peft/convert.ts";
import { openPrivate, privateDirectory } from "./private-directory.ts";

export interface AdapterStoreOptions {
  readonly folder: string;
  /** Of one source. */
  readonly maxBytes: number;
  /** Of all that lies in the folder. */
  readonly folderBytes: number;
  readonly maxRank: number;
  readonly base: BaseModel;
}

export interface AdapterRequest {
  readonly path: string;
  readonly roots: readonly string[] | "anywhere";
  /** Lower-case hexadecimal: what the source has to be. */
  readonly sha256?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface PreparedAdapter {
  readonly path: string;
  /** Of the source: of the file, or of a folder's list of files as sha256sum prints it. */
  readonly sha256: string;
  readonly form: AdapterFiles["form"];
  /** It is not in use any more. */
  release(): void;
}

const Manifest = z.object({ sha256: z.string(), bytes: z.int() });
type Manifest = z.infer<typeof Manifest>;

const CHUNK = 1024 * 1024;
const STAGING = "staging-";
/** What a process that is gone has left. */
const STALE_MS = 60 * 60 * 1000;

export class AdapterStore {
  readonly #options: AdapterStoreOptions;
  readonly #inUse = new Map<string, number>();
  #line: Promise<unknown> = Promise.resolve();

  private constructor(options: AdapterStoreOptions) {
    this.#options = options;
  }

  /** @throws ModelError directory | Error (ENOSPC and kin) */
  static async open(options: AdapterStoreOptions): Promise<AdapterStore> {
    await privateDirectory(options.folder, true);
    const store = new AdapterStore(options);
    for (const name of await readdir(options.folder)) {
      const path = join(options.folder, name);
      const old = name.startsWith(STAGING) && Date.now() - (await stat(path)).mtimeMs > STALE_MS;
      if (old) await rm(path, { recursive: true, force: true });
    }
    return store;
  }

  /** @throws AdapterFileError | ModelError directory | an AbortError | Error of the folder (ENOSPC and kin) */
  prepare(request: AdapterRequest): Promise<PreparedAdapter> {
    const turn = this.#line.then(() => this.#prepare(request));
    this.#line = turn.catch(() => {});
    return turn;
  }

  async #prepare({ path, roots, sha256, signal }: AdapterRequest): Promise<PreparedAdapter> {
    signal?.throwIfAborted();
    const files = await openAdapter(path, roots);
    const staging = join(this.#options.folder, `${STAGING}${randomUUID()}`);
    try {
      await mkdir(staging, { mode: 0o700 });
      const copy = await this.#copy(files, staging, signal);
      if (sha256 !== undefined && sha256 !== copy.sha256)
        throw new AdapterFileError("its SHA-256 is not the one that was named");
      const place = join(this.#options.folder, `${this.#nameOf(copy)}.gguf`);
      if (!(await isWhole(place, signal))) await this.#make(copy, place, signal);
      await utimes(place, new Date(), new Date());
      return { path: place, sha256: copy.sha256, form: copy.form, release: this.#hold(place) };
    } finally {
      for (const file of files.form === "gguf" ? [files.file] : [files.config, files.weights]) await file.close();
      await rm(staging, { recursive: true, force: true });
    }
  }

  #nameOf({ form, sha256 }: Copy): string {
    if (form === "gguf") return `gguf-${sha256}`;
    const { architecture, metadata } = this.#options.base;
    const heads = ["head_count", "head_count_kv"].map(
      (name) => metadata.get(`${architecture}.attention.${name}`) ?? null,
    );
    const key = createHash("sha256").update(stringifyJson([CONVERTER, architecture, heads, sha256]));
    return `peft-${key.digest("hex")}`;
  }

  async #copy(files: AdapterFiles, staging: string, signal: AbortSignal | undefined): Promise<Copy> {
    const { maxBytes } = this.#options;
    if (files.form === "gguf") {
      const file = join(staging, "adapter.gguf");
      return { form: "gguf", file, staging, sha256: await copied(files.file, file, maxBytes, signal) };
    }
    const config = await copied(files.config, join(staging, CONFIG_FILE), MAX_CONFIG_BYTES, signal);
    const weights = await copied(files.weights, join(staging, WEIGHTS_FILE), maxBytes, signal);
    const list = `${config}  ${CONFIG_FILE}\n${weights}  ${WEIGHTS_FILE}\n`;
    return { form: "peft", staging, sha256: createHash("sha256").update(list).digest("hex") };
  }

  async #make(copy: Copy, place: string, signal: AbortSignal | undefined): Promise<void> {
    const file = copy.form === "gguf" ? copy.file : await this.#convert(copy.staging, signal);
    await using handle = await openPrivate(file, constants.O_RDONLY);
    const manifest = await sha256OfFile(handle, { signal });
    await this.#makeRoom(manifest.bytes);
    await rename(file, place);
    await writeWhole(`${place}.json`, manifest satisfies Manifest);
  }

  async #convert(staging: string, signal: AbortSignal | undefined): Promise<string> {
    const path = join(staging, "converted.gguf");
    await using weights = await openPrivate(join(staging, WEIGHTS_FILE), constants.O_RDONLY);
    await using out = await open(path, "wx", 0o600);
    const config = await readFile(join(staging, CONFIG_FILE));
    const weightBytes = (await weights.stat()).size;
    const { base, maxRank } = this.#options;
    await convertPeft({ config, weights, weightBytes }, base, out, { maxRank, signal });
    return path;
  }

  /** @throws AdapterFileError all that lies here is in use */
  async #makeRoom(bytes: number): Promise<void> {
    const { folder, folderBytes } = this.#options;
    const found: { readonly path: string; readonly size: number; readonly mtimeMs: number }[] = [];
    for (const name of await readdir(folder)) {
      if (!name.endsWith(".gguf")) continue;
      const path = join(folder, name);
      const { size, mtimeMs } = await stat(path);
      found.push({ path, size, mtimeMs });
    }
    let total = found.reduce((sum, { size }) => sum + size, bytes);
    for (const { path, size } of found.toSorted((a, b) => a.mtimeMs - b.mtimeMs)) {
      if (total <= folderBytes) return;
      if (this.#inUse.has(path)) continue;
      for (const each of [path, `${path}.json`]) await rm(each, { force: true });
      total -= size;
    }
    if (total > folderBytes) throw new AdapterFileError("no more fits into the folder of adapters: unload one first");
  }

  #hold(path: string): () => void {
    this.#inUse.set(path, (this.#inUse.get(path) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const users = (this.#inUse.get(path) ?? 1) - 1;
      if (users > 0) this.#inUse.set(path, users);
      else this.#inUse.delete(path);
    };
  }
}

type Copy = { readonly staging: string; readonly sha256: string } & (
  | { readonly form: "gguf"; readonly file: string }
  | { readonly form: "peft" }
);

/** @returns the SHA-256 of what was copied */
async function copied(from: FileHandle, to: string, most: number, signal: AbortSignal | undefined): Promise<string> {
  await using out = await open(to, "wx", 0o600);
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(CHUNK);
  for (let at = 0; ; ) {
    signal?.throwIfAborted();
    const { bytesRead } = await from.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return hash.digest("hex");
    at += bytesRead;
    if (at > most) throw new AdapterFileError(`it is larger than ${most} bytes`);
    const chunk = buffer.subarray(0, bytesRead);
    hash.update(chunk);
    await out.writeFile(chunk);
  }
}

/** Whether the file is there, and still what it was. */
async function isWhole(place: string, signal: AbortSignal | undefined): Promise<boolean> {
  const known = await readWhole(`${place}.json`, Manifest);
  if (known === undefined) return false;
  try {
    await using file = await openPrivate(place, constants.O_RDONLY);
    const { sha256, bytes } = await sha256OfFile(file, { signal });
    return sha256 === known.sha256 && bytes === known.bytes;
  } catch (error) {
    if (systemCode(error) === "ENOENT") return false;
    throw error;
  }
}
