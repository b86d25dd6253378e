/**
 * Files and batches as metrics. Labels are closed lists; no tenant, id or name is one. Called by the app.
 */
import { Counter, Gauge, type Registry } from "#base/metrics.ts";
import { BATCH_STATUSES, type BatchTotals } from "#core/batches.ts";

export const LINE_OUTCOMES = ["answered", "failed"] as const;
export type LineEnd = (typeof LINE_OUTCOMES)[number];

/**
 * @param totals asked at each scrape; what cannot be had is left out. Absent: for the list of names
 * @returns a line has its row
 */
export function registerBatchMetrics(registry: Registry, totals?: () => Promise<BatchTotals>): (how: LineEnd) => void {
  const registers = [registry];
  const lines = new Counter({
    name: "castellan_batch_lines_total",
    help: "Lines of batches that have their row, by how they ended.",
    labelNames: ["outcome"],
    registers,
  });
  for (const outcome of LINE_OUTCOMES) lines.inc({ outcome }, 0);
  // One question for the gauges of a scrape, which are collected at once.
  let asking: Promise<BatchTotals | undefined> | undefined;
  const now = (): Promise<BatchTotals | undefined> => {
    asking ??= (totals?.() ?? Promise.resolve(undefined))
      .catch(() => undefined)
      .finally(() => {
        asking = undefined;
      });
    return asking;
  };
  const gauge = (name: string, help: string, labelNames: "status"[], show: (to: Gauge, of: BatchTotals) => void) =>
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      async collect() {
        const found = await now();
        // What was true at an earlier scrape is not told again.
        this.reset();
        // With labels nothing is left of it by now.
        if (found === undefined && labelNames.length === 0) this.remove();
        if (found !== undefined) show(this, found);
      },
    });
  gauge("castellan_files", "Files of batches on this server.", [], (to, { files }) => to.set(files));
  gauge("castellan_files_bytes", "Bytes of files of batches on this server.", [], (to, { bytes }) => to.set(bytes));
  gauge("castellan_batches", "Batches that this server has, by status.", ["status"], (to, { batches }) => {
    for (const status of BATCH_STATUSES) to.set({ status }, batches.get(status) ?? 0);
  });
  return (outcome) => lines.inc({ outcome });
}
