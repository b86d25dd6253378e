/**
 * Files with secrets that the operator names: private to their owner, small. A link is followed, as those of mounted
 * secrets are links. Callers: app/keys.ts.
 */
import { readFileSync, statSync } from "node:fs";
import { StartupError } from "./startup-error.ts";

const OTHERS = 0o077;
const MAX_BYTES = 1 << 20;

/** @param what as it stands in messages: "the key file". @throws StartupError */
export function readSecretFile(path: string, what: string): Buffer {
  try {
    const stat = statSync(path);
    if (process.getuid !== undefined && (stat.mode & OTHERS) !== 0)
      throw new StartupError(`${what} can be read or written by others: run chmod 600 on it`);
    if (stat.size > MAX_BYTES) throw new StartupError(`${what} is larger than 1 MiB`);
    return readFileSync(path);
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError(`${what} cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}
