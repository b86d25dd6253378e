/**
 * Regular files under folders that an operator named, which nobody but their owner can change.
 *
 * What is asked for is resolved first (links and dot segments), then compared with the resolved folders; a path outside
 * says the same whether there is something or not. Used by adapter-file.ts and weight-file.ts.
 */
import { realpathSync, statSync } from "node:fs";
import { isAbsolute, relative, sep } from "node:path";

const MAX_PATH = 4096;
const WRITABLE_BY_OTHERS = 0o022;

export class RootedFileError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "RootedFileError";
  }
}

/** @returns the resolved path, and the resolved folder. @throws RootedFileError; the message names no path */
export function rootedFile(
  path: string,
  roots: readonly string[],
  what: string,
): { readonly path: string; readonly root: string } {
  const outside = `it is not a file in a folder that ${what} may be loaded from`;
  if (path.length > MAX_PATH || path.includes("\0") || !isAbsolute(path)) throw new RootedFileError(outside);
  const real = resolved(path);
  const root = roots.map(resolved).find((one) => one !== undefined && real !== undefined && contains(one, real));
  if (real === undefined || root === undefined || !statSync(real).isFile()) throw new RootedFileError(outside);
  checkOwn(real, "file");
  return { path: real, root };
}

/** @throws RootedFileError other users can change it */
export function checkOwn(path: string, what: "file" | "folder"): void {
  if (process.getuid === undefined) return;
  const { mode, uid } = statSync(path);
  if ((mode & WRITABLE_BY_OTHERS) !== 0)
    throw new RootedFileError(
      `the ${what} can be changed by other users: take the right to write from group and others`,
    );
  if (uid !== 0 && uid !== process.getuid()) throw new RootedFileError(`the ${what} belongs to another user`);
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
