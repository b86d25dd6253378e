/**
 * Metrics of the upstreams. Labels are the operator's names of models and upstreams, and closed sets.
 *
 * Called by app at the start; pools tell what happens through a PoolObserver.
 */
import { Counter, FIRST_TOKEN_BUCKETS, Gauge, type Registry } from "#base/metrics.ts";
import { type Tally, TallyHistogram } from "#base/tally.ts";
import { UPSTREAM_STATES } from "./balancer.ts";
import type { PoolMemberState } from "./pool.ts";
import { OUTCOMES, type Outcome } from "./rules.ts";

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
  const seen = new Map<string, Map<string, Seen>>();
  registerRequests(registry, seen);
  const counter = (name: string, help: string) => new Counter({ name, help, labelNames: [...LABELS], registers });
  const retries = counter("castellan:upstream_retries_total", "Tries that failed and were followed by another.");
  const ejections = counter("castellan:upstream_ejections_total", "Times that an upstream was put out for failures.");
  const firstByte = new TallyHistogram({
    name: "castellan:upstream_first_byte_seconds",
    help: "From sending a request to the head of the upstream's answer.",
    labelNames: [...LABELS],
    buckets: FIRST_TOKEN_BUCKETS,
    registry,
  });
  return (modelName) => {
    const labels = (upstream: string) => ({ model_name: modelName, upstream });
    const own = seen.get(modelName) ?? new Map<string, Seen>();
    seen.set(modelName, own);
    const of = (upstream: string): Seen => {
      const known = own.get(upstream);
      if (known !== undefined) return known;
      const made: Seen = { firstByte: undefined, ended: new Map() };
      own.set(upstream, made);
      return made;
    };
    return {
      firstByte: (upstream, seconds) => {
        const counted = of(upstream);
        counted.firstByte ??= firstByte.tally(labels(upstream));
        counted.firstByte.observe(seconds);
      },
      ended: (upstream, outcome) => {
        const { ended } = of(upstream);
        ended.set(outcome, (ended.get(outcome) ?? 0) + 1);
      },
      retried: (upstream) => retries.inc(labels(upstream)),
      ejected: (upstream) => ejections.inc(labels(upstream)),
    };
  };
}

/** What was counted of an upstream, without a look at its labels. */
interface Seen {
  firstByte: Tally | undefined;
  readonly ended: Map<Outcome, number>;
}

/** @param seen by model and upstream */
function registerRequests(registry: Registry, seen: ReadonlyMap<string, ReadonlyMap<string, Seen>>): void {
  new Counter({
    name: "castellan:upstream_requests_total",
    help: "Tries of requests at an upstream, by how they ended.",
    labelNames: [...LABELS, "outcome"],
    registers: [registry],
    collect() {
      this.reset();
      for (const [modelName, upstreams] of seen)
        for (const [upstream, { ended }] of upstreams)
          for (const outcome of OUTCOMES) {
            const count = ended.get(outcome) ?? 0;
            if (count > 0) this.inc({ model_name: modelName, upstream, outcome }, count);
          }
    },
  });
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
