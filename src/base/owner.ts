/**
 * Whose a file or folder is, and what others may do with it, by what its descriptor or name says. Pure.
 *
 * Systems without POSIX owners (Windows) have neither: there nothing is another's, and nothing is open.
 */
import type { Stats } from "node:fs";

export const OTHERS_WRITE = 0o022;
export const OTHERS_ANY = 0o077;

/** Whether another user than this process's has it. root is another. */
export function isForeign({ uid }: Pick<Stats, "uid">): boolean {
  return process.getuid !== undefined && uid !== process.getuid();
}

/** @param bits of the mode, of which none may be set */
export function isOpen({ mode }: Pick<Stats, "mode">, bits: number): boolean {
  return process.getuid !== undefined && (mode & bits) !== 0;
}
