/**
 * The audit log's metrics. Labels are closed lists: kinds of records, reasons of failures.
 */
import { Counter, Gauge, Histogram, type Registry } from "#base/metrics.ts";
import { type AuditLog, FAILURE_REASONS } from "./log.ts";
import { KINDS } from "./record.ts";

const SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];
const GROUPS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];

/** @param log undefined: for the list of names */
export function registerAuditMetrics(registry: Registry, log: AuditLog | undefined): void {
  const registers = [registry];
  counter(
    "castellan_audit_records_total",
    "Records on the disk, by kind.",
    "kind",
    KINDS,
    (k) => log?.stats().records[k],
  );
  counter(
    "castellan_audit_failures_total",
    "Records that could not be written, by reason.",
    "reason",
    FAILURE_REASONS,
    (reason) => log?.stats().failures[reason],
  );
  gauge(
    "castellan_audit_unrecorded_calls",
    "Calls that were let through without a record.",
    () => log?.stats().unrecorded,
  );
  gauge("castellan_audit_queue", "Records that wait to be written.", () => log?.stats().queue);
  gauge("castellan_audit_healthy", "1: records can be written.", () => Number(log?.stats().healthy ?? 0));
  const seconds = new Histogram({
    name: "castellan_audit_write_seconds",
    help: "Time until a group of records is on the disk.",
    buckets: SECONDS,
    registers,
  });
  const sizes = new Histogram({
    name: "castellan_audit_group_records",
    help: "Records that were written together.",
    buckets: GROUPS,
    registers,
  });
  if (log !== undefined)
    log.onGroup = (took, records) => {
      seconds.observe(took);
      sizes.observe(records);
    };

  function counter<L extends string>(
    name: string,
    help: string,
    label: string,
    values: readonly L[],
    read: (value: L) => number | undefined,
  ): void {
    new Counter({
      name,
      help,
      labelNames: [label],
      registers,
      collect() {
        this.reset();
        for (const value of values) this.inc({ [label]: value }, read(value) ?? 0);
      },
    });
  }

  function gauge(name: string, help: string, read: () => number | undefined): void {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read() ?? 0);
      },
    });
  }
}
