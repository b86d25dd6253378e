/**
 * What the responses routes answer, for OpenAPI and for tests that hold replies against it.
 */
import { z } from "zod";

const count = z.int().nonnegative();
const status = z.enum(["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]);
const itemStatus = z.enum(["in_progress", "completed", "incomplete"]);
const turns = z.array(count);

const token = { token: z.string(), logprob: z.number(), bytes: z.array(z.int()) };
const message = z.object({
  id: z.string(),
  content: z.array(
    z.object({
      annotations: z.array(z.never()),
      text: z.string(),
      type: z.literal("output_text"),
      logprobs: z.array(z.object({ ...token, top_logprobs: z.array(z.object(token)) })),
    }),
  ),
  role: z.literal("assistant"),
  status: itemStatus,
  type: z.literal("message"),
});
const reasoning = z.object({
  id: z.string(),
  summary: z.array(z.never()),
  type: z.literal("reasoning"),
  content: z.array(z.object({ text: z.string(), type: z.literal("reasoning_text") })),
  encrypted_content: z.null(),
  status: itemStatus,
});
const functionCall = z.object({
  arguments: z.string(),
  call_id: z.string(),
  name: z.string(),
  type: z.literal("function_call"),
  id: z.string(),
  status: itemStatus,
});

export const ResponseReply = z.object({
  id: z.string().startsWith("resp_"),
  created_at: z.int(),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  incomplete_details: z.object({ reason: z.string() }).nullable(),
  instructions: z.string().nullable(),
  metadata: z.record(z.string(), z.string()).nullable(),
  model: z.string(),
  object: z.literal("response"),
  output: z.array(z.union([message, reasoning, functionCall])),
  parallel_tool_calls: z.boolean(),
  temperature: z.number(),
  tool_choice: z.unknown(),
  tools: z.array(z.unknown()),
  top_p: z.number(),
  background: z.boolean(),
  max_output_tokens: count.nullable(),
  max_tool_calls: count.nullable(),
  previous_response_id: z.string().nullable(),
  prompt: z.null(),
  prompt_cache_key: z.string().nullable(),
  reasoning: z.object({ effort: z.string().nullable(), summary: z.string().nullable() }),
  safety_identifier: z.string().nullable(),
  service_tier: z.string(),
  status,
  store: z.boolean(),
  text: z.unknown(),
  top_logprobs: z.int(),
  truncation: z.string(),
  usage: z
    .object({
      input_tokens: count,
      input_tokens_details: z.object({
        cached_tokens: count,
        input_tokens_per_turn: turns,
        cached_tokens_per_turn: turns,
      }),
      output_tokens: count,
      output_tokens_details: z.object({
        reasoning_tokens: count,
        tool_output_tokens: count,
        output_tokens_per_turn: turns,
        tool_output_tokens_per_turn: turns,
      }),
      total_tokens: count,
    })
    .nullable(),
  user: z.string().nullable(),
});

export const ResponseStreamEvent = z.looseObject({ sequence_number: count, type: z.string() });

export const DeletedReply = z.object({ id: z.string(), object: z.literal("response"), deleted: z.literal(true) });
