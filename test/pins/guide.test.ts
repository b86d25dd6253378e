/**
 * Pins: every route that vLLM has, by its security guide and its source, is declared here, or waits for a reason that
 * still holds.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { routes } from "#routes/index.ts";
import { standing } from "#routes/standing.ts";

/** The guide's lists, in its order. */
const GUIDE = `
GET /v1/models
POST /v1/chat/completions
POST /v1/chat/completions/batch
POST /v1/chat/completions/render
POST /v1/completions
POST /v1/completions/render
POST /v1/embeddings
POST /v1/audio/transcriptions
POST /v1/audio/translations
POST /v1/messages
POST /v1/messages/count_tokens
POST /v1/responses
GET /v1/responses/{response_id}
POST /v1/responses/{response_id}/cancel
POST /v1/score
POST /v1/rerank
POST /v1/load_lora_adapter
POST /v1/unload_lora_adapter
POST /invocations
POST /inference/v1/generate
POST /generative_scoring
POST /pooling
POST /classify
POST /score
POST /rerank
POST /pause
POST /resume
GET /is_paused
POST /scale_elastic_ep
POST /is_scaling_elastic_ep
POST /init_weight_transfer_engine
POST /update_weights
GET /get_world_size
POST /abort_requests
POST /tokenize
POST /detokenize
GET /health
GET /ping
POST /ping
GET /version
GET /load
GET /tokenizer_info
GET /server_info
POST /reset_prefix_cache
POST /reset_mm_cache
POST /reset_encoder_cache
POST /sleep
POST /wake_up
GET /is_sleeping
POST /collective_rpc
POST /start_profile
POST /stop_profile
`;

/** What its source has besides. */
const SOURCE = `
POST /v1/chat/completions/derender
POST /v1/completions/derender
POST /v1/messages/render
POST /v2/embed
POST /v2/rerank
GET /v1/realtime
GET /metrics
POST /start_weight_update
POST /finish_weight_update
GET /fault_tolerance/status
POST /fault_tolerance/apply
POST /cohere/v2/chat
POST /adapters
DELETE /adapters
GET /openapi.json
GET /docs
GET /redoc
GET /docs/oauth2-redirect
`;

/** Not declared, and why. A route that is declared may not stand here. */
const WAITING: Readonly<Record<string, string>> = {
  "POST /cohere/v2/chat": "off in vLLM unless a variable switches it on; the same models answer the other chat routes",
  "POST /adapters": "belongs to a package of SageMaker's containers, not to vLLM; /v1/load_lora_adapter does the same",
  "DELETE /adapters": "as POST /adapters: /v1/unload_lora_adapter does the same",
  "GET /docs": "no pages: what a browser would run here has no key, and no business on this origin",
  "GET /redoc": "as GET /docs",
  "GET /docs/oauth2-redirect": "as GET /docs",
};

const lines = (text: string): string[] => text.trim().split("\n");
const declared = new Set(routes.map(({ method, path }) => `${method} ${path}`));

test("each of the guide's and the source's routes is declared, or waits", () => {
  for (const route of [...lines(GUIDE), ...lines(SOURCE)])
    assert.ok(declared.has(route) !== Object.hasOwn(WAITING, route), route);
});

test("what waits is a route of vLLM's, has a reason, and is not there", () => {
  const known = new Set([...lines(GUIDE), ...lines(SOURCE)]);
  for (const [route, reason] of Object.entries(WAITING)) {
    assert.ok(known.has(route), route);
    assert.ok(!declared.has(route), route);
    assert.ok(reason.length > 10, route);
  }
});

test("routes.md says of each route whether vLLM has it, and of none that it has not", () => {
  const known = new Set([...lines(GUIDE), ...lines(SOURCE)]);
  for (const route of routes) {
    const name = `${route.method} ${route.path}`;
    const isExtra = standing(route) === "own";
    // What the list leaves out is an alias of what it names.
    assert.ok(isExtra !== known.has(name), `${name}: ${standing(route)}`);
  }
});
