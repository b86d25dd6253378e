/**
 * What limits did, as metrics. Labels are of closed lists: kinds of subjects and of limits, never a name.
 */
import { Counter, type Registry } from "#base/metrics.ts";
import type { Books } from "./gate.ts";

/** @returns what a metered gate calls */
export function registerLimitMetrics(registry: Registry): Pick<Books, "onRefused"> & { onUnavailable(): void } {
  const registers = [registry];
  const refused = new Counter({
    name: "castellan_limited_requests_total",
    help: "Requests that a limit refused, by whose limit it was and its kind.",
    labelNames: ["subject", "limit"],
    registers,
  });
  const unavailable = new Counter({
    name: "castellan_limits_unavailable_total",
    help: "Requests for which the shared limits could not be asked.",
    registers,
  });
  return { onRefused: (subject, limit) => refused.inc({ subject, limit }), onUnavailable: () => unavailable.inc() };
}
