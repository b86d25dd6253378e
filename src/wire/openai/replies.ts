/**
 * What the OpenAI routes answer, for OpenAPI and for tests that hold replies against it.
 */
import { z } from "zod";

const count = z.int().nonnegative();

export const UsageReply = z.object({
  prompt_tokens: count,
  total_tokens: count,
  completion_tokens: count,
  prompt_tokens_details: z.object({ cached_tokens: count }).nullish(),
  completion_tokens_details: z.object({ reasoning_tokens: count }).nullish(),
});

const logprob = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()).nullable() });
const chatLogprobs = z.object({ content: z.array(logprob.extend({ top_logprobs: z.array(logprob) })) });
const completionLogprobs = z.object({
  text_offset: z.array(count),
  token_logprobs: z.array(z.number().nullable()),
  tokens: z.array(z.string()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
});
const promptLogprobs = z.array(
  z.record(z.string(), z.object({ logprob: z.number(), rank: z.int(), decoded_token: z.string() })).nullable(),
);
const finishReason = z.enum(["stop", "length", "tool_calls", "abort", "error", "repetition"]);
const stopReason = z.union([z.string(), z.int()]);
const ids = z.array(count);
const toolCall = z.object({
  id: z.string(),
  type: z.literal("function"),
  function: z.object({ name: z.string(), arguments: z.string() }),
});

export const ChatCompletionReply = z.object({
  id: z.string().startsWith("chatcmpl-"),
  object: z.literal("chat.completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: count,
      message: z.object({
        role: z.string(),
        content: z.string().nullable(),
        refusal: z.null(),
        annotations: z.null(),
        audio: z.null(),
        function_call: z.null(),
        tool_calls: z.array(toolCall).optional(),
        reasoning: z.string().nullable(),
      }),
      logprobs: chatLogprobs.nullable(),
      finish_reason: finishReason.nullable(),
      stop_reason: stopReason.nullable(),
      token_ids: ids.nullable(),
      routed_experts: z.null(),
    }),
  ),
  service_tier: z.null(),
  system_fingerprint: z.null(),
  usage: UsageReply,
  prompt_logprobs: promptLogprobs.nullable(),
  prompt_token_ids: ids.nullable(),
  prompt_text: z.string().nullable(),
  kv_transfer_params: z.null(),
  ec_transfer_params: z.null(),
  metrics: z.null(),
});

const toolDelta = z.object({
  id: z.string().optional(),
  type: z.literal("function").optional(),
  index: count,
  function: z.object({ name: z.string().optional(), arguments: z.string().optional() }),
});

export const ChatChunk = z.object({
  id: z.string().startsWith("chatcmpl-"),
  object: z.literal("chat.completion.chunk"),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: count,
      delta: z.object({
        role: z.string().optional(),
        content: z.string().optional(),
        reasoning: z.string().optional(),
        tool_calls: z.array(toolDelta).optional(),
      }),
      logprobs: chatLogprobs.nullable(),
      finish_reason: finishReason.nullable(),
      stop_reason: stopReason.nullish(),
      token_ids: ids.nullish(),
    }),
  ),
  usage: UsageReply.optional(),
  prompt_token_ids: ids.nullish(),
  prompt_text: z.string().nullish(),
});

export const CompletionReply = z.object({
  id: z.string().startsWith("cmpl-"),
  object: z.literal("text_completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: count,
      text: z.string(),
      logprobs: completionLogprobs.nullable(),
      finish_reason: finishReason.nullable(),
      stop_reason: stopReason.nullable(),
      token_ids: ids.nullable(),
      prompt_logprobs: promptLogprobs.nullable(),
      prompt_token_ids: ids.nullable(),
      routed_experts: z.null(),
    }),
  ),
  service_tier: z.null(),
  system_fingerprint: z.null(),
  usage: UsageReply,
  kv_transfer_params: z.null(),
  ec_transfer_params: z.null(),
  metrics: z.null(),
});

export const CompletionChunk = z.object({
  id: z.string().startsWith("cmpl-"),
  object: z.literal("text_completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: count,
      text: z.string(),
      logprobs: completionLogprobs.nullable(),
      finish_reason: finishReason.nullable(),
      stop_reason: stopReason.nullable(),
      prompt_token_ids: ids.nullable(),
      token_ids: ids.nullable(),
    }),
  ),
  usage: UsageReply.optional(),
});

export const ErrorReply = z.object({
  error: z.union([
    z.string(),
    z.object({ message: z.string(), type: z.string(), param: z.string().nullable(), code: z.int() }),
  ]),
});

/** vLLM's authentication middleware answers in a shape of its own. */
export const UnauthenticatedReply = z.object({ error: z.literal("Unauthorized") });
