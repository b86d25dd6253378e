/**
 * The body of POST /v1/chat/completions, after vLLM's ChatCompletionRequest
 * (vllm/entrypoints/openai/chat_completion/protocol.py). Unknown fields are dropped.
 */
import { z } from "zod";
import { bool, int, shape, sharedFields } from "./_fields.ts";

const MESSAGE = {
  type: "object",
  required: ["role"],
  properties: {
    role: { type: "string" },
    content: { anyOf: [{ type: "string" }, { type: "array", items: { type: "object" } }, { type: "null" }] },
    name: { type: "string" },
    reasoning: { type: "string" },
    tool_calls: { type: "array", items: { type: "object" } },
    tool_call_id: { type: "string" },
  },
};

export const MESSAGES_DOC = { type: "array", items: MESSAGE };
export const TOOLS_DOC = { type: "array", items: { type: "object", required: ["type", "function"] } };

export const ChatBody = z.object({
  ...sharedFields,
  messages: z.unknown().meta(MESSAGES_DOC),
  logprobs: bool.nullish(),
  top_logprobs: int.nullish(),
  max_tokens: int.nullish().meta({ deprecated: true }),
  max_completion_tokens: int.nullish(),
  n: int.nullish(),
  tools: shape(TOOLS_DOC),
  tool_choice: shape({ anyOf: [{ enum: ["none", "auto", "required"] }, { type: "object" }] }),
  parallel_tool_calls: bool.nullish(),
  reasoning_effort: z.enum(["none", "minimal", "low", "medium", "high", "xhigh", "max"]).nullish(),
  include_reasoning: bool.optional(),
  echo: bool.optional(),
  add_generation_prompt: bool.optional(),
  continue_final_message: bool.optional(),
  documents: shape({ type: "array", items: { type: "object" } }),
  chat_template: shape({ type: "string", description: "Never taken from a client: refused with 400." }),
  chat_template_kwargs: shape({ type: "object" }),
  media_io_kwargs: shape({ type: "object", description: "Refused with 400." }),
  mm_processor_kwargs: shape({ type: "object", description: "Refused with 400." }),
  return_prompt_text: bool.nullish(),
});

export type ChatBodyValue = z.infer<typeof ChatBody>;
