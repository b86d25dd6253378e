/**
 * Whether files are other files than they were. Callers: tls-files.ts, upstream-credentials.ts.
 */
import { statSync } from "node:fs";

/** What changes when one of the files does, links followed. Never throws: who reads them is told what is wrong. */
export function filesSignature(paths: readonly (string | undefined)[]): string {
  return paths.map((path) => (path === undefined ? "-" : signatureOf(path))).join(" ");
}

function signatureOf(path: string): string {
  try {
    const stats = statSync(path, { bigint: true });
    return `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "error";
  }
}
