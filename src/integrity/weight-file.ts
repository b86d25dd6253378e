/**
 * Which files may become the weights of a running model: regular files under the operator's folders, which nobody but
 * their owner can change or replace, and whose SHA-256 is the one that was named.
 *
 * Wall: T90. The digest is taken through one descriptor; `unchanged` compares what is at the path with what the descriptor
 * named, by inode, size and times of change. Callers: the app.
 */
import { type BigIntStats, statSync } from "node:fs";
import { openRooted, RootedFileError, rootedPlace } from "./_rooted-file.ts";
import { sha256OfFile } from "./digest.ts";

export { RootedFileError as WeightFileError };

const WHAT = "weights";

export interface WeightFile {
  /** Resolved. */
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  /** Whether the path still names what was hashed. */
  unchanged(): boolean;
}

/**
 * @param roots --weight-roots
 * @param sha256 lower-case hexadecimal
 * @throws WeightFileError; the message names no path. An AbortError
 */
export async function weightFile(
  asked: string,
  roots: readonly string[],
  sha256: string,
  signal: AbortSignal,
): Promise<WeightFile> {
  try {
    return await judged(asked, roots, sha256, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    throw new RootedFileError(`the file cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
}

async function judged(
  asked: string,
  roots: readonly string[],
  sha256: string,
  signal: AbortSignal,
): Promise<WeightFile> {
  const found = rootedPlace(asked, roots, WHAT);
  const file = await openRooted(found, WHAT);
  const { path } = found;
  try {
    const before = await file.stat({ bigint: true });
    const digest = await sha256OfFile(file, { signal });
    if (digest.sha256 !== sha256) throw new RootedFileError("its SHA-256 is not the one that was named");
    return { path, ...digest, unchanged: () => isSame(before, path) };
  } finally {
    await file.close();
  }
}

function isSame(before: BigIntStats, path: string): boolean {
  const now = statSync(path, { bigint: true, throwIfNoEntry: false });
  return (
    now !== undefined &&
    (["dev", "ino", "size", "mtimeNs", "ctimeNs"] as const).every((fact) => now[fact] === before[fact])
  );
}
