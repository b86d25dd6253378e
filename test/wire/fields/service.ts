/**
 * The fields of the routes that serve no answers of a model: tokens, adapters, operations.
 */
import { absent, type Fields, honoured, ignored, refused, type Surface, silent } from "./field.ts";

const USER = { role: "user", content: "hi" };
const CHAT_FORM = { prompt: null, messages: [USER, { role: "assistant", content: "b" }] };
const TOOLS = [{ type: "function", function: { name: "f", parameters: {} } }];
const SHA = "0".repeat(64);

const TOKENIZE: Fields = {
  model: absent("other"),
  prompt: honoured("other"),
  messages: honoured([USER], { prompt: null }),
  add_special_tokens: honoured(false),
  return_token_strs: honoured(true),
  add_generation_prompt: honoured(false, CHAT_FORM),
  continue_final_message: honoured(true, CHAT_FORM),
  chat_template_kwargs: honoured({ tone: "dry" }, CHAT_FORM),
  documents: honoured([{ title: "t" }], CHAT_FORM),
  tools: honoured(TOOLS, CHAT_FORM),
  chat_template: refused("{{ 1 }}"),
  media_io_kwargs: refused({ a: 1 }),
  mm_processor_kwargs: refused({ a: 1 }),
};

const surface = (
  route: string,
  body: Surface["body"],
  fields: Fields,
  more: Partial<Pick<Surface, "unknown" | "within">> = {},
): Surface => ({ route, model: "text", body, fields, unknown: "ignored", changes: true, ...more });

const query = (route: string, fields: Fields): Surface => surface(route, {}, fields, { within: "query" });

/** Of those that the walker's store has. */
const FILES: Fields = {
  limit: honoured("1"),
  after: honoured("file-2"),
  order: honoured("asc"),
  purpose: honoured("batch_output"),
};
const BATCH = { input_file_id: "file-1", endpoint: "/v1/completions", completion_window: "24h" };

const REMEMBERED = "what was asked for is looked at where the operations are tested";

export const SERVICE: readonly Surface[] = [
  surface("POST /tokenize", { prompt: "hi" }, TOKENIZE),
  surface("POST /detokenize", { tokens: [104] }, { model: absent("other"), tokens: honoured([105]) }),
  surface(
    "POST /v1/load_lora_adapter",
    { lora_name: "sql", lora_path: "/a" },
    {
      lora_name: honoured("other"),
      lora_path: silent("/b", "the loader takes any path"),
      load_inplace: silent(true, "there is nothing to replace"),
      is_3d_lora_weight: refused(true),
      sha256: refused("0"),
      base_model_name: refused("nobody"),
    },
  ),
  surface(
    "POST /v1/unload_lora_adapter",
    { lora_name: "held" },
    { lora_name: absent("other"), lora_int_id: ignored(1) },
  ),
  surface("POST /abort_requests", { request_ids: [] }, { request_ids: silent(["a"], "nobody has it") }),
  {
    ...query("GET /v1/models", {
      limit: honoured("1"),
      after_id: honoured("demo"),
      before_id: honoured("demo-alias"),
    }),
    headers: { "anthropic-version": "2023-06-01" },
  },
  { ...query("GET /v1/files", FILES), unknown: "refused" },
  { ...query("GET /v1/batches", { limit: honoured("1"), after: honoured("batch_2") }), unknown: "refused" },
  surface("POST /v1/batches", BATCH, {
    input_file_id: honoured("file-3"),
    endpoint: honoured("/v1/chat/completions"),
    completion_window: refused("1h"),
    metadata: honoured({ of: "a test" }),
    output_expires_after: refused({ anchor: "created_at", seconds: 3600 }),
  }),
  query("POST /pause", {
    mode: honoured("keep"),
    wait_for_inflight_requests: honoured("true"),
    clear_cache: honoured("false"),
  }),
  query("POST /sleep", { level: honoured("2"), mode: honoured("keep") }),
  query("POST /wake_up", { tags: honoured("weights") }),
  query("POST /reset_prefix_cache", { reset_running_requests: honoured("true"), reset_external: refused("true") }),
  query("GET /get_world_size", { include_dp: silent("false", "there is one engine") }),
  query("GET /server_info", { config_format: honoured("json") }),
  query("POST /start_profile", { seconds: silent("1", REMEMBERED) }),
  surface(
    "POST /scale_elastic_ep",
    { new_data_parallel_size: 1 },
    { new_data_parallel_size: honoured(2), drain_timeout: honoured(7, { new_data_parallel_size: 2 }) },
  ),
  surface(
    "POST /init_weight_transfer_engine",
    { init_info: {} },
    {
      "init_info.backend": refused("nccl"),
      "init_info.master_address": refused("10.0.0.1"),
      "init_info.world_size": refused(2),
    },
  ),
  surface("POST /start_weight_update", {}, { include_draft: refused(true) }, { unknown: "refused" }),
  surface(
    "POST /update_weights",
    { update_info: { path: "/w.gguf", sha256: SHA } },
    {
      "update_info.path": honoured("/other.gguf"),
      "update_info.sha256": refused("0"),
      "update_info.mode": honoured("keep"),
      "update_info.names": refused(["a"]),
    },
  ),
  surface(
    "POST /collective_rpc",
    { method: "check_health" },
    {
      method: refused("save_sharded_state"),
      args: refused([1]),
      kwargs: refused({ a: 1 }),
      timeout: silent(5, "the answer is there before"),
    },
  ),
  surface(
    "POST /fault_tolerance/apply",
    { fault_tolerance_instruction: "pause", fault_tolerance_timeout: 5 },
    {
      fault_tolerance_instruction: honoured("retry"),
      fault_tolerance_timeout: silent(6, "the operation ends before"),
      fault_tolerance_params: refused({ a: 1 }),
    },
  ),
];
