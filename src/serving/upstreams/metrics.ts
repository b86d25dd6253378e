/**
 * Metrics of the upstreams. Labels are the operator's names of models and upstreams, and closed sets.
 *
 * Called by app at the start; pools tell what happens through a PoolObserver.
 */
import { Counter, FIRST_TOKEN_BUCKETS, Gauge, Histogram, type Registry } from "#base/metrics.ts";
import { UPSTREAM_STATES } from "./balancer.ts";
import type { PoolMemberState } from "./pool.ts";
import type { Outcome } from "./rules.ts";

export interface PoolObserver {
  firstByte(upstream: string, seconds: number): void;
  /** Once a try. */
  ended(upstream: string, outcome: Outcome): void;
  /** A try of this one's is followed by another. */
  retried(upstream: string): void;
  ejected(upstream: string): void;
}

export interface PoolView {
  states(): readonly PoolMemberState[];
  readonly waiting: number;
}

const LABELS = ["model_name", "upstream"] as const;

/** @param pools by model, asked at each scrape. @returns the observer of a model's pool */
export function registerUpstreamMetrics(
  registry: Registry,
  pools: () => ReadonlyMap<string, PoolView>,
): (modelName: string) => PoolObserver {
  const registers = [registry];
  registerGauges(registry, pools);
  const requests = new Counter({
    name: "castellan:upstream_requests_total",
    help: "Tries of requests at an upstream, by how they ended.",
    labelNames: [...LABELS, "outcome"],
    registers,
  });
  const counter = (name: string, help: string) => new Counter({ name, help, labelNames: [...LABELS], registers });
  const retries = counter("castellan:upstream_retries_total", "Tries that failed and were followed by another.");
  const ejections = counter("castellan:upstream_ejections_total", "Times that an upstream was put out for failures.");
  const firstByte = new Histogram({
    name: "castellan:upstream_first_byte_seconds",
    help: "From sending a request to the head of the upstream's answer.",
    labelNames: [...LABELS],
    buckets: [...FIRST_TOKEN_BUCKETS],
    registers,
  });
  return (modelName) => {
    const labels = (upstream: string) => ({ model_name: modelName, upstream });
    return {
      firstByte: (upstream, seconds) => firstByte.observe(labels(upstream), seconds),
      ended: (upstream, outcome) => requests.inc({ ...labels(upstream), outcome }),
      retried: (upstream) => retries.inc(labels(upstream)),
      ejected: (upstream) => ejections.inc(labels(upstream)),
    };
  };
}

function registerGauges(registry: Registry, pools: () => ReadonlyMap<string, PoolView>): void {
  const each = (name: string, help: string, read: (state: PoolMemberState) => number): void => {
    new Gauge({
      name,
      help,
      labelNames: [...LABELS],
      registers: [registry],
      collect() {
        this.reset();
        for (const [modelName, pool] of pools())
          for (const state of pool.states()) this.inc({ model_name: modelName, upstream: state.label }, read(state));
      },
    });
  };
  each("castellan:upstream_in_flight", "Requests at an upstream now.", ({ inFlight }) => inFlight);
  each(
    "castellan:upstream_outstanding_tokens",
    "Tokens of the requests at an upstream now, about.",
    ({ outstandingTokens }) => outstandingTokens,
  );
  registerStates(registry, pools);
}

function registerStates(registry: Registry, pools: () => ReadonlyMap<string, PoolView>): void {
  new Gauge({
    name: "castellan:upstream_state",
    help: "1 for the state that an upstream is in.",
    labelNames: [...LABELS, "state"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [modelName, pool] of pools())
        for (const { label, state: now } of pool.states())
          for (const state of UPSTREAM_STATES)
            this.set({ model_name: modelName, upstream: label, state }, state === now ? 1 : 0);
    },
  });
  new Gauge({
    name: "castellan:upstream_waiting",
    help: "Requests that wait while all upstreams of a model are full.",
    labelNames: ["model_name"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [modelName, pool] of pools()) this.set({ model_name: modelName }, pool.waiting);
    },
  });
}
