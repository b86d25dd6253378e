/**
 * Directories and files that only this user may change.
 *
 * Rules: a directory is a real one (no symbolic link), is owned by this user, and neither group nor others may
 * write to it; one that we make has mode 0700, a file 0600. Whoever could write here could swap a model between
 * the check of its digest and its use.
 * On systems without POSIX owners (Windows) only the kind is checked.
 * Callers: cache.ts, adapter-store.ts.
 */
import { constants } from "node:fs";
import { chmod, type FileHandle, lstat, mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import { isForeign, isOpen, OTHERS_ANY, OTHERS_WRITE } from "#base/owner.ts";
import { ModelError, systemCode } from "./model-error.ts";

/**
 * Makes the directory, and parents that are missing, or checks the one that is there.
 * @param strict refuse also what others may read.
 * @throws ModelError directory
 */
export async function privateDirectory(path: string, strict: boolean): Promise<void> {
  const made = await makeDirectory(path);
  // The umask may have taken bits of ours away; chmod is exact.
  if (made) await chmod(path, 0o700);
  const stat = await lstat(path);
  if (stat.isSymbolicLink()) throw refused(path, "is a symbolic link");
  if (!stat.isDirectory()) throw refused(path, "is not a directory");
  if (isForeign(stat)) throw refused(path, "belongs to another user");
  if (isOpen(stat, strict ? OTHERS_ANY : OTHERS_WRITE))
    throw refused(path, `is open to other users (mode ${(stat.mode & 0o777).toString(8)}): chmod 700 it`);
}

/** Opens a regular file of ours without following a link. @throws ModelError directory; a system error as it is */
export async function openPrivate(path: string, flags: number): Promise<FileHandle> {
  const file = await open(path, flags | (constants.O_NOFOLLOW ?? 0), 0o600);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw refused(path, "is not a regular file");
    if (isForeign(stat)) throw refused(path, "belongs to another user");
    if (isOpen(stat, OTHERS_WRITE)) throw refused(path, "can be written by other users");
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** @returns whether this call made it. */
async function makeDirectory(path: string): Promise<boolean> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  try {
    await mkdir(path, { mode: 0o700 });
    return true;
  } catch (error) {
    if (systemCode(error) === "EEXIST") return false;
    throw error;
  }
}

function refused(path: string, why: string): ModelError {
  return new ModelError("directory", `${path} ${why}`);
}
