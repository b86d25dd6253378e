/**
 * What left, as metrics. Labels are of closed lists: kinds of fetches and how they ended, never a host.
 */
import { Counter, Gauge, Histogram, type Registry } from "#base/metrics.ts";
import type { EgressObserver } from "./decision.ts";

const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** Counts from now on; a registry may come later, as the first fetches come before there is one. */
export function egressMetrics(): EgressObserver & { register(registry: Registry): void } {
  const registers: Registry[] = [];
  const requests = new Counter({
    name: "castellan_egress_requests_total",
    help: "Fetches by what they were for, whether they were let out, and how they ended.",
    labelNames: ["kind", "decision", "outcome"],
    registers,
  });
  const received = new Counter({
    name: "castellan_egress_received_bytes_total",
    help: "Bytes of bodies that were fetched, by what they were for.",
    labelNames: ["kind"],
    registers,
  });
  const duration = new Histogram({
    name: "castellan_egress_duration_seconds",
    help: "Time of a fetch, its wait for a turn included, by what it was for.",
    labelNames: ["kind"],
    buckets: SECONDS,
    registers,
  });
  const inFlight = new Gauge({
    name: "castellan_egress_in_flight",
    help: "Fetches that have not ended, by what they are for.",
    labelNames: ["kind"],
    registers,
  });
  return {
    register: (registry) => {
      for (const metric of [requests, received, duration, inFlight]) registry.registerMetric(metric as Counter);
    },
    begin: (kind) => {
      inFlight.inc({ kind });
      return () => inFlight.dec({ kind });
    },
    record: ({ kind, decision, outcome, bytes, milliseconds }) => {
      requests.inc({ kind, decision, outcome });
      received.inc({ kind }, bytes);
      duration.observe({ kind }, milliseconds / 1000);
    },
  };
}
