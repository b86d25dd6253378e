/**
 * The fields of the routes that generate: chats, completions, responses, messages, token ids.
 */
import { absent, type Fields, honoured, ignored, refused, type Surface, silent, under, without } from "./field.ts";

/** What the scripted model answers with a thought, a word and a control token; or with two calls, if asked to call. */
export const CALL = "call";

const USER = { role: "user", content: "hi" };
const TURN = [USER, { role: "assistant", content: "well" }];
const FUNCTION = { name: "f", description: "d", parameters: { type: "object", properties: {} } };
const TOOLS = [{ type: "function", function: FUNCTION }];
const CALLS = { messages: [{ role: "user", content: CALL }], tools: TOOLS, tool_choice: "auto", max_tokens: 200 };
const STREAM = { stream: true };

const REMOVED: Fields = {
  guided_json: refused({ type: "object" }),
  guided_regex: refused("a"),
  guided_choice: refused(["a"]),
  guided_grammar: refused("root ::= 'a'"),
  guided_decoding_backend: refused("outlines"),
  guided_whitespace_pattern: refused(" "),
  structural_tag: refused("{}"),
};

const INSIDE: Fields = { kv_transfer_params: refused({ host: "a" }), ec_transfer_params: refused({ host: "a" }) };

/** Of the engine's sampling object, under these names everywhere. */
const SAMPLING: Fields = {
  frequency_penalty: honoured(0.5),
  presence_penalty: honoured(0.5),
  repetition_penalty: honoured(1.5),
  temperature: honoured(0.5),
  top_p: honoured(0.5),
  top_k: honoured(3),
  min_p: honoured(0.5),
  seed: honoured(7),
  logit_bias: honoured({ "5": 1 }),
  stop: honoured(["e"]),
  stop_token_ids: honoured([5]),
  include_stop_str_in_output: honoured(true, { stop: ["e"] }),
  ignore_eos: honoured(true),
  min_tokens: honoured(2),
  skip_special_tokens: honoured(false),
  spaces_between_special_tokens: ignored(false),
  allowed_token_ids: honoured([5, 6]),
  bad_words: honoured(["bad"]),
  structured_outputs: honoured({ choice: ["a", "b"] }),
  repetition_detection: honoured({ max_pattern_size: 2, min_pattern_size: 1, min_count: 3 }),
  thinking_token_budget: honoured(2),
  logits_processors: refused(["a"]),
};

const STRUCTURED: Fields = under("structured_outputs", {
  json: honoured({ type: "object" }),
  json_object: honoured(true),
  regex: honoured("a+"),
  choice: honoured(["a"]),
  grammar: honoured('root ::= "a"'),
  structural_tag: honoured(
    JSON.stringify({ format: { type: "tag", begin: "<a>", content: { type: "any_text" }, end: "</a>" } }),
  ),
  disable_any_whitespace: honoured(true, { json: { type: "object" } }),
  disable_fallback: ignored(true, { json: { type: "object" } }),
  disable_additional_properties: ignored(true, { json: { type: "object" } }),
  whitespace_pattern: refused(" ?", { json: { type: "object" } }),
});

const LOGPROBS: Fields = { prompt_logprobs: honoured(1) };

const SHARED: Fields = {
  ...SAMPLING,
  ...STRUCTURED,
  ...LOGPROBS,
  ...INSIDE,
  ...REMOVED,
  model: absent("other"),
  max_tokens: honoured(3),
  n: honoured(2),
  stream: honoured(true),
  stream_options: honoured({ include_usage: true }, STREAM),
  "stream_options.include_usage": honoured(true, STREAM),
  "stream_options.continuous_usage_stats": honoured(true, { ...STREAM, stream_options: { include_usage: true } }),
  stream_interval: honoured(4, STREAM),
  user: ignored("u"),
  use_beam_search: honoured(true),
  length_penalty: ignored(2),
  truncate_prompt_tokens: honoured(4),
  truncation_side: honoured("right", { truncate_prompt_tokens: 4 }),
  response_format: honoured({ type: "json_object" }),
  priority: honoured(5),
  request_id: honoured("mine"),
  session_id: ignored("s"),
  return_token_ids: honoured(true),
  cache_salt: honoured("salt"),
  vllm_xargs: ignored({ a: 1 }),
  watermarking: refused(true),
  routed_experts_prompt_start: ignored(3),
  best_of: ignored(2),
};

const CHAT: Fields = {
  ...SHARED,
  messages: honoured([{ role: "user", content: "other" }]),
  logprobs: honoured(true),
  top_logprobs: honoured(2, { logprobs: true }),
  logprob_token_ids: honoured([5, 6], { logprobs: true }),
  return_tokens_as_token_ids: honoured(true, { logprobs: true }),
  max_completion_tokens: honoured(3),
  "messages.0.role": honoured("developer"),
  "messages.0.name": honoured("n"),
  "messages.0.content": honoured([{ type: "text", text: "a" }]),
  "messages.0.reasoning": honoured("r"),
  "messages.0.reasoning_content": honoured("r"),
  "messages.0.tool_call_id": honoured("i"),
  "messages.0.tool_calls": honoured([{ id: "i", type: "function", function: { name: "f", arguments: "{}" } }]),
  tools: honoured(TOOLS),
  "tools.0.function.description": honoured("other", { tools: TOOLS }),
  "tools.0.function.parameters": honoured({ type: "object" }, { tools: TOOLS }),
  tool_choice: honoured("required", { tools: TOOLS }),
  parallel_tool_calls: honoured(false, CALLS),
  reasoning_effort: honoured("high"),
  include_reasoning: honoured(false),
  echo: honoured(true, { messages: TURN, add_generation_prompt: false }),
  add_generation_prompt: honoured(false),
  continue_final_message: honoured(true, { messages: TURN }),
  add_special_tokens: honoured(true),
  documents: honoured([{ title: "t" }]),
  chat_template: refused("{{ 1 }}"),
  chat_template_kwargs: honoured({ tone: "dry" }),
  media_io_kwargs: refused({ video: {} }),
  mm_processor_kwargs: refused({ a: 1 }),
  return_prompt_text: honoured(true),
  return_token_offsets: ignored(true),
  return_mm_kwargs: ignored(true),
};

const COMPLETION: Fields = {
  ...SHARED,
  prompt: honoured("other"),
  prompt_embeds: refused("AAAA"),
  logprobs: honoured(2),
  logprob_token_ids: honoured([5, 6], { logprobs: 1 }),
  return_tokens_as_token_ids: honoured(true, { logprobs: 1 }),
  echo: honoured(true),
  suffix: refused("end"),
  add_special_tokens: honoured(false),
};

/** What makes one answer of many, or one that comes in parts, is not for several conversations at once. */
const BATCH: Fields = {
  ...without(
    CHAT,
    ...Object.keys(CHAT).filter((name) => /^(?:messages|tools)\./.test(name)),
    "stream_options.include_usage",
    "stream_options.continuous_usage_stats",
  ),
  messages: honoured([[{ role: "user", content: "other" }]]),
  stream: refused(true),
  stream_options: refused({ include_usage: true }),
  stream_interval: silent(4, "nothing streams"),
  tools: refused(TOOLS),
  tool_choice: refused("auto"),
  parallel_tool_calls: silent(false, "a batch has no tools"),
  use_beam_search: refused(true),
  n: refused(2),
  prompt_logprobs: refused(1),
  return_prompt_text: refused(true),
  echo: honoured(true, { messages: [TURN], add_generation_prompt: false }),
  continue_final_message: honoured(true, { messages: [TURN] }),
};

const FLAT_TOOLS = [{ type: "function", ...FUNCTION }];
const PARTS = [{ role: "user", content: [{ type: "input_text", text: "other" }] }];
const TOP = { include: ["message.output_text.logprobs"] };

const RESPONSES: Fields = {
  ...without(SAMPLING, "spaces_between_special_tokens"),
  ...STRUCTURED,
  ...INSIDE,
  ...REMOVED,
  input: honoured(PARTS),
  instructions: honoured("be brief"),
  model: absent("other"),
  metadata: honoured({ a: "b" }),
  user: silent("u", "it is printed again, and means nothing else"),
  service_tier: silent("flex", "it is printed again, and means nothing else"),
  safety_identifier: silent("s", "it is printed again, and means nothing else"),
  prompt_cache_key: silent("k", "it is printed again, and means nothing else"),
  background: honoured(true),
  store: honoured(false),
  previous_response_id: absent("resp_none"),
  prompt: refused({ id: "p" }),
  max_output_tokens: honoured(3),
  max_tool_calls: silent(3, "it is printed again: no tools are run here"),
  include: honoured(TOP.include),
  reasoning: honoured({ effort: "high" }),
  text: honoured({ format: { type: "json_object" } }),
  top_logprobs: honoured(2, TOP),
  tools: honoured(FLAT_TOOLS),
  tool_choice: honoured("required", { tools: FLAT_TOOLS }),
  parallel_tool_calls: honoured(false, { input: CALL, tools: FLAT_TOOLS, max_output_tokens: 200 }),
  truncation: honoured("auto"),
  stream: honoured(true),
  "stream_options.include_obfuscation": refused(true, STREAM),
  stream_interval: honoured(4, STREAM),
  prompt_cache_retention: ignored("24h"),
  cache_salt: honoured("salt"),
  priority: honoured(5),
  request_id: ignored("resp_mine"),
  mm_processor_kwargs: refused({ a: 1 }),
  media_io_kwargs: refused({ a: 1 }),
  vllm_xargs: ignored({ a: 1 }),
  watermarking: refused(true),
  enable_response_messages: refused(true),
  previous_input_messages: refused([USER]),
  previous_response: refused({ id: "resp_1" }),
  conversation: refused("c"),
  response_format: refused({ type: "json_object" }),
  context_management: refused([{ type: "compaction" }]),
  moderation: refused({ model: "m" }),
};

const MESSAGE_TOOLS = [{ name: "f", description: "d", input_schema: { type: "object" } }];

const PROMPT_OF_MESSAGES: Fields = {
  model: absent("other"),
  messages: honoured([{ role: "user", content: [{ type: "text", text: "other" }] }]),
  system: honoured("be brief"),
  tools: honoured(MESSAGE_TOOLS),
  chat_template_kwargs: honoured({ tone: "dry" }),
  mcp_servers: refused([{ url: "u" }]),
  container: refused("c"),
  context_management: ignored({ edits: [] }),
};

const MESSAGES: Fields = {
  ...PROMPT_OF_MESSAGES,
  tool_choice: honoured({ type: "any" }, { tools: MESSAGE_TOOLS }),
  max_tokens: honoured(3),
  stop_sequences: honoured(["e"]),
  stream: honoured(true),
  temperature: honoured(0.5),
  top_p: honoured(0.5),
  top_k: honoured(3),
  metadata: ignored({ user_id: "u" }),
  output_config: honoured({ format: { type: "json_schema", schema: { type: "object" } } }),
  "output_config.effort": honoured("high"),
  thinking: honoured({ type: "enabled", budget_tokens: 1024 }),
  kv_transfer_params: refused({ host: "a" }),
  service_tier: ignored("auto"),
  inference_geo: ignored("eu"),
  speed: ignored("fast"),
};

const COUNT: Fields = {
  ...PROMPT_OF_MESSAGES,
  tool_choice: silent({ type: "any" }, "a choice takes no tokens", { tools: MESSAGE_TOOLS }),
  output_config: silent({ effort: "high" }, "this model's template counts no other tokens for it"),
  thinking: honoured({ type: "enabled", budget_tokens: 1024 }),
};

const GENERATE: Fields = {
  ...INSIDE,
  request_id: honoured("mine"),
  model: absent("other"),
  token_ids: honoured([5, 6]),
  token_offsets: ignored([[0, 1]]),
  features: refused({ mm_hashes: {} }),
  content_parts: refused([{ type: "text" }]),
  reasoning_ended: ignored(true),
  reasoning_parser_kwargs: refused({ a: 1 }),
  return_token_ids: honoured(true),
  output_mode: honoured("text"),
  stream: honoured(true),
  stream_options: honoured({ include_usage: true }, STREAM),
  cache_salt: honoured("salt"),
  priority: honoured(5),
  ...under("sampling_params", {
    ...without(SAMPLING, "structured_outputs", "skip_special_tokens", "include_stop_str_in_output"),
    structured_outputs: honoured({ choice: ["a", "b"] }),
    n: honoured(2),
    max_tokens: honoured(3),
    logprobs: honoured(2),
    prompt_logprobs: honoured(1),
    logprob_token_ids: honoured([5, 6], { logprobs: 1 }),
    output_kind: ignored(2),
    detokenize: ignored(false),
    extra_args: refused({ a: 1 }),
  }),
  // Of the text.
  "sampling_params.skip_special_tokens": honoured(false, { output_mode: "text" }),
  "sampling_params.include_stop_str_in_output": honoured(true, {
    output_mode: "text",
    sampling_params: { stop: ["e"] },
  }),
};

/** A rendered request is never run: what only the answer shows is not in it. */
const ANSWER_ONLY = "it says how the answer is printed, and a rendered request has no place for it";
const CHAT_RENDER: Fields = {
  ...without(CHAT, ...Object.keys(STRUCTURED)),
  use_beam_search: refused(true),
  tool_choice: refused("required", { tools: TOOLS }),
  parallel_tool_calls: silent(false, ANSWER_ONLY),
  include_reasoning: silent(false, ANSWER_ONLY),
  echo: silent(true, ANSWER_ONLY, { messages: TURN, add_generation_prompt: false }),
  return_token_ids: silent(true, ANSWER_ONLY),
  return_tokens_as_token_ids: silent(true, ANSWER_ONLY, { logprobs: true }),
  return_prompt_text: silent(true, ANSWER_ONLY),
  stream_interval: silent(4, ANSWER_ONLY, STREAM),
  return_token_offsets: refused(true),
  return_mm_kwargs: refused(true),
};

const COMPLETION_RENDER: Fields = {
  ...without(COMPLETION, ...Object.keys(STRUCTURED)),
  use_beam_search: refused(true),
  echo: silent(true, ANSWER_ONLY),
  return_token_ids: silent(true, ANSWER_ONLY),
  return_tokens_as_token_ids: silent(true, ANSWER_ONLY, { logprobs: 1 }),
  stream_interval: silent(4, ANSWER_ONLY, STREAM),
  return_token_offsets: refused(true),
  return_mm_kwargs: refused(true),
};

const MESSAGES_RENDER: Fields = {
  ...MESSAGES,
  tool_choice: refused({ type: "any" }, { tools: MESSAGE_TOOLS }),
};

const PIECE = { choices: [{ index: 0, token_ids: [121] }] };
const IN_PIECES = { generate_response: null, generate_chunk: PIECE };

const DERENDER: Fields = {
  model: absent("other"),
  generate_response: honoured({ choices: [{ token_ids: [121], finish_reason: "length" }] }),
  prompt_tokens: honoured(7),
  prompt_token_ids: honoured([1, 2, 3]),
  stream: honoured(true, IN_PIECES),
  generate_chunk: honoured(PIECE, { generate_response: null, stream: true }),
  stream_state: honoured({ role_sent: true, output_token_ids: [120] }, { ...IN_PIECES, stream: true }),
};

/** A search takes no account of the rest. */
const SEARCH: Fields = { length_penalty: silent(2, "the scripted model's tokens are all as likely") };

const text = (route: string, body: Surface["body"], fields: Fields): Surface => ({
  route,
  model: "text",
  body,
  fields,
  unknown: "ignored",
});

const GENERATED = { choices: [{ token_ids: [...Buffer.from("<think>hm</think>ok")], finish_reason: "stop" }] };
const CHAT_BODY = { messages: [USER], max_tokens: 40 };
const MESSAGES_BODY = { model: "demo", ...CHAT_BODY };
const COMPLETION_BODY = { prompt: "hi you", max_tokens: 40 };

export const GENERATION: readonly Surface[] = [
  text("POST /v1/chat/completions", CHAT_BODY, CHAT),
  text("POST /v1/chat/completions/batch", { messages: [[USER]], max_tokens: 40 }, BATCH),
  text("POST /v1/chat/completions/render", CHAT_BODY, CHAT_RENDER),
  text("POST /v1/completions", COMPLETION_BODY, COMPLETION),
  text("POST /v1/completions/render", COMPLETION_BODY, COMPLETION_RENDER),
  text("POST /v1/completions", { ...COMPLETION_BODY, use_beam_search: true, n: 2 }, SEARCH),
  text(
    "POST /v1/chat/completions/derender",
    { chat_request: CHAT_BODY, generate_response: GENERATED },
    { ...DERENDER, chat_request: honoured({ ...CHAT_BODY, include_reasoning: false }) },
  ),
  text(
    "POST /v1/completions/derender",
    { completion_request: COMPLETION_BODY, generate_response: GENERATED },
    {
      ...DERENDER,
      completion_request: honoured({ ...COMPLETION_BODY, return_token_ids: true }),
      generate_responses: honoured([GENERATED], { generate_response: null }),
    },
  ),
  text("POST /invocations", CHAT_BODY, CHAT),
  text("POST /invocations", COMPLETION_BODY, COMPLETION),
  text("POST /v1/responses", { input: "hi", max_output_tokens: 40 }, RESPONSES),
  text("POST /v1/messages", MESSAGES_BODY, MESSAGES),
  text("POST /v1/messages/render", MESSAGES_BODY, MESSAGES_RENDER),
  text("POST /v1/messages/count_tokens", { model: "demo", messages: [USER] }, COUNT),
  text("POST /inference/v1/generate", { token_ids: [104, 105], sampling_params: { max_tokens: 40 } }, GENERATE),
];
