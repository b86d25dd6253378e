/**
 * A registry with every metric of a server, as nothing that runs has all of them: for the page about them, and for the
 * test of the dashboard.
 */
import { registerTlsMetrics } from "#app/tls.ts";
import { createRegistry } from "#base/metrics.ts";
import { egressMetrics } from "#egress/metrics.ts";
import { registerAuditMetrics } from "#policy/audit/metrics.ts";
import { registerLimitMetrics } from "#policy/limits/metrics.ts";
import { registerResponseMetrics } from "#policy/responses/metrics.ts";
import { registerBatchMetrics } from "#serving/batch/metrics.ts";
import { registerHttpMetrics } from "#serving/http-metrics.ts";
import { registerMetrics } from "#serving/metrics.ts";
import { registerUpstreamMetrics } from "#serving/upstreams/metrics.ts";
import { scrapeCounter } from "#serving/upstreams/scrape.ts";

export function everyMetric(): ReturnType<typeof createRegistry> {
  const registry = createRegistry();
  registerMetrics({ registry, contextLength: 4096, models: () => [], cacheConfig: {}, maxAdapters: 1 });
  registerHttpMetrics(registry);
  registerAuditMetrics(registry, undefined);
  registerTlsMetrics(registry, undefined);
  registerLimitMetrics(registry);
  registerUpstreamMetrics(registry, () => new Map());
  scrapeCounter(registry);
  registerBatchMetrics(registry);
  registerResponseMetrics(registry);
  egressMetrics().register(registry);
  return registry;
}
