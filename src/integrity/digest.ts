/**
 * SHA-256 of files, read through a descriptor, so that what was hashed is what the descriptor names.
 *
 * Callers: integrity/. Throughput is about that of the disk or of one core, whichever is less.
 */
import { createHash, type Hash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";

const CHUNK_BYTES = 4 * 1024 * 1024;

export interface DigestOptions {
  /** Called after each chunk with the bytes hashed so far. */
  readonly onBytes?: (done: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Feeds bytes [0, end) of the file to the hash. @returns bytes fed: less than `end` when the file is shorter. */
export async function hashPrefix(
  hash: Hash,
  file: FileHandle,
  end: number,
  options: DigestOptions = {},
): Promise<number> {
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, Math.max(1, end)));
  let at = 0;
  while (at < end) {
    options.signal?.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, end - at), at);
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
    options.onBytes?.(at);
  }
  return at;
}

/** Lower-case hexadecimal SHA-256 of the whole file, and its length in bytes. */
export async function sha256OfFile(
  file: FileHandle,
  options: DigestOptions = {},
): Promise<{ sha256: string; bytes: number }> {
  const hash = createHash("sha256");
  const { size } = await file.stat();
  const bytes = await hashPrefix(hash, file, size, options);
  return { sha256: hash.digest("hex"), bytes };
}
