/**
 * HTTP metrics as vLLM's instrumentator names them. Every label has a closed set of values: the declared path of a
 * route, a known method, the class of the status (CVE-2026-105759: a method from the wire as a label grows for ever).
 */
import { Counter, Histogram, type Registry } from "#base/metrics.ts";

/** One finished call: the part of http's CallRecord that is measured. `route`: the declared path, if one matched. */
export interface HttpObservation {
  readonly route: string | undefined;
  readonly method: string;
  readonly status: number;
  readonly milliseconds: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
}

const METHODS: ReadonlySet<string> = new Set(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]);
/** Asked for by machines every few seconds: vLLM leaves them out, too. */
const EXCLUDED: ReadonlySet<string> = new Set(["/metrics", "/health", "/load", "/ping", "/version"]);
const LOW_RESOLUTION = [0.1, 0.5, 1];
const HIGH_RESOLUTION = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60,
];
const BYTES: number[] = [];

/** @returns what to call once a request */
export function registerHttpMetrics(registry: Registry): (observation: HttpObservation) => void {
  const registers = [registry];
  const requests = new Counter({
    name: "http_requests_total",
    help: "Total number of requests by method, status and handler.",
    labelNames: ["handler", "method", "status"],
    registers,
  });
  const size = (name: string, help: string) =>
    new Histogram({ name, help, labelNames: ["handler"], buckets: BYTES, registers });
  const received = size("http_request_size_bytes", "Content length of incoming requests by handler.");
  const sent = size("http_response_size_bytes", "Content length of outgoing responses by handler.");
  const duration = new Histogram({
    name: "http_request_duration_seconds",
    help: "Latency with only few buckets by handler.",
    labelNames: ["handler", "method"],
    buckets: LOW_RESOLUTION,
    registers,
  });
  const precise = new Histogram({
    name: "http_request_duration_highr_seconds",
    help: "Latency with many buckets but no API specific labels.",
    buckets: HIGH_RESOLUTION,
    registers,
  });
  return (seen) => {
    if (seen.route !== undefined && EXCLUDED.has(seen.route)) return;
    const handler = seen.route ?? "none";
    const method = METHODS.has(seen.method) ? seen.method : "other";
    requests.inc({ handler, method, status: statusClass(seen.status) });
    received.observe({ handler }, seen.requestBytes);
    sent.observe({ handler }, seen.responseBytes);
    const seconds = seen.milliseconds / 1000;
    duration.observe({ handler, method }, seconds);
    precise.observe(seconds);
  };
}

function statusClass(status: number): string {
  return status >= 100 && status < 600 ? `${Math.floor(status / 100)}xx` : "other";
}
