/**
 * Metrics that are read from the backends when somebody scrapes: gauges of now and totals, one series an engine.
 *
 * An engine that was taken away keeps its totals and has no gauges. Registered by metrics.ts.
 */
import { Counter, Gauge } from "#base/metrics.ts";
import type { BackendStats, EngineStatus } from "#core/backend.ts";
import type { SleepState } from "#core/operations.ts";
import type { MetricsOptions } from "./metrics.ts";
import type { ServedModel } from "./models.ts";

export const LABELS = ["model_name", "engine"] as const;
export type Labels = Readonly<Record<(typeof LABELS)[number], string>>;

export function labelsOf(modelName: string, engine: number): Labels {
  return { model_name: modelName, engine: String(engine) };
}

const SLEEP_STATES: readonly SleepState[] = ["awake", "weights_offloaded", "discard_all"];

export function registerEngineMetrics(options: MetricsOptions): void {
  registerGauges(options);
  registerStates(options);
  registerTotals(options);
  registerCacheConfig(options);
  registerAdapters(options);
}

function enginesOf({ backend }: ServedModel): readonly EngineStatus[] {
  return backend.engines?.() ?? [{ engine: 0, state: backend.state(), stats: backend.stats() }];
}

interface Row {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** @param rows of one engine that is there */
function engineGauge(
  { registry, models }: MetricsOptions,
  name: string,
  help: string,
  labelNames: readonly string[],
  rows: (status: EngineStatus, model: ServedModel) => readonly Row[],
): void {
  new Gauge({
    name,
    help,
    labelNames: [...LABELS, ...labelNames],
    registers: [registry],
    collect() {
      this.reset();
      for (const model of models()) {
        for (const status of enginesOf(model)) {
          if (status.state === "stopped") continue;
          const labels = labelsOf(model.names[0], status.engine);
          for (const row of rows(status, model)) this.set({ ...labels, ...row.labels }, row.value);
        }
      }
    },
  });
}

function registerGauges(options: MetricsOptions): void {
  const gauge = (name: string, help: string, read: (stats: BackendStats) => number): void =>
    engineGauge(options, name, help, [], ({ stats }) => [{ labels: {}, value: read(stats) }]);
  gauge("vllm:num_requests_running", "Number of requests in model execution batches.", (stats) => stats.running);
  engineGauge(
    options,
    "vllm:num_requests_waiting",
    "Number of requests waiting to be processed.",
    [],
    (status, model) => [{ labels: {}, value: status.stats.waiting + heldBy(status, model) }],
  );
  engineGauge(
    options,
    "vllm:num_requests_waiting_by_reason",
    "Number of requests waiting, by reason: for capacity, or deferred while the engine is paused.",
    ["reason"],
    (status, model) => [
      { labels: { reason: "capacity" }, value: status.stats.waiting },
      { labels: { reason: "deferred" }, value: heldBy(status, model) },
    ],
  );
  gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", (stats) => stats.kvUsage);
}

/** What is held goes to an engine only when it is let go; until then it is counted once, with the first. */
function heldBy({ engine }: EngineStatus, { backend }: ServedModel): number {
  return engine === 0 ? (backend.held?.() ?? 0) : 0;
}

function registerStates(options: MetricsOptions): void {
  engineGauge(
    options,
    "vllm:engine_sleep_state",
    "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake.",
    ["sleep_state"],
    (_status, { backend }) => {
      const now = backend.operations?.sleepState() ?? "awake";
      return SLEEP_STATES.map((state) => ({ labels: { sleep_state: state }, value: state === now ? 1 : 0 }));
    },
  );
  engineGauge(options, "castellan:engine_ready", "1 while the engine takes work.", [], ({ state }) => [
    { labels: {}, value: state === "ready" ? 1 : 0 },
  ]);
}

type Total = readonly [name: string, help: string, read: (stats: BackendStats) => number];

const TOTALS: readonly Total[] = [
  ["vllm:prompt_tokens_total", "Number of prefill tokens processed.", (stats) => stats.promptTokens],
  ["vllm:prompt_tokens_cached_total", "Number of prompt tokens found in a cache.", (stats) => stats.prefixHits],
  ["vllm:generation_tokens_total", "Number of generation tokens processed.", (stats) => stats.generationTokens],
  ["vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", (stats) => stats.preemptions],
  [
    "vllm:prefix_cache_queries_total",
    "Prefix cache queries, in terms of number of queried tokens.",
    (stats) => stats.prefixQueries,
  ],
  [
    "vllm:prefix_cache_hits_total",
    "Prefix cache hits, in terms of number of cached tokens.",
    (stats) => stats.prefixHits,
  ],
  // No cache outside of the engine is asked.
  [
    "vllm:external_prefix_cache_queries_total",
    "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried tokens.",
    () => 0,
  ],
  [
    "vllm:external_prefix_cache_hits_total",
    "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached tokens.",
    () => 0,
  ],
  // No media are taken: nothing is ever asked for there.
  ["vllm:mm_cache_queries_total", "Multi-modal cache queries, in terms of number of queried items.", () => 0],
  ["vllm:mm_cache_hits_total", "Multi-modal cache hits, in terms of number of cached items.", () => 0],
  ["vllm:spec_decode_num_drafts_total", "Number of spec decoding drafts.", (stats) => stats.drafts],
  ["vllm:spec_decode_num_draft_tokens_total", "Number of draft tokens.", (stats) => stats.draftTokens],
  [
    "vllm:spec_decode_num_accepted_tokens_total",
    "Number of accepted tokens.",
    (stats) => stats.acceptedTokens.reduce((sum, count) => sum + count, 0),
  ],
  ["castellan:engine_restarts_total", "Times an engine process was started again.", (stats) => stats.restarts],
  ["castellan:engine_steps_total", "Steps of the engine.", (stats) => stats.steps],
];

function registerTotals(options: MetricsOptions): void {
  const { registry, models } = options;
  const totals = (
    name: string,
    help: string,
    labelNames: readonly string[],
    rows: (stats: BackendStats) => readonly Row[],
  ): void => {
    new Counter({
      name,
      help,
      labelNames: [...LABELS, ...labelNames],
      registers: [registry],
      collect() {
        this.reset();
        for (const model of models()) {
          for (const { engine, stats } of enginesOf(model)) {
            const labels = labelsOf(model.names[0], engine);
            for (const row of rows(stats)) this.inc({ ...labels, ...row.labels }, row.value);
          }
        }
      },
    });
  };
  for (const [name, help, read] of TOTALS) totals(name, help, [], (stats) => [{ labels: {}, value: read(stats) }]);
  totals(
    "vllm:prompt_tokens_by_source_total",
    "Number of prompt tokens by source.",
    ["source"],
    ({ promptTokens, prefixHits }) => [
      { labels: { source: "local_compute" }, value: promptTokens - prefixHits },
      { labels: { source: "local_cache_hit" }, value: prefixHits },
      { labels: { source: "external_kv_transfer" }, value: 0 },
    ],
  );
  totals(
    "vllm:spec_decode_num_accepted_tokens_per_pos_total",
    "Accepted tokens per draft position.",
    ["position"],
    ({ acceptedTokens }) => acceptedTokens.map((value, at) => ({ labels: { position: String(at) }, value })),
  );
  new Counter({
    name: "castellan:requests_moved_total",
    help: "Requests that moved to another engine because theirs was lost before they began to answer.",
    labelNames: ["model_name"],
    registers: [registry],
    collect() {
      this.reset();
      for (const { names, backend } of models()) this.inc({ model_name: names[0] }, backend.moved?.() ?? 0);
    },
  });
}

/** As vLLM's: what is asked for stands in the labels, and the value is the time. */
function registerAdapters(options: MetricsOptions): void {
  const { maxAdapters } = options;
  if (maxAdapters === undefined) return;
  // A name that was loaded in place again has a number behind it.
  const listed = (names: readonly string[] = []): string => names.map((name) => name.replace(/#\d+$/, "")).join(",");
  engineGauge(
    options,
    "vllm:lora_requests_info",
    "Running stats on lora requests.",
    ["max_lora", "waiting_lora_adapters", "running_lora_adapters"],
    ({ stats: { adapters } }) => [
      {
        labels: {
          max_lora: String(maxAdapters),
          waiting_lora_adapters: listed(adapters?.waiting),
          running_lora_adapters: listed(adapters?.running),
        },
        value: Date.now() / 1000,
      },
    ],
  );
}

function registerCacheConfig({ registry, models, cacheConfig }: MetricsOptions): void {
  new Gauge({
    name: "vllm:cache_config_info",
    help: "Information of the LLMEngine CacheConfig",
    labelNames: [...Object.keys(cacheConfig), "engine"],
    registers: [registry],
    collect() {
      this.reset();
      for (const { engine, state } of models().flatMap(enginesOf))
        if (state !== "stopped") this.set({ ...cacheConfig, engine: String(engine) }, 1);
    },
  });
}
