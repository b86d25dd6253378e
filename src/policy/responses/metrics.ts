/**
 * The store of responses as metrics, of every server on it. No label: a tenant's name is none. Called by the app.
 */
import { Gauge, type Registry } from "#base/metrics.ts";
import type { ResponseBounds } from "./_room.ts";

/** @param store asked at each scrape; what it cannot say is left out. Absent: nothing is kept, or for the list of names */
export function registerResponseMetrics(
  registry: Registry,
  store?: { totals(): Promise<ResponseBounds> } | undefined,
): void {
  const gauge = (name: string, help: string, which: keyof ResponseBounds): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        const found = store === undefined ? { responses: 0, bytes: 0 } : await store.totals().catch(() => undefined);
        if (found === undefined) this.remove();
        else this.set(found[which]);
      },
    });
  };
  gauge("castellan_responses_stored", "Responses that are kept, on all servers of the store.", "responses");
  gauge("castellan_responses_stored_bytes", "Bytes of responses that are kept.", "bytes");
}
