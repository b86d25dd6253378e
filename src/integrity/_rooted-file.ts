/**
 * Regular files under folders that an operator named, which nobody but their owner can change.
 *
 * What is asked for is resolved first (links and dot segments), then compared with the resolved folders; a path outside
 * says the same whether there is something or not. What was resolved is opened name by name beneath the folder, and each
 * descriptor judged (base/beneath.ts): a link that is put in its place meanwhile, a pipe, a file with a second name, and
 * what other users can change is not read.
 * Used by adapter-file.ts and weight-file.ts.
 */
import { realpathSync, type Stats } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { isAbsolute, relative, sep } from "node:path";
import { Beneath, BeneathError } from "#base/beneath.ts";
import { isForeign, isOpen, OTHERS_WRITE } from "#base/owner.ts";

const MAX_PATH = 4096;

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

/** Whatever is there. @throws RootedFileError; the message names no path */
export function rootedPlace(path: string, roots: readonly string[], what: string): Rooted {
  if (path.length > MAX_PATH || path.includes("\0") || !isAbsolute(path)) throw outside(what);
  const real = resolved(path);
  const root = roots.map(resolved).find((one) => one !== undefined && real !== undefined && contains(one, real));
  if (real === undefined || root === undefined) throw outside(what);
  return { path: real, root };
}

/** Opens what was found, for reading. @throws RootedFileError | Error (EACCES and kin) */
export async function openRooted({ path, root }: Rooted, what: string): Promise<FileHandle> {
  let folder: Beneath | undefined;
  try {
    folder = await Beneath.open(root);
    // A folder above it may have become a link since the path was resolved.
    if ((await folder.place()) !== root) throw outside(what);
    return await folder.file(relative(root, path).split(sep), judgeOwn);
  } catch (error) {
    if (!(error instanceof BeneathError)) throw error;
    throw error.cause ?? outside(what);
  } finally {
    await folder?.close();
  }
}

/** What is read through the descriptor is nobody's to change but ours, and lies in no other folder as well. */
function judgeOwn(stats: Stats, what: "folder" | "file"): void {
  if (what === "file" && stats.nlink > 1)
    throw new RootedFileError("the file has a second name (a hard link): make it a copy");
  if (isOpen(stats, OTHERS_WRITE))
    throw new RootedFileError(
      `the ${what} can be changed by other users: take the right to write from group and others`,
    );
  if (stats.uid !== 0 && isForeign(stats)) throw new RootedFileError(`the ${what} belongs to another user`);
}

function outside(what: string): RootedFileError {
  return new RootedFileError(`it is not a file in a folder that ${what} may be loaded from`);
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
