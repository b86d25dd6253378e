/**
 * Regular files under folders that an operator named, which nobody but their owner can change.
 *
 * What is asked for is resolved first (links and dot segments), then compared with the resolved folders; a path outside
 * says the same whether there is something or not. What is opened is held against what was resolved: a link that is put
 * in its place meanwhile, a pipe, or a file with a second name elsewhere is not read.
 * Used by adapter-file.ts and weight-file.ts.
 */
import { constants, readlinkSync, realpathSync, type Stats, statSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname, isAbsolute, relative, sep } from "node:path";

const MAX_PATH = 4096;
const WRITABLE_BY_OTHERS = 0o022;

export class RootedFileError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "RootedFileError";
  }
}

export interface Rooted {
  /** Resolved. */
  readonly path: string;
  /** Resolved, and above it. */
  readonly root: string;
}

/** @throws RootedFileError; the message names no path */
export function rootedFile(path: string, roots: readonly string[], what: string): Rooted {
  const found = rootedPlace(path, roots, what);
  if (!statSync(found.path).isFile()) throw outside(what);
  checkOwn(found.path, "file");
  return found;
}

/** Whatever is there. @throws RootedFileError; the message names no path */
export function rootedPlace(path: string, roots: readonly string[], what: string): Rooted {
  if (path.length > MAX_PATH || path.includes("\0") || !isAbsolute(path)) throw outside(what);
  const real = resolved(path);
  const root = roots.map(resolved).find((one) => one !== undefined && real !== undefined && contains(one, real));
  if (real === undefined || root === undefined) throw outside(what);
  return { path: real, root };
}

/** The folders from the root down to what was found. @throws RootedFileError other users can change one */
export function checkFolders({ path, root }: Rooted): void {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    checkOwn(folder, "folder");
    if (folder === root) break;
  }
}

/**
 * Opens what was found, for reading. What is read through the descriptor is what lies in the folder: not what a link
 * points to that took the file's place, and not another folder's file under a second name.
 * @throws RootedFileError | Error (ELOOP and kin)
 */
export async function openRooted(found: Rooted, what: string): Promise<FileHandle> {
  if (!statSync(found.path).isFile()) throw outside(what);
  checkFolders(found);
  const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
  const file = await open(found.path, flags);
  try {
    const stat = await file.stat();
    if (!stat.isFile() || !isWhere(file, found.path)) throw outside(what);
    judgeOwn(stat, "file");
    if (stat.nlink > 1) throw new RootedFileError("the file has a second name (a hard link): make it a copy");
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** @throws RootedFileError other users can change it */
export function checkOwn(path: string, what: "file" | "folder"): void {
  judgeOwn(statSync(path), what);
}

function judgeOwn({ mode, uid }: Pick<Stats, "mode" | "uid">, what: "file" | "folder"): void {
  if (process.getuid === undefined) return;
  if ((mode & WRITABLE_BY_OTHERS) !== 0)
    throw new RootedFileError(
      `the ${what} can be changed by other users: take the right to write from group and others`,
    );
  if (uid !== 0 && uid !== process.getuid()) throw new RootedFileError(`the ${what} belongs to another user`);
}

function outside(what: string): RootedFileError {
  return new RootedFileError(`it is not a file in a folder that ${what} may be loaded from`);
}

/** Where the system can say it: a folder on the way may have become a link since the path was resolved. */
function isWhere({ fd }: FileHandle, path: string): boolean {
  return process.platform !== "linux" || readlinkSync(`/proc/self/fd/${fd}`) === path;
}

function resolved(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function contains(root: string, path: string): boolean {
  const rest = relative(root, path);
  return rest !== "" && rest !== ".." && !rest.startsWith(`..${sep}`) && !isAbsolute(rest);
}
