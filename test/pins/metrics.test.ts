/**
 * Pins: metric names, labels and buckets, as vLLM's dashboards ask for them.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import type { Backend } from "#core/backend.ts";
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
const model = { names: ["demo"], backend: { stats: () => stats } as unknown as Backend } as unknown as ServedModel;

function setUp() {
  const registry = new Registry();
  const metrics = registerMetrics({
    registry,
    contextLength: 100,
    models: () => [model],
    cacheConfig: { block_size: "16", num_gpu_blocks: "8" },
  });
  return { registry, metrics };
}

const SERIES = [
  'vllm:num_requests_running{model_name="demo",engine="0"} 2',
  'vllm:num_requests_waiting{model_name="demo",engine="0"} 1',
  'vllm:kv_cache_usage_perc{model_name="demo",engine="0"} 0.5',
  'vllm:engine_sleep_state{model_name="demo",engine="0",sleep_state="awake"} 1',
  'vllm:engine_sleep_state{model_name="demo",engine="0",sleep_state="weights_offloaded"} 0',
  'vllm:prompt_tokens_total{model_name="demo",engine="0"} 30',
  'vllm:generation_tokens_total{model_name="demo",engine="0"} 20',
  'vllm:num_preemptions_total{model_name="demo",engine="0"} 1',
  'vllm:prefix_cache_queries_total{model_name="demo",engine="0"} 30',
  'vllm:prefix_cache_hits_total{model_name="demo",engine="0"} 16',
  'vllm:cache_config_info{block_size="16",num_gpu_blocks="8",engine="0"} 1',
  'vllm:request_success_total{model_name="demo",engine="0",finished_reason="stop"} 1',
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
  'vllm:request_max_num_generation_tokens_sum{model_name="demo",engine="0"} 16',
  'vllm:request_params_n_bucket{le="2",model_name="demo",engine="0"} 1',
  'vllm:request_params_n_bucket{le="20",model_name="demo",engine="0"} 1',
  'vllm:iteration_tokens_total_bucket{le="8",model_name="demo",engine="0"} 1',
  'vllm:iteration_tokens_total_bucket{le="16384",model_name="demo",engine="0"} 1',
];

test("the series of a model that worked once", async () => {
  const { registry, metrics } = setUp();
  const observer = metrics.observerOf(model);
  observer.call(2, 16);
  observer.firstToken(0.1);
  observer.interToken(0.02);
  observer.finished({ reason: "stop", latency: 1, promptTokens: 30, generationTokens: 7, perToken: 0.02 });
  const engine = metrics.engineObserver("demo");
  engine.step(5);
  engine.sequence({ queue: 1, prefill: 2, decode: 3 });
  const lines = new Set((await registry.metrics()).split("\n"));
  for (const line of SERIES) assert.ok(lines.has(line), line);
  assert.ok([...lines].some((line) => line.startsWith("process_resident_memory_bytes ")));
});

test("totals count once, however often they are read", async () => {
  const { registry } = setUp();
  await registry.metrics();
  assert.match(await registry.metrics(), /^vllm:prompt_tokens_total\{[^}]*\} 30$/m);
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
