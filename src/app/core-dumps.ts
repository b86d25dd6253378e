/**
 * Core dumps of this process, and of those that it starts from here on, leave out the memory, where secrets are
 * (Wall: T71). Called by main.ts for a server, before anything else.
 */
import { writeFileSync } from "node:fs";

export function coreDumpsWithoutMemory(): void {
  if (process.platform !== "linux") return;
  try {
    writeFileSync("/proc/self/coredump_filter", "0");
  } catch {
    // A system without /proc, or one that allows no change: then the system's own limit of core dumps holds.
  }
}
