/**
 * The body of POST /v1/responses, after OpenAI's API and vLLM's ResponsesRequest
 * (vllm/entrypoints/openai/responses/protocol.py). Unknown fields are dropped.
 */
import { z } from "zod";
import { bool, int, REMOVED_FIELDS, shape, sharedFields } from "#wire/openai/_fields.ts";

const INPUT_DOC = {
  anyOf: [{ type: "string" }, { type: "array", items: { type: "object" } }],
  description: "A text, or items: message, function_call, function_call_output, reasoning.",
};
const REFUSED = "Refused unless empty.";

const pick = <K extends keyof typeof sharedFields>(...names: readonly K[]): Pick<typeof sharedFields, K> =>
  Object.fromEntries(names.map((name) => [name, sharedFields[name]])) as Pick<typeof sharedFields, K>;

export const ResponsesBody = z.object({
  model: z.string().nullish(),
  input: z.unknown().meta(INPUT_DOC),
  instructions: z.string().nullish(),
  previous_response_id: z.string().max(200).nullish(),
  store: bool.nullish(),
  background: bool.nullish(),
  stream: bool.nullish(),
  stream_options: z.object({ include_obfuscation: bool.nullish() }).nullish(),
  tools: shape({ type: "array", items: { type: "object", required: ["type"] } }),
  tool_choice: shape({ anyOf: [{ enum: ["none", "auto", "required"] }, { type: "object" }] }),
  parallel_tool_calls: bool.nullish(),
  max_tool_calls: int.gte(1).nullish(),
  text: shape({ type: "object", description: "format: text, json_object or json_schema; verbosity." }),
  reasoning: z
    .object({
      effort: z.enum(["none", "minimal", "low", "medium", "high", "xhigh", "max"]).nullish(),
      summary: z.enum(["auto", "concise", "detailed"]).nullish(),
      generate_summary: z.enum(["auto", "concise", "detailed"]).nullish(),
    })
    .nullish(),
  max_output_tokens: int.gte(1).nullish(),
  temperature: sharedFields.temperature,
  top_p: sharedFields.top_p,
  top_logprobs: int.nullish(),
  include: shape({ type: "array", items: { type: "string" } }),
  truncation: z.enum(["auto", "disabled"]).nullish(),
  metadata: shape({ type: "object", additionalProperties: { type: "string" } }),
  user: z.string().max(1024).nullish(),
  safety_identifier: z.string().max(1024).nullish(),
  prompt_cache_key: z.string().max(1024).nullish(),
  prompt_cache_retention: z.enum(["in_memory", "in-memory", "24h"]).nullish(),
  service_tier: z.enum(["auto", "default", "flex", "scale", "priority"]).nullish(),
  prompt: shape({ type: "object", description: REFUSED }),
  conversation: shape({ description: REFUSED }),
  context_management: shape({ type: "array", description: REFUSED }),
  moderation: shape({ type: "object", description: REFUSED }),
  previous_input_messages: shape({ type: "array", description: REFUSED }),
  previous_response: shape({ type: "object", description: REFUSED }),
  enable_response_messages: bool.nullish(),
  response_format: shape({ type: "object", description: "Refused: it is called text.format here." }),
  mm_processor_kwargs: shape({ type: "object", description: "Refused with 400." }),
  media_io_kwargs: shape({ type: "object", description: "Refused with 400." }),
  ...pick(
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "allowed_token_ids",
    "bad_words",
    "structured_outputs",
    "priority",
    "request_id",
    "cache_salt",
    "kv_transfer_params",
    "ec_transfer_params",
    "vllm_xargs",
    "repetition_detection",
    "thinking_token_budget",
    "stream_interval",
    "logits_processors",
    "watermarking",
    ...REMOVED_FIELDS,
  ),
});

export type ResponsesBodyValue = z.infer<typeof ResponsesBody>;

export const RetrieveQuery = z.object({
  stream: z.enum(["true", "false"]).optional().meta({ description: "The events of a background response." }),
  starting_after: z
    .string()
    .regex(/^[0-9]{1,10}$/)
    .optional()
    .meta({ description: "Events after this sequence number; with stream." }),
  include: z.string().max(1024).optional().meta({ description: "Without effect: all that there is is printed." }),
  include_obfuscation: z.enum(["false"]).optional(),
});
