/**
 * Prometheus metrics under vLLM's names, labels and buckets (vllm/v1/metrics/loggers.py), so that its dashboards work.
 *
 * Gauges and totals are read from the backends when somebody scrapes; histograms are fed by serving (ServingObserver)
 * and by the engine's hooks (EngineObserver). Labels are closed sets: model names come from the configuration.
 */
import { collectDefaultMetrics } from "prom-client";
import {
  Counter,
  FIRST_TOKEN_BUCKETS,
  Gauge,
  Histogram,
  INTER_TOKEN_BUCKETS,
  oneTwoFiveBuckets,
  REQUEST_BUCKETS,
  type Registry,
} from "#base/metrics.ts";
import type { BackendStats, SequenceTimings } from "#core/backend.ts";
import type { FinishReason } from "#core/generate.ts";
import type { ServedModel } from "./models.ts";
import type { FinishedChoice, ServingObserver } from "./observe.ts";

/** What the engine reports: one call a step, one a finished sequence. */
export interface EngineObserver {
  /** Tokens of the step, prompt and generated. */
  step(tokens: number): void;
  sequence(timings: SequenceTimings): void;
}

const LABELS = ["model_name", "engine"] as const;
const STEP_TOKENS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];
const N = [1, 2, 5, 10, 20];
const FINISH_REASONS: readonly FinishReason[] = ["stop", "length", "abort", "error", "repetition"];

export interface VllmMetrics {
  observerOf(model: ServedModel): ServingObserver;
  /** By model, before its backend is started: the hooks go into the engine's options. */
  engineObserver(modelName: string): EngineObserver;
}

export interface MetricsOptions {
  readonly registry: Registry;
  /** For the buckets: tokens of the largest window served. */
  readonly contextLength: number;
  /** Called at each scrape. */
  readonly models: () => readonly ServedModel[];
  /** Labels of vllm:cache_config_info besides engine, e.g. block_size, num_gpu_blocks. */
  readonly cacheConfig: Readonly<Record<string, string>>;
}

/** Registers everything in `registry`, the process's own metrics (`process_*`, `nodejs_*`) included. */
export function registerMetrics(options: MetricsOptions): VllmMetrics {
  const { registry, contextLength } = options;
  collectDefaultMetrics({ register: registry });
  registerGauges(options);
  registerTotals(options);
  registerCacheConfig(options);
  const serving = servingMetrics(registry, contextLength);
  const engine = engineMetrics(registry);
  return {
    observerOf: (model) => servingObserver(serving, labelsOf(model.names[0])),
    engineObserver: (name) => engineObserver(engine, labelsOf(name)),
  };
}

function servingMetrics(registry: Registry, contextLength: number): ServingMetrics {
  const histogram = histogramMaker(registry);
  const sizes = oneTwoFiveBuckets(contextLength);
  const success = new Counter({
    name: "vllm:request_success_total",
    help: "Count of successfully processed requests.",
    labelNames: [...LABELS, "finished_reason"],
    registers: [registry],
  });
  return {
    firstToken: histogram(
      "vllm:time_to_first_token_seconds",
      "Histogram of time to first token in seconds.",
      FIRST_TOKEN_BUCKETS,
    ),
    interToken: histogram(
      "vllm:inter_token_latency_seconds",
      "Histogram of inter-token latency in seconds.",
      INTER_TOKEN_BUCKETS,
    ),
    perOutputToken: histogram(
      "vllm:request_time_per_output_token_seconds",
      "Histogram of time per output token in seconds per request.",
      INTER_TOKEN_BUCKETS,
    ),
    latency: histogram(
      "vllm:e2e_request_latency_seconds",
      "Histogram of e2e request latency in seconds.",
      REQUEST_BUCKETS,
    ),
    promptTokens: histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", sizes),
    generationTokens: histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", sizes),
    maxTokens: histogram("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", sizes),
    maxGeneration: histogram(
      "vllm:request_max_num_generation_tokens",
      "Histogram of maximum number of requested generation tokens.",
      sizes,
    ),
    n: histogram("vllm:request_params_n", "Histogram of the n request parameter.", N),
    success,
  };
}

function engineMetrics(registry: Registry): EngineMetrics {
  const histogram = histogramMaker(registry);
  return {
    queue: histogram(
      "vllm:request_queue_time_seconds",
      "Histogram of time spent in WAITING phase for request.",
      REQUEST_BUCKETS,
    ),
    inference: histogram(
      "vllm:request_inference_time_seconds",
      "Histogram of time spent in RUNNING phase for request.",
      REQUEST_BUCKETS,
    ),
    prefill: histogram(
      "vllm:request_prefill_time_seconds",
      "Histogram of time spent in PREFILL phase for request.",
      REQUEST_BUCKETS,
    ),
    decode: histogram(
      "vllm:request_decode_time_seconds",
      "Histogram of time spent in DECODE phase for request.",
      REQUEST_BUCKETS,
    ),
    step: histogram("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", STEP_TOKENS),
  };
}

type Labels = Readonly<Record<(typeof LABELS)[number], string>>;
type TimeHistogram = Histogram<(typeof LABELS)[number]>;

/** One engine a model until there are data-parallel replicas. */
function labelsOf(modelName: string): Labels {
  return { model_name: modelName, engine: "0" };
}

function histogramMaker(registry: Registry) {
  return (name: string, help: string, buckets: readonly number[]): TimeHistogram =>
    new Histogram({ name, help, buckets: [...buckets], labelNames: LABELS, registers: [registry] });
}

interface ServingMetrics {
  readonly firstToken: TimeHistogram;
  readonly interToken: TimeHistogram;
  readonly perOutputToken: TimeHistogram;
  readonly latency: TimeHistogram;
  readonly promptTokens: TimeHistogram;
  readonly generationTokens: TimeHistogram;
  readonly maxTokens: TimeHistogram;
  readonly maxGeneration: TimeHistogram;
  readonly n: TimeHistogram;
  readonly success: Counter<"model_name" | "engine" | "finished_reason">;
}

function servingObserver(metrics: ServingMetrics, labels: Labels): ServingObserver {
  // A reason that has not happened yet reads 0, not absent.
  for (const reason of FINISH_REASONS) metrics.success.inc({ ...labels, finished_reason: reason }, 0);
  return {
    call: (n, maxTokens) => {
      metrics.n.observe(labels, n);
      metrics.maxTokens.observe(labels, maxTokens);
      metrics.maxGeneration.observe(labels, maxTokens);
    },
    firstToken: (seconds) => metrics.firstToken.observe(labels, seconds),
    interToken: (seconds) => metrics.interToken.observe(labels, seconds),
    finished: (choice: FinishedChoice) => {
      metrics.success.inc({ ...labels, finished_reason: choice.reason });
      metrics.latency.observe(labels, choice.latency);
      metrics.promptTokens.observe(labels, choice.promptTokens);
      metrics.generationTokens.observe(labels, choice.generationTokens);
      if (choice.perToken !== undefined) metrics.perOutputToken.observe(labels, choice.perToken);
    },
  };
}

interface EngineMetrics {
  readonly queue: TimeHistogram;
  readonly inference: TimeHistogram;
  readonly prefill: TimeHistogram;
  readonly decode: TimeHistogram;
  readonly step: TimeHistogram;
}

function engineObserver(metrics: EngineMetrics, labels: Labels): EngineObserver {
  return {
    step: (tokens) => metrics.step.observe(labels, tokens),
    sequence: ({ queue, prefill, decode }) => {
      metrics.queue.observe(labels, queue);
      metrics.prefill.observe(labels, prefill);
      metrics.decode.observe(labels, decode);
      metrics.inference.observe(labels, prefill + decode);
    },
  };
}

const SLEEP_STATES = ["awake", "weights_offloaded", "discard_all"] as const;

function registerGauges({ registry, models }: MetricsOptions): void {
  const gauge = (name: string, help: string, read: (stats: BackendStats) => number): void => {
    new Gauge({
      name,
      help,
      labelNames: LABELS,
      registers: [registry],
      collect() {
        for (const model of models()) this.set(labelsOf(model.names[0]), read(model.backend.stats()));
      },
    });
  };
  gauge("vllm:num_requests_running", "Number of requests in model execution batches.", (stats) => stats.running);
  gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", (stats) => stats.waiting);
  gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", (stats) => stats.kvUsage);
  new Gauge({
    name: "vllm:engine_sleep_state",
    help: "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake.",
    labelNames: [...LABELS, "sleep_state"],
    registers: [registry],
    collect() {
      for (const model of models()) {
        for (const state of SLEEP_STATES)
          this.set({ ...labelsOf(model.names[0]), sleep_state: state }, state === "awake" ? 1 : 0);
      }
    },
  });
}

function registerTotals({ registry, models }: MetricsOptions): void {
  const total = (name: string, help: string, read: (stats: BackendStats) => number): void => {
    const seen = new Map<string, number>();
    new Counter({
      name,
      help,
      labelNames: LABELS,
      registers: [registry],
      collect() {
        for (const model of models()) {
          const key = model.names[0];
          const now = read(model.backend.stats());
          this.inc(labelsOf(key), Math.max(0, now - (seen.get(key) ?? 0)));
          seen.set(key, now);
        }
      },
    });
  };
  total("vllm:prompt_tokens_total", "Number of prefill tokens processed.", (stats) => stats.promptTokens);
  total("vllm:generation_tokens_total", "Number of generation tokens processed.", (stats) => stats.generationTokens);
  total("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", (stats) => stats.preemptions);
  total(
    "vllm:prefix_cache_queries_total",
    "Prefix cache queries, in terms of number of queried tokens.",
    (stats) => stats.prefixQueries,
  );
  total(
    "vllm:prefix_cache_hits_total",
    "Prefix cache hits, in terms of number of cached tokens.",
    (stats) => stats.prefixHits,
  );
  total("vllm:prompt_tokens_cached_total", "Number of prompt tokens found in a cache.", (stats) => stats.prefixHits);
  total("vllm:spec_decode_num_drafts_total", "Number of spec decoding drafts.", (stats) => stats.drafts);
  total("vllm:spec_decode_num_draft_tokens_total", "Number of draft tokens.", (stats) => stats.draftTokens);
  total("vllm:spec_decode_num_accepted_tokens_total", "Number of accepted tokens.", (stats) =>
    stats.acceptedTokens.reduce((sum, count) => sum + count, 0),
  );
  total("castellan:engine_restarts_total", "Times an engine process was started again.", (stats) => stats.restarts);
}

function registerCacheConfig({ registry, cacheConfig }: MetricsOptions): void {
  const labels = { ...cacheConfig, engine: "0" };
  new Gauge({
    name: "vllm:cache_config_info",
    help: "Information of the LLMEngine CacheConfig",
    labelNames: Object.keys(labels),
    registers: [registry],
  }).set(labels, 1);
}
