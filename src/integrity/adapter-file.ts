/**
 * Which files may become adapters while the server runs: regular GGUF files under the operator's folders, which nobody
 * but their owner can change.
 *
 * Wall: T29. What is asked for is resolved first (links and dot segments), then compared with the resolved folders; a
 * path outside says the same whether there is something or not. Callers: the app.
 */
import { realpathSync, statSync } from "node:fs";
import { isAbsolute, relative, sep } from "node:path";

const MAX_PATH = 4096;
const WRITABLE_BY_OTHERS = 0o022;
const OUTSIDE = "it is not a file in a folder that adapters may be loaded from";

export class AdapterFileError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "AdapterFileError";
  }
}

/**
 * @param roots --lora-roots
 * @returns the resolved path
 * @throws AdapterFileError; the message names no path
 */
export function adapterFile(path: string, roots: readonly string[]): string {
  if (path.length > MAX_PATH || path.includes("\0") || !isAbsolute(path)) throw new AdapterFileError(OUTSIDE);
  const real = resolved(path);
  const inside = real !== undefined && roots.some((root) => contains(resolved(root), real));
  if (!inside) throw new AdapterFileError(OUTSIDE);
  const stat = statSync(real);
  if (!stat.isFile()) throw new AdapterFileError(OUTSIDE);
  if (process.getuid !== undefined && (stat.mode & WRITABLE_BY_OTHERS) !== 0)
    throw new AdapterFileError("the file can be changed by other users: take the right to write from group and others");
  if (process.getuid !== undefined && stat.uid !== 0 && stat.uid !== process.getuid())
    throw new AdapterFileError("the file belongs to another user");
  return real;
}

function resolved(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function contains(root: string | undefined, path: string): boolean {
  if (root === undefined) return false;
  const rest = relative(root, path);
  return rest !== "" && rest !== ".." && !rest.startsWith(`..${sep}`) && !isAbsolute(rest);
}
