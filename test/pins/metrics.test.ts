/**
 * Pins: metric names, labels and buckets, as vLLM's dashboards ask for them.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import type { Backend, EngineStatus } from "#core/backend.ts";
import type { SleepState } from "#core/operations.ts";
import { registerHttpMetrics } from "#serving/http-metrics.ts";
import { registerMetrics } from "#serving/metrics.ts";
import type { ServedModel } from "#serving/models.ts";

const stats = {
  running: 2,
  waiting: 1,
  kvUsage: 0.5,
  steps: 4,
  promptTokens: 30,
  generationTokens: 20,
  preemptions: 1,
  prefixQueries: 30,
  prefixHits: 16,
  drafts: 4,
  draftTokens: 12,
  acceptedTokens: [3, 1],
  restarts: 0,
};
const ADAPTERS = { running: ["sql", "de#2"], waiting: ["de#2"] };
const engines: EngineStatus[] = [
  { engine: 0, state: "ready", stats },
  {
    engine: 1,
    state: "restarting",
    stats: { ...stats, adapters: ADAPTERS, waiting: 4, generationTokens: 9, restarts: 2 },
  },
  { engine: 2, state: "stopped", stats: { ...stats, generationTokens: 5 } },
];
let sleepState: SleepState = "awake";
const backend = {
  state: () => "ready",
  stats: () => stats,
  engines: () => engines,
  held: () => 3,
  moved: () => 6,
  operations: { sleepState: () => sleepState },
} as unknown as Backend;
const model = { names: ["demo"], backend } as unknown as ServedModel;

function setUp() {
  const registry = new Registry();
  const metrics = registerMetrics({
    registry,
    contextLength: 100,
    models: () => [model],
    maxAdapters: 8,
    cacheConfig: { block_size: "16", num_gpu_blocks: "8" },
  });
  return { registry, metrics };
}

const SERIES = [
  'vllm:num_requests_running{model_name="demo",engine="0"} 2',
  'vllm:num_requests_running{model_name="demo",engine="1"} 2',
  'vllm:num_requests_waiting{model_name="demo",engine="0"} 4',
  'vllm:num_requests_waiting{model_name="demo",engine="1"} 4',
  'vllm:num_requests_waiting_by_reason{model_name="demo",engine="0",reason="capacity"} 1',
  'vllm:num_requests_waiting_by_reason{model_name="demo",engine="0",reason="deferred"} 3',
  'vllm:num_requests_waiting_by_reason{model_name="demo",engine="1",reason="deferred"} 0',
  'vllm:kv_cache_usage_perc{model_name="demo",engine="0"} 0.5',
  'vllm:engine_sleep_state{model_name="demo",engine="0",sleep_state="awake"} 1',
  'vllm:engine_sleep_state{model_name="demo",engine="0",sleep_state="weights_offloaded"} 0',
  'vllm:prompt_tokens_total{model_name="demo",engine="0"} 30',
  'vllm:generation_tokens_total{model_name="demo",engine="0"} 20',
  'vllm:generation_tokens_total{model_name="demo",engine="1"} 9',
  'vllm:generation_tokens_total{model_name="demo",engine="2"} 5',
  'vllm:prompt_tokens_by_source_total{model_name="demo",engine="0",source="local_compute"} 14',
  'vllm:prompt_tokens_by_source_total{model_name="demo",engine="0",source="local_cache_hit"} 16',
  'vllm:prompt_tokens_by_source_total{model_name="demo",engine="0",source="external_kv_transfer"} 0',
  'vllm:prompt_tokens_cached_total{model_name="demo",engine="0"} 16',
  'vllm:spec_decode_num_drafts_total{model_name="demo",engine="0"} 4',
  'vllm:spec_decode_num_draft_tokens_total{model_name="demo",engine="0"} 12',
  'vllm:spec_decode_num_accepted_tokens_total{model_name="demo",engine="0"} 4',
  'vllm:spec_decode_num_accepted_tokens_per_pos_total{model_name="demo",engine="0",position="0"} 3',
  'vllm:spec_decode_num_accepted_tokens_per_pos_total{model_name="demo",engine="0",position="1"} 1',
  'vllm:external_prefix_cache_queries_total{model_name="demo",engine="0"} 0',
  'vllm:external_prefix_cache_hits_total{model_name="demo",engine="0"} 0',
  'vllm:mm_cache_queries_total{model_name="demo",engine="0"} 0',
  'vllm:mm_cache_hits_total{model_name="demo",engine="0"} 0',
  'castellan:engine_ready{model_name="demo",engine="0"} 1',
  'castellan:engine_ready{model_name="demo",engine="1"} 0',
  'castellan:engine_restarts_total{model_name="demo",engine="0"} 0',
  'castellan:engine_restarts_total{model_name="demo",engine="1"} 2',
  'castellan:engine_steps_total{model_name="demo",engine="0"} 4',
  'castellan:requests_moved_total{model_name="demo"} 6',
  'vllm:num_preemptions_total{model_name="demo",engine="0"} 1',
  'vllm:prefix_cache_queries_total{model_name="demo",engine="0"} 30',
  'vllm:prefix_cache_hits_total{model_name="demo",engine="0"} 16',
  'vllm:cache_config_info{block_size="16",num_gpu_blocks="8",engine="0"} 1',
  'vllm:cache_config_info{block_size="16",num_gpu_blocks="8",engine="1"} 1',
  'vllm:request_success_total{model_name="demo",engine="0",finished_reason="stop"} 1',
  'vllm:request_success_total{model_name="demo",engine="1",finished_reason="abort"} 1',
  'vllm:request_success_total{model_name="demo",engine="0",finished_reason="length"} 0',
  'vllm:request_success_total{model_name="demo",engine="0",finished_reason="abort"} 0',
  'vllm:time_to_first_token_seconds_bucket{le="0.001",model_name="demo",engine="0"} 0',
  'vllm:time_to_first_token_seconds_bucket{le="2560",model_name="demo",engine="0"} 1',
  'vllm:inter_token_latency_seconds_bucket{le="0.025",model_name="demo",engine="0"} 1',
  'vllm:inter_token_latency_seconds_bucket{le="80",model_name="demo",engine="0"} 1',
  'vllm:request_time_per_output_token_seconds_count{model_name="demo",engine="0"} 1',
  'vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="demo",engine="0"} 0',
  'vllm:e2e_request_latency_seconds_bucket{le="7680",model_name="demo",engine="0"} 1',
  'vllm:request_queue_time_seconds_sum{model_name="demo",engine="0"} 1',
  'vllm:request_prefill_time_seconds_sum{model_name="demo",engine="0"} 2',
  'vllm:request_decode_time_seconds_sum{model_name="demo",engine="0"} 3',
  'vllm:request_inference_time_seconds_sum{model_name="demo",engine="0"} 5',
  'vllm:request_prompt_tokens_bucket{le="1",model_name="demo",engine="0"} 0',
  'vllm:request_prompt_tokens_bucket{le="50",model_name="demo",engine="0"} 1',
  'vllm:request_prompt_tokens_bucket{le="100",model_name="demo",engine="0"} 1',
  'vllm:request_generation_tokens_sum{model_name="demo",engine="0"} 7',
  'vllm:request_params_max_tokens_sum{model_name="demo",engine="0"} 16',
  'vllm:request_prefill_kv_computed_tokens_sum{model_name="demo",engine="0"} 22',
  'vllm:request_max_num_generation_tokens_sum{model_name="demo",engine="0"} 7',
  'vllm:request_params_n_bucket{le="2",model_name="demo",engine="0"} 1',
  'vllm:request_params_n_bucket{le="20",model_name="demo",engine="0"} 1',
  'vllm:iteration_tokens_total_bucket{le="8",model_name="demo",engine="0"} 1',
  'vllm:iteration_tokens_total_bucket{le="16384",model_name="demo",engine="0"} 1',
];

test("the series of a model that worked once", async () => {
  const { registry, metrics } = setUp();
  const observer = metrics.observerOf(model);
  observer.call(2, 7, 0);
  observer.firstToken(0.1, 0);
  observer.interToken(0.02, 0);
  const choice = { latency: 1, promptTokens: 30, cachedTokens: 8, maxTokens: 16, generationTokens: 7, perToken: 0.02 };
  observer.finished({ ...choice, reason: "stop", engine: 0 });
  observer.finished({ ...choice, reason: "abort", engine: 1 });
  const engine = metrics.engineObserver("demo");
  engine.step(5, 0);
  engine.sequence({ queue: 1, prefill: 2, decode: 3 }, 0);
  const lines = new Set((await registry.metrics()).split("\n"));
  for (const line of SERIES) assert.ok(lines.has(line), line);
  assert.ok([...lines].some((line) => line.startsWith("process_resident_memory_bytes ")));
});

test("an engine that was taken away has totals and no gauges", async () => {
  const text = await setUp().registry.metrics();
  assert.match(text, /^vllm:prompt_tokens_total\{model_name="demo",engine="2"\} 30$/m);
  for (const gauge of ["num_requests_running", "kv_cache_usage_perc", "engine_sleep_state", "cache_config_info"])
    assert.doesNotMatch(text, new RegExp(`^vllm:${gauge}\\{.*engine="2"`, "m"));
});

test("adapters that run and wait stand in the labels, without the number of a second loading", async () => {
  const text = await setUp().registry.metrics();
  const of = (engine: number): string => `vllm:lora_requests_info{model_name="demo",engine="${engine}",max_lora="8",`;
  assert.ok(text.includes(`${of(0)}waiting_lora_adapters="",running_lora_adapters=""} `));
  assert.ok(text.includes(`${of(1)}waiting_lora_adapters="de",running_lora_adapters="sql,de"} `));
});

test("the sleep state is that of the backend", async () => {
  sleepState = "discard_all";
  const text = await setUp().registry.metrics();
  sleepState = "awake";
  const of = (state: string): string | undefined =>
    new RegExp(`^vllm:engine_sleep_state\\{model_name="demo",engine="0",sleep_state="${state}"\\} (.)$`, "m").exec(
      text,
    )?.[1];
  assert.deepEqual([of("awake"), of("weights_offloaded"), of("discard_all")], ["0", "0", "1"]);
});

test("totals count once, however often they are read", async () => {
  const { registry } = setUp();
  await registry.metrics();
  assert.match(await registry.metrics(), /^vllm:prompt_tokens_total\{[^}]*engine="0"\} 30$/m);
});

test("HTTP series have closed labels", async () => {
  const registry = new Registry();
  const observe = registerHttpMetrics(registry);
  const request = { method: "POST", status: 200, milliseconds: 200, requestBytes: 10, responseBytes: 20 };
  observe({ ...request, route: "/v1/models" });
  observe({ ...request, route: undefined, method: "BREW", status: 404 });
  observe({ ...request, route: "/health" });
  const text = await registry.metrics();
  assert.match(text, /^http_requests_total\{handler="\/v1\/models",method="POST",status="2xx"\} 1$/m);
  assert.match(text, /^http_requests_total\{handler="none",method="other",status="4xx"\} 1$/m);
  assert.match(text, /^http_request_size_bytes_sum\{handler="\/v1\/models"\} 10$/m);
  assert.match(text, /^http_response_size_bytes_sum\{handler="\/v1\/models"\} 20$/m);
  assert.match(text, /^http_request_duration_seconds_count\{handler="\/v1\/models",method="POST"\} 1$/m);
  assert.match(text, /^http_request_duration_highr_seconds_count 2$/m);
  assert.doesNotMatch(text, /health|BREW/);
});
