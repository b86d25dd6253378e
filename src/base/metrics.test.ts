import assert from "node:assert/strict";
import { test } from "node:test";
import { Counter, createRegistry, Histogram, oneTwoFiveBuckets, powerOfTwoBuckets, printMetrics } from "./metrics.ts";

test("bucket rows", () => {
  assert.deepEqual(oneTwoFiveBuckets(2048), [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]);
  assert.deepEqual(oneTwoFiveBuckets(1), [1]);
  assert.deepEqual(powerOfTwoBuckets(16), [1, 2, 4, 8, 16]);
});

test("vLLM's names and labels print, and registries do not mix", async () => {
  const registry = createRegistry();
  const labels = { model_name: "demo", engine: "0" };
  new Counter({
    name: "vllm:prompt_tokens_total",
    help: "h",
    labelNames: ["model_name", "engine"],
    registers: [registry],
  }).inc(labels, 3);
  const sizes = new Histogram({ name: "vllm:request_params_n", help: "h", buckets: [1, 2], registers: [registry] });
  sizes.observe(2);
  const { body, contentType } = await printMetrics(registry);
  assert.match(body, /^vllm:prompt_tokens_total\{model_name="demo",engine="0"\} 3$/m);
  assert.match(body, /^vllm:request_params_n_bucket\{le="2"\} 1$/m);
  assert.match(contentType, /^text\/plain/);
  assert.equal((await printMetrics(createRegistry())).body.trim(), "");
});
