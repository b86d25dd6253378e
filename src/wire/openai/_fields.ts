/**
 * Building blocks of the request schemas, with vLLM's nullability: `nullable…` where its type is Optional.
 *
 * Compound fields (lists, maps, unions) are declared `shape(…)`: any JSON value as far as zod goes, with a JSON
 * Schema for the docs. decode walks them by hand and stops at the first bad entry, where zod would build one
 * issue for each of a million entries.
 */
import { z } from "zod";

/** A JSON Schema fragment, as printed in the docs. */
export type JsonSchemaDoc = Readonly<Record<string, unknown>>;

/** A compound field: checked in decode. `null` and absence are the same. */
export function shape(doc: JsonSchemaDoc): z.ZodOptional<z.ZodUnknown> {
  return z.unknown().meta(doc).optional();
}

export const int = z.int();
export const bool = z.boolean();
/** Finite: zod's number refuses NaN and the infinities. */
export const float = z.number();
const INT64 = 2 ** 63;
/** pydantic's `int` with int64 bounds; beyond 2^53 a JSON number keeps its leading digits only. */
export const int64 = z
  .number()
  .gte(-INT64)
  .lte(INT64)
  .refine((value) => Number.isInteger(value), "Invalid input: expected int");

const LIST_OF_INT = { type: "array", items: { type: "integer" } };
const NEVER = { description: "Never taken from a client: refused with 400." };

/** Fields that were removed from vLLM and whose silent loss would drop a constraint. */
export const REMOVED_FIELDS = [
  "guided_json",
  "guided_regex",
  "guided_choice",
  "guided_grammar",
  "guided_decoding_backend",
  "guided_whitespace_pattern",
  "structural_tag",
] as const;

const removed = shape({ deprecated: true, description: "Removed: refused with 400. Use structured_outputs." });

/** What chat and completions have in common, in vLLM's order (openai/{chat_completion,completion}/protocol.py). */
export const sharedFields = {
  model: z.string().nullish(),
  frequency_penalty: float.nullish(),
  presence_penalty: float.nullish(),
  logit_bias: shape({
    type: "object",
    additionalProperties: { type: "number" },
    description: "Token id to bias, clamped to ±100.",
  }),
  seed: int64.nullish(),
  stop: shape({ anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }] }),
  stream: bool.nullish(),
  stream_options: z.object({ include_usage: bool.nullish(), continuous_usage_stats: bool.nullish() }).nullish(),
  temperature: float.nullish(),
  top_p: float.nullish(),
  user: z.string().nullish(),
  use_beam_search: bool.optional(),
  top_k: int.nullish(),
  min_p: float.nullish(),
  repetition_penalty: float.nullish(),
  watermarking: bool.nullish(),
  length_penalty: float.optional(),
  stop_token_ids: shape(LIST_OF_INT),
  include_stop_str_in_output: bool.optional(),
  ignore_eos: bool.optional(),
  min_tokens: int.optional(),
  skip_special_tokens: bool.optional(),
  spaces_between_special_tokens: bool.optional(),
  truncate_prompt_tokens: int.gte(-1).nullish(),
  truncation_side: z.enum(["left", "right"]).nullish(),
  prompt_logprobs: int.nullish(),
  logprob_token_ids: shape({
    ...LIST_OF_INT,
    description: "Report the logprobs of these tokens and not of the likeliest; needs logprobs.",
  }),
  allowed_token_ids: shape(LIST_OF_INT),
  bad_words: shape({ type: "array", items: { type: "string" } }),
  add_special_tokens: bool.optional(),
  response_format: shape({ type: "object", description: "type: text, json_object, json_schema or structural_tag." }),
  structured_outputs: shape({
    type: "object",
    description: "One of json, json_object, regex, choice, grammar, structural_tag.",
  }),
  priority: int64.optional(),
  request_id: z.string().max(256).optional(),
  session_id: z.string().max(256).nullish(),
  return_tokens_as_token_ids: bool.nullish(),
  return_token_ids: bool.nullish(),
  cache_salt: z.string().nullish(),
  kv_transfer_params: shape(NEVER),
  ec_transfer_params: shape(NEVER),
  vllm_xargs: shape({
    type: "object",
    description: "Arguments of custom extensions; there are none, so they are ignored.",
  }),
  repetition_detection: shape({ type: "object", description: "max_pattern_size, min_pattern_size, min_count." }),
  thinking_token_budget: int.gte(-1).nullish(),
  stream_interval: int.gte(1).nullish(),
  logits_processors: shape(NEVER),
  ...(Object.fromEntries(REMOVED_FIELDS.map((name) => [name, removed])) as Record<
    (typeof REMOVED_FIELDS)[number],
    typeof removed
  >),
};
