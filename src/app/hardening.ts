/**
 * What other programs can see of this process besides its files: its command line, its crash reports, its core dumps.
 *
 * Invariant: none of them shows a secret, from here on. A key that was given as a flag stands in the list of processes
 * until this has run, which is why that draws a warning (Wall: T71). Callers: serve.ts, first of all.
 */
import "#base/no-environment-in-reports.ts";
import { writeFileSync } from "node:fs";
import type { Resolved } from "#config/resolve.ts";
import { settingRows } from "#config/settings.ts";

export function hardenProcess({ sources }: Resolved): void {
  withoutMemory();
  const exposed = settingRows().some(([name, row]) => row.secret === true && sources.get(name) === "flag");
  if (!exposed) return;
  // Writes over the memory that the list of processes is read from. Reports hold the command line as it was.
  process.title = "castellan serve (flags hidden: one is a secret)";
  process.report.reportOnFatalError = false;
  process.report.reportOnUncaughtException = false;
  process.report.reportOnSignal = false;
}

/** Core dumps leave out the memory, of the processes that are started from here, too. */
function withoutMemory(): void {
  if (process.platform !== "linux") return;
  try {
    writeFileSync("/proc/self/coredump_filter", "0");
  } catch {
    // A system without /proc, or one that allows no change: then the system's own limit of core dumps holds.
  }
}
