/**
 * Prometheus metrics: a registry per server (never prom-client's global one, so that two servers in one process
 * do not mix) and the bucket rows that dashboards made for vLLM expect.
 *
 * Invariant: a label takes values from a closed set only (route paths, method names, models served); nothing that
 * a client chose is ever a label value, since that would grow the registry without bound.
 */
import { Registry } from "prom-client";

export type { Registry } from "prom-client";
export { Counter, Gauge, Histogram } from "prom-client";

export function createRegistry(): Registry {
  return new Registry();
}

/** What GET /metrics answers: text exposition format 0.0.4. */
export async function printMetrics(registry: Registry): Promise<{ body: string; contentType: string }> {
  return { body: await registry.metrics(), contentType: registry.contentType };
}

/** 1, 2, 5, 10, 20, 50 … up to `max` (≥ 1): vLLM's row for counts of tokens. */
export function oneTwoFiveBuckets(max: number): number[] {
  const buckets: number[] = [];
  for (let decade = 1; decade <= max; decade *= 10) {
    for (const mantissa of [1, 2, 5]) {
      if (mantissa * decade <= max) buckets.push(mantissa * decade);
    }
  }
  return buckets;
}

/** 1, 2, 4 … up to `max` (≥ 1). */
export function powerOfTwoBuckets(max: number): number[] {
  const buckets: number[] = [];
  for (let value = 1; value <= max; value *= 2) buckets.push(value);
  return buckets;
}

/** Seconds. vLLM v1/metrics/loggers.py: time to first token. */
export const FIRST_TOKEN_BUCKETS: readonly number[] = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
];

/** Seconds. Between two tokens, and per output token. */
export const INTER_TOKEN_BUCKETS: readonly number[] = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];

/** Seconds. A whole request, and its queue, prefill, decode and inference parts. */
export const REQUEST_BUCKETS: readonly number[] = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];
