/**
 * The bytes of spilled prefixes on disk: encrypted and authenticated with a key that this process made and nobody else
 * has (AES-256-GCM, NIST SP 800-38D), so that the disk learns nothing and cannot change what the kernel reads back.
 *
 * Wall: T28. A directory of its own, mode 0700, gone with the process; one that a killed process left is removed at the
 * next start, and is of no use to anybody. Encrypting and writing happen beside the steps, reading in them.
 * Used by spill.ts.
 */
import { createDecipheriv, randomBytes, webcrypto } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isAlive } from "#base/alive.ts";

const NONCE = 12;
const TAG = 16;
/** Bytes that may wait to be written; more are not kept. */
const MAX_PENDING = 256 << 20;
const NAME = /^castellan-spill-(\d+)-[0-9a-f]{16}$/;

export class SpillStore {
  readonly #directory: string;
  readonly #key = randomBytes(32);
  readonly #cipher: Promise<webcrypto.CryptoKey>;
  /** Still on their way to the disk, readable from memory. */
  readonly #pending = new Map<number, Uint8Array>();
  #pendingBytes = 0;
  /** Writes and removals on their way. */
  readonly #works = new Set<Promise<void>>();
  readonly #onExit = (): void => rmSync(this.#directory, { recursive: true, force: true });

  /** @throws Error (ENOENT and kin) when nothing can be made in the directory */
  constructor(parent: string) {
    mkdirSync(parent, { recursive: true, mode: 0o700 });
    removeOrphans(parent);
    this.#directory = join(parent, `castellan-spill-${process.pid}-${randomBytes(8).toString("hex")}`);
    mkdirSync(this.#directory, { mode: 0o700 });
    this.#cipher = webcrypto.subtle.importKey("raw", this.#key, "AES-GCM", false, ["encrypt"]);
    process.on("exit", this.#onExit);
  }

  /** Whether so many bytes can be taken now. */
  takes(bytes: number): boolean {
    return this.#pendingBytes + bytes <= MAX_PENDING;
  }

  /** @param failed the bytes did not reach the disk */
  write(id: number, data: Uint8Array, failed: () => void): void {
    this.#pending.set(id, data);
    this.#pendingBytes += data.length;
    const written = this.#write(id, data)
      .catch(failed)
      .then(() => {
        this.#pendingBytes -= data.length;
        // Removed while it was written: now it can go.
        return this.#pending.get(id) === data ? void this.#pending.delete(id) : this.#erase(id);
      });
    this.#track(written);
  }

  /** What was written; undefined where it is not there, or is not what was written. */
  read(id: number): Uint8Array | undefined {
    const pending = this.#pending.get(id);
    if (pending !== undefined) return pending;
    try {
      return this.#open(id, readFileSync(this.#path(id)));
    } catch {
      return undefined;
    }
  }

  remove(id: number): void {
    if (this.#pending.delete(id)) return;
    this.#track(this.#erase(id));
  }

  /** All that was taken is on disk, and what was removed is gone. */
  async settled(): Promise<void> {
    while (this.#works.size > 0) await Promise.all(this.#works);
  }

  #erase(id: number): Promise<void> {
    return rm(this.#path(id), { force: true }).catch(() => {});
  }

  #track(work: Promise<void>): void {
    this.#works.add(work);
    void work.finally(() => this.#works.delete(work));
  }

  close(): void {
    process.off("exit", this.#onExit);
    this.#pending.clear();
    this.#onExit();
  }

  #path(id: number): string {
    return join(this.#directory, `${id}.kv`);
  }

  async #write(id: number, data: Uint8Array): Promise<void> {
    const nonce = randomBytes(NONCE);
    const parameters = { name: "AES-GCM", iv: nonce, additionalData: label(id) };
    const sealed = await webcrypto.subtle.encrypt(parameters, await this.#cipher, data as Uint8Array<ArrayBuffer>);
    await writeFile(this.#path(id), Buffer.concat([nonce, Buffer.from(sealed)]), { mode: 0o600, flag: "wx" });
  }

  /** @throws Error where the tag does not hold */
  #open(id: number, file: Buffer): Uint8Array {
    const decipher = createDecipheriv("aes-256-gcm", this.#key, file.subarray(0, NONCE), { authTagLength: TAG });
    decipher.setAAD(label(id)).setAuthTag(file.subarray(file.length - TAG));
    return Buffer.concat([decipher.update(file.subarray(NONCE, file.length - TAG)), decipher.final()]);
  }
}

/** Binds the bytes to their entry: one file cannot stand for another. */
function label(id: number): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`castellan-kv-${id}`);
}

function removeOrphans(parent: string): void {
  for (const name of readdirSync(parent)) {
    const match = NAME.exec(name);
    if (match !== null && !isAlive(Number(match[1]))) rmSync(join(parent, name), { recursive: true, force: true });
  }
}
