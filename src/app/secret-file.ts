/**
 * Files with secrets that the operator names: private to their owner, small. A link is followed, as those of mounted
 * secrets are links. Callers: keys.ts, tls-files.ts, and what takes a URL with a password (`secretOrFile`).
 */
import { readFileSync, type Stats, statSync } from "node:fs";
import { StartupError } from "./startup-error.ts";

const MAX_BYTES = 1 << 20;

/**
 * Whether others than its owner can read or write a file. One of root's may be readable by its group: that is how
 * secrets are mounted for a server that is not root (a volume's fsGroup, systemd's credentials).
 */
export function isOpenToOthers({ mode, uid }: Pick<Stats, "mode" | "uid">): boolean {
  if (process.getuid === undefined) return false;
  return (mode & (uid === 0 ? 0o037 : 0o077)) !== 0;
}

/** @param what as it stands in messages: "the key file". @throws StartupError */
export function readSecretFile(path: string, what: string): Buffer {
  try {
    const stat = statSync(path);
    if (isOpenToOthers(stat)) throw new StartupError(`${what} can be read or written by others: run chmod 600 on it`);
    if (stat.size > MAX_BYTES) throw new StartupError(`${what} is larger than 1 MiB`);
    return readFileSync(path);
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError(`${what} cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}

/** A secret that is given itself or by a file that holds one line. @throws StartupError both, or no such file */
export function secretOrFile(flag: string, text: string | undefined, path: string | undefined): string | undefined {
  if (path === undefined) return text;
  if (text !== undefined) throw new StartupError(`--${flag} and --${flag}-file say the same thing: give one of them`);
  const line = readSecretFile(path, `the file of --${flag}-file`).toString("utf8").trim();
  if (line === "" || /\s/.test(line)) throw new StartupError(`the file of --${flag}-file has to hold one line`);
  return line;
}
