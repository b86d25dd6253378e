/**
 * What other programs can see of this process besides its files: its command line and its crash reports.
 *
 * Invariant: neither shows a secret, from here on. A key that was given as a flag stands in the list of processes
 * until this has run, which is why that draws a warning (Wall: T71). Callers: serve.ts, first of all.
 */
import "#base/no-environment-in-reports.ts";
import type { Resolved } from "#config/resolve.ts";
import { settingRows } from "#config/settings.ts";

export function hardenProcess({ sources }: Resolved): void {
  const exposed = settingRows().some(([name, row]) => row.secret === true && sources.get(name) === "flag");
  if (!exposed) return;
  // Writes over the memory that the list of processes is read from. Reports hold the command line as it was.
  process.title = "castellan serve (flags hidden: one is a secret)";
  process.report.reportOnFatalError = false;
  process.report.reportOnUncaughtException = false;
  process.report.reportOnSignal = false;
}
