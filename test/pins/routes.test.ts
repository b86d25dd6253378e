/**
 * Pins: every route, who may call it and on which listener.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isRoute } from "#http/route.ts";
import { routes } from "#routes/index.ts";

const TABLE = [
  "POST /v1/chat/completions inference public 8388608",
  "POST /v1/completions inference public 8388608",
  "POST /v1/responses inference public 8388608",
  "GET /v1/responses/{response_id} responses public -",
  "POST /v1/responses/{response_id}/cancel responses public -",
  "DELETE /v1/responses/{response_id} responses public -",
  "GET /v1/models models:read public -",
  "POST /tokenize tokenize public 8388608",
  "POST /detokenize tokenize public 8388608",
  "GET /health open both -",
  "GET /ping open public -",
  "POST /ping open public -",
  "GET /version models:read both -",
  "GET /load metrics:read public -",
  "GET /metrics metrics:read both -",
  "POST /v1/load_lora_adapter lora:write ops 65536",
  "POST /v1/unload_lora_adapter lora:write ops 65536",
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
];

test("routes × access × plane × bytes of body", () => {
  const seen = routes.map(({ method, path, access, plane, limits }) => {
    return `${method} ${path} ${access.kind === "open" ? "open" : access.scope}${access.kind === "key" && access.operator ? "@operator" : ""} ${plane} ${limits.bodyBytes ?? "-"}`;
  });
  assert.deepEqual(seen, TABLE);
  assert.ok(routes.every(isRoute));
});

test("routes that a setting switches on", () => {
  const switched = routes.filter(({ switchedBy }) => switchedBy !== undefined);
  assert.deepEqual(
    switched.map(({ path, switchedBy }) => `${path} ${switchedBy}`),
    ["/v1/load_lora_adapter allowRuntimeLoraUpdating", "/v1/unload_lora_adapter allowRuntimeLoraUpdating"],
  );
});

test("a route with a body has a schema and a limit, and one without has neither", () => {
  for (const { path, body, limits } of routes) assert.equal(body === undefined, limits.bodyBytes === undefined, path);
});
