/**
 * Pins: which role may call which route. A new route fails here until it is placed.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ROLES, SCOPES } from "#core/principal.ts";
import { routes } from "#routes/index.ts";

/** A letter a role that may call: user, service, operator, trainer, developer, auditor, admin (x); all: anybody. */
const TABLE = `
POST /v1/chat/completions     us-td-x
POST /v1/chat/completions/batch us-td-x
POST /v1/completions          us-td-x
POST /v1/responses            us-td-x
GET  /v1/responses/{response_id} us--d-x
GET  /v1/responses/{response_id}/input_items us--d-x
POST /v1/responses/{response_id}/cancel us--d-x
DELETE /v1/responses/{response_id} us--d-x
POST /v1/messages             us-td-x
POST /v1/messages/count_tokens us-td-x
POST /v1/embeddings           us--d-x
POST /v2/embed                us--d-x
POST /pooling                 us--d-x
POST /classify                us--d-x
POST /score                   us--d-x
POST /v1/score                us--d-x
POST /rerank                  us--d-x
POST /v1/rerank               us--d-x
POST /v2/rerank               us--d-x
POST /generative_scoring      us--d-x
POST /v1/files                us--d-x
GET  /v1/files                us--d-x
GET  /v1/files/{file_id}      us--d-x
GET  /v1/files/{file_id}/content us--d-x
DELETE /v1/files/{file_id}    us--d-x
POST /v1/batches              us--d-x
GET  /v1/batches              us--d-x
GET  /v1/batches/{batch_id}   us--d-x
POST /v1/batches/{batch_id}/cancel us--d-x
POST /v1/chat/completions/render us-td-x
POST /v1/completions/render   us-td-x
POST /v1/messages/render      us-td-x
POST /v1/chat/completions/derender us-td-x
POST /v1/completions/derender us-td-x
POST /inference/v1/generate   us-td-x
POST /invocations             us-td-x
POST /v1/audio/transcriptions us--d-x
POST /v1/audio/translations   us--d-x
GET  /v1/realtime             us--d-x
GET  /v1/models               usotdax
GET  /v1/models/{model_id}    usotdax
POST /tokenize                us-td-x
POST /detokenize              us-td-x
GET  /tokenizer_info          us-td-x
GET  /health                  all
GET  /ping                    all
POST /ping                    all
GET  /version                 usotdax
GET  /openapi.json            usotdax
GET  /load                    -sotdax
GET  /metrics                 -sotdax
GET  /metrics/upstreams       -sotdax
POST /v1/load_lora_adapter    --ot--x
POST /v1/unload_lora_adapter  --ot--x
POST /pause                       --o---x
POST /resume                      --o---x
GET  /is_paused                   --o---x
POST /sleep                       --o---x
POST /wake_up                     --o---x
GET  /is_sleeping                 --o---x
POST /abort_requests              --o---x
POST /scale_elastic_ep            --o---x
POST /is_scaling_elastic_ep       --o---x
POST /reset_prefix_cache          --o---x
POST /reset_mm_cache              --o---x
POST /reset_encoder_cache         --o---x
POST /init_weight_transfer_engine ---t--x
POST /start_weight_update         ---t--x
POST /update_weights              ---t--x
POST /finish_weight_update        ---t--x
GET  /get_world_size              ---t--x
GET  /server_info                 --o---x
POST /collective_rpc              ----d-x
POST /start_profile               --o-d-x
POST /stop_profile                --o-d-x
GET  /fault_tolerance/status      --o---x
POST /fault_tolerance/apply       --o---x
GET  /admin/keys              -----ax
GET  /admin/keys/show         -----ax
POST /admin/keys/create       ------x
POST /admin/keys/rotate       ------x
POST /admin/keys/disable      ------x
POST /admin/keys/enable       ------x
POST /admin/keys/delete       ------x
GET  /admin/usage             -----ax
GET  /admin/audit             -----ax
POST /admin/audit/verify      -----ax
GET  /admin/audit/head        -----ax
GET  /admin/policy            -----ax
POST /admin/policy/reload     ------x
POST /admin/policy/explain    -----ax
POST /admin/policy/rights     -----ax
POST /admin/policy/test       -----ax
`;

const LETTERS = { user: "u", service: "s", operator: "o", trainer: "t", developer: "d", auditor: "a", admin: "x" };

test("role × route", () => {
  const rows = routes.map(({ method, path, access }) => {
    const may = (scopes: readonly string[]): boolean => access.kind === "key" && scopes.includes(access.scope);
    const letters = Object.entries(ROLES).map(([role, scopes]) =>
      may(scopes) ? LETTERS[role as keyof typeof LETTERS] : "-",
    );
    return `${method} ${path} ${access.kind === "open" ? "all" : letters.join("")}`;
  });
  assert.deepEqual(rows, TABLE.trim().replaceAll(/ +/g, " ").split("\n"));
});

test("the scopes are a closed list, and a role has what it has", () => {
  assert.deepEqual(SCOPES, [
    "inference",
    "embeddings",
    "audio",
    "tokenize",
    "models:read",
    "responses",
    "batch",
    "metrics:read",
    "lora:write",
    "ops",
    "weights",
    "profile",
    "dev",
    "keys:read",
    "keys:write",
    "audit:read",
    "admin",
  ]);
  assert.deepEqual(ROLES, {
    user: ["inference", "embeddings", "audio", "tokenize", "models:read", "responses", "batch"],
    service: ["inference", "embeddings", "audio", "tokenize", "models:read", "responses", "batch", "metrics:read"],
    operator: ["models:read", "metrics:read", "lora:write", "ops", "profile"],
    trainer: ["inference", "tokenize", "models:read", "metrics:read", "lora:write", "weights"],
    developer: [
      "inference",
      "embeddings",
      "audio",
      "tokenize",
      "models:read",
      "responses",
      "batch",
      "metrics:read",
      "profile",
      "dev",
    ],
    auditor: ["models:read", "metrics:read", "keys:read", "audit:read"],
    admin: SCOPES,
  });
});
