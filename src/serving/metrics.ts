/**
 * Prometheus metrics under vLLM's names, labels and buckets (vllm/v1/metrics/loggers.py), so that its dashboards work.
 *
 * Gauges and totals are read from the backends when somebody scrapes (engine-metrics.ts); histograms are fed by serving
 * (ServingObserver) and by the engine's hooks (EngineObserver). Labels are closed sets: model names come from the configuration.
 */
import { collectDefaultMetrics } from "prom-client";
import {
  Counter,
  FIRST_TOKEN_BUCKETS,
  Histogram,
  INTER_TOKEN_BUCKETS,
  oneTwoFiveBuckets,
  REQUEST_BUCKETS,
  type Registry,
} from "#base/metrics.ts";
import type { SequenceTimings } from "#core/backend.ts";
import type { FinishReason } from "#core/generate.ts";
import { LABELS, labelsOf, registerEngineMetrics } from "./engine-metrics.ts";
import type { ServedModel } from "./models.ts";
import type { FinishedChoice, ServingObserver } from "./observe.ts";

/** What the engine reports: one call a step, one a finished sequence. */
export interface EngineObserver {
  /** Tokens of the step, prompt and generated. */
  step(tokens: number, engine: number): void;
  sequence(timings: SequenceTimings, engine: number): void;
}

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
  /** LoRA adapters in a step at most; absent where they are not served. */
  readonly maxAdapters?: number;
}

/** Registers everything in `registry`, the process's own metrics (`process_*`, `nodejs_*`) included. */
export function registerMetrics(options: MetricsOptions): VllmMetrics {
  const { registry, contextLength } = options;
  collectDefaultMetrics({ register: registry });
  registerEngineMetrics(options);
  const serving = servingMetrics(registry, contextLength);
  const engine = engineMetrics(registry);
  return {
    observerOf: (model) => servingObserver(serving, model.names[0]),
    engineObserver: (name) => engineObserver(engine, name),
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
    prefillTokens: histogram(
      "vllm:request_prefill_kv_computed_tokens",
      "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
      sizes,
    ),
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

type TimeHistogram = Histogram<(typeof LABELS)[number]>;

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
  readonly prefillTokens: TimeHistogram;
  readonly generationTokens: TimeHistogram;
  readonly maxTokens: TimeHistogram;
  readonly maxGeneration: TimeHistogram;
  readonly n: TimeHistogram;
  readonly success: Counter<"model_name" | "engine" | "finished_reason">;
}

function servingObserver(metrics: ServingMetrics, name: string): ServingObserver {
  // A reason that has not happened yet reads 0, not absent.
  for (const reason of FINISH_REASONS) metrics.success.inc({ ...labelsOf(name, 0), finished_reason: reason }, 0);
  return {
    call: (n, longest, engine) => {
      metrics.n.observe(labelsOf(name, engine), n);
      metrics.maxGeneration.observe(labelsOf(name, engine), longest);
    },
    firstToken: (seconds, engine) => metrics.firstToken.observe(labelsOf(name, engine), seconds),
    interToken: (seconds, engine) => metrics.interToken.observe(labelsOf(name, engine), seconds),
    finished: (choice: FinishedChoice) => {
      const labels = labelsOf(name, choice.engine);
      metrics.success.inc({ ...labels, finished_reason: choice.reason });
      metrics.latency.observe(labels, choice.latency);
      metrics.promptTokens.observe(labels, choice.promptTokens);
      metrics.prefillTokens.observe(labels, choice.promptTokens - choice.cachedTokens);
      metrics.generationTokens.observe(labels, choice.generationTokens);
      metrics.maxTokens.observe(labels, choice.maxTokens);
      if (choice.perToken !== undefined) metrics.perOutputToken.observe(labels, choice.perToken);
    },
    pooled: (reason, promptTokens, latency) => {
      const labels = labelsOf(name, 0);
      metrics.success.inc({ ...labels, finished_reason: reason });
      metrics.latency.observe(labels, latency);
      metrics.promptTokens.observe(labels, promptTokens);
      metrics.prefillTokens.observe(labels, promptTokens);
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

function engineObserver(metrics: EngineMetrics, name: string): EngineObserver {
  return {
    step: (tokens, engine) => metrics.step.observe(labelsOf(name, engine), tokens),
    sequence: ({ queue, prefill, decode }, engine) => {
      const labels = labelsOf(name, engine);
      metrics.queue.observe(labels, queue);
      metrics.prefill.observe(labels, prefill);
      metrics.decode.observe(labels, decode);
      metrics.inference.observe(labels, prefill + decode);
    },
  };
}
