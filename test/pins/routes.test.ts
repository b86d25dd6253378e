/**
 * Pins: every route, who may call it and on which listener.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isRoute, onBothListeners } from "#http/route.ts";
import { routes } from "#routes/index.ts";

const TABLE = [
  "POST /v1/chat/completions inference public 8388608",
  "POST /v1/chat/completions/batch inference public 8388608",
  "POST /v1/completions inference public 8388608",
  "POST /v1/responses inference public 8388608",
  "GET /v1/responses/{response_id} responses public -",
  "GET /v1/responses/{response_id}/input_items responses public -",
  "POST /v1/responses/{response_id}/cancel responses public -",
  "DELETE /v1/responses/{response_id} responses public -",
  "POST /v1/messages inference public 8388608",
  "POST /v1/messages/count_tokens tokenize public 8388608",
  "POST /v1/embeddings embeddings public 8388608",
  "POST /v2/embed embeddings public 8388608",
  "POST /pooling embeddings public 8388608",
  "POST /classify embeddings public 8388608",
  "POST /score embeddings public 8388608",
  "POST /v1/score embeddings public 8388608",
  "POST /rerank embeddings public 8388608",
  "POST /v1/rerank embeddings public 8388608",
  "POST /v2/rerank embeddings public 8388608",
  "POST /generative_scoring embeddings public 8388608",
  "POST /v1/files batch public 536870912",
  "GET /v1/files batch public -",
  "GET /v1/files/{file_id} batch public -",
  "GET /v1/files/{file_id}/content batch public -",
  "DELETE /v1/files/{file_id} batch public -",
  "POST /v1/batches batch public 65536",
  "GET /v1/batches batch public -",
  "GET /v1/batches/{batch_id} batch public -",
  "POST /v1/batches/{batch_id}/cancel batch public -",
  "POST /v1/chat/completions/render tokenize public 8388608",
  "POST /v1/completions/render tokenize public 8388608",
  "POST /v1/messages/render tokenize public 8388608",
  "POST /v1/chat/completions/derender tokenize public 8388608",
  "POST /v1/completions/derender tokenize public 8388608",
  "POST /inference/v1/generate inference public 8388608",
  "POST /invocations inference public 8388608",
  "POST /v1/audio/transcriptions audio public 536870912",
  "POST /v1/audio/translations audio public 536870912",
  "GET /v1/realtime audio public -",
  "GET /v1/models models:read public -",
  "GET /v1/models/{model_id} models:read public -",
  "POST /tokenize tokenize public 8388608",
  "POST /detokenize tokenize public 8388608",
  "GET /tokenizer_info tokenize public -",
  "GET /health open both -",
  "GET /ping open public -",
  "POST /ping open public -",
  "GET /version models:read both -",
  "GET /openapi.json models:read both -",
  "GET /load metrics:read public -",
  "GET /metrics metrics:read both -",
  "GET /metrics/upstreams metrics:read@operator ops -",
  "POST /v1/load_lora_adapter lora:write ops 65536",
  "POST /v1/unload_lora_adapter lora:write ops 65536",
  "POST /pause ops@operator ops -",
  "POST /resume ops@operator ops -",
  "GET /is_paused ops@operator ops -",
  "POST /sleep ops@operator ops -",
  "POST /wake_up ops@operator ops -",
  "GET /is_sleeping ops@operator ops -",
  "POST /abort_requests ops ops 1048576",
  "POST /scale_elastic_ep ops@operator ops 65536",
  "POST /is_scaling_elastic_ep ops@operator ops -",
  "POST /reset_prefix_cache ops@operator ops -",
  "POST /reset_mm_cache ops@operator ops -",
  "POST /reset_encoder_cache ops@operator ops -",
  "POST /init_weight_transfer_engine weights@operator ops 65536",
  "POST /start_weight_update weights@operator ops 65536",
  "POST /update_weights weights@operator ops 65536",
  "POST /finish_weight_update weights@operator ops -",
  "GET /get_world_size weights@operator ops -",
  "GET /server_info ops@operator ops -",
  "POST /collective_rpc dev@operator ops 65536",
  "POST /start_profile profile@operator ops -",
  "POST /stop_profile profile@operator ops -",
  "GET /fault_tolerance/status ops@operator ops -",
  "POST /fault_tolerance/apply ops@operator ops 65536",
  "GET /admin/keys keys:read ops -",
  "GET /admin/keys/show keys:read ops -",
  "POST /admin/keys/create keys:write ops 65536",
  "POST /admin/keys/rotate keys:write ops 65536",
  "POST /admin/keys/disable keys:write ops 65536",
  "POST /admin/keys/enable keys:write ops 65536",
  "POST /admin/keys/delete keys:write ops 65536",
  "GET /admin/usage keys:read ops -",
  "GET /admin/audit audit:read ops -",
  "POST /admin/audit/verify audit:read@operator ops -",
  "GET /admin/audit/head audit:read@operator ops -",
  "GET /admin/policy keys:read@operator ops -",
  "POST /admin/policy/reload admin@operator ops -",
  "POST /admin/policy/explain keys:read ops 65536",
  "POST /admin/policy/rights keys:read ops 65536",
  "POST /admin/policy/test keys:read@operator ops 2097152",
];

test("routes × access × plane × bytes of body", () => {
  const seen = routes.map(({ method, path, access, plane, limits }) => {
    return `${method} ${path} ${access.kind === "open" ? "open" : access.scope}${access.kind === "key" && access.operator ? "@operator" : ""} ${plane} ${limits.bodyBytes ?? "-"}`;
  });
  assert.deepEqual(seen, TABLE);
  assert.ok(routes.every(isRoute));
});

test("routes of the operations listener that a setting opens to the public one", () => {
  const opened = routes.filter(({ publicBy }) => publicBy !== undefined);
  assert.deepEqual(
    opened.map(({ path, publicBy }) => `${path} ${publicBy}`),
    ["/v1/load_lora_adapter publicLoraRoutes", "/v1/unload_lora_adapter publicLoraRoutes"],
  );
  for (const route of routes.filter(({ publicBy }) => publicBy === undefined))
    assert.throws(() => onBothListeners(route), /own listener only/);
});

test("routes that a setting switches on", () => {
  const switched = routes.filter(({ switchedBy }) => switchedBy !== undefined);
  assert.deepEqual(
    switched.map(({ path, switchedBy }) => `${path} ${switchedBy}`),
    [
      "/tokenizer_info enableTokenizerInfoEndpoint",
      "/v1/load_lora_adapter allowRuntimeLoraUpdating",
      "/v1/unload_lora_adapter allowRuntimeLoraUpdating",
      "/sleep enableSleepMode",
      "/wake_up enableSleepMode",
      "/is_sleeping enableSleepMode",
      "/init_weight_transfer_engine weightRoots",
      "/start_weight_update weightRoots",
      "/update_weights weightRoots",
      "/finish_weight_update weightRoots",
      "/get_world_size weightRoots",
      "/collective_rpc serverDevMode",
      "/start_profile profileDir",
      "/stop_profile profileDir",
      "/fault_tolerance/status enableFaultTolerance",
      "/fault_tolerance/apply enableFaultTolerance",
    ],
  );
});

test("a route with a body has a schema and a limit, and one without has neither", () => {
  for (const { path, body, form, limits } of routes)
    assert.equal(body === undefined && form === undefined, limits.bodyBytes === undefined, path);
});
