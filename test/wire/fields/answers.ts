/**
 * What the answers print, also where there is nothing to say: clients in typed languages read it. A dot leads into an
 * object, 0 into a list.
 */
const words = (text: string): readonly string[] => text.trim().split(/\s+/);
const below = (path: string, text: string): readonly string[] => words(text).map((name) => `${path}.${name}`);

const USAGE = below("usage", "prompt_tokens total_tokens completion_tokens");
const CHAT = [
  ...words("id object created model service_tier system_fingerprint prompt_logprobs prompt_token_ids prompt_text"),
  ...words("kv_transfer_params ec_transfer_params metrics"),
  ...below("choices.0", "index logprobs finish_reason stop_reason token_ids routed_experts"),
  ...below("choices.0.message", "role content refusal annotations audio function_call reasoning"),
  ...USAGE,
  ...below("usage", "prompt_tokens_details completion_tokens_details.reasoning_tokens"),
];
const LIST = [...words("id object created model"), ...USAGE];
const SCORES = [...LIST, ...below("data.0", "index object score")];
const RERANKED = [
  ...words("id model usage.prompt_tokens usage.total_tokens"),
  ...below("results.0", "index document.text document.multi_modal relevance_score"),
];
const RENDERED = words(
  "request_id model token_ids features sampling_params stream stream_options cache_salt priority kv_transfer_params",
);

export const ANSWERS: Readonly<Record<string, readonly string[]>> = {
  "POST /v1/chat/completions": CHAT,
  "POST /v1/chat/completions/batch": CHAT,
  "POST /v1/chat/completions/derender": CHAT,
  "POST /v1/chat/completions/render": RENDERED,
  "POST /v1/messages/render": RENDERED,
  "POST /v1/completions/render": RENDERED.map((name) => `0.${name}`),
  "POST /v1/completions": [
    ...words("id object created model service_tier system_fingerprint kv_transfer_params metrics"),
    ...below("choices.0", "index text logprobs finish_reason stop_reason token_ids prompt_logprobs prompt_token_ids"),
    ...below("choices.0", "routed_experts"),
    ...USAGE,
  ],
  "POST /v1/responses": [
    ...words("id object created_at status incomplete_details instructions metadata model output parallel_tool_calls"),
    ...words("temperature tool_choice tools top_p background max_output_tokens max_tool_calls previous_response_id"),
    ...words("prompt reasoning service_tier text top_logprobs truncation user"),
    ...below("usage", "input_tokens output_tokens total_tokens"),
    ...below("usage.input_tokens_details", "cached_tokens input_tokens_per_turn cached_tokens_per_turn"),
    ...below("usage.output_tokens_details", "reasoning_tokens tool_output_tokens output_tokens_per_turn"),
    "usage.output_tokens_details.tool_output_tokens_per_turn",
  ],
  "POST /v1/messages": [
    ...words("id type role content model stop_reason stop_sequence"),
    ...below("usage", "input_tokens output_tokens cache_creation_input_tokens cache_read_input_tokens"),
  ],
  "POST /v1/messages/count_tokens": words("input_tokens context_management.original_input_tokens"),
  "POST /inference/v1/generate": [
    ...words("request_id model created prompt_logprobs prompt_token_ids mm_placeholders metrics kv_transfer_params"),
    ...words("ec_transfer_params output_mode"),
    ...below("choices.0", "index finish_reason token_ids logprobs routed_experts sampling_mask weight_versions"),
    ...USAGE,
  ],
  "POST /v1/embeddings": [...LIST, ...below("data.0", "index object embedding.0")],
  "POST /pooling": [...LIST, ...below("data.0", "index object data.0")],
  "POST /classify": [...LIST, ...below("data.0", "index label probs.0 num_classes")],
  "POST /score": SCORES,
  "POST /v1/score": SCORES,
  "POST /generative_scoring": SCORES,
  "POST /rerank": RERANKED,
  "POST /v1/rerank": RERANKED,
  "POST /v2/rerank": RERANKED,
  "POST /v2/embed": words("id embeddings.float.0 texts.0 meta.api_version.version meta.tokens.input_tokens"),
  "POST /tokenize": words("count max_model_len tokens.0 token_strs"),
  "POST /detokenize": ["prompt"],
};
