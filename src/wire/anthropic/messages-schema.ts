/**
 * The bodies of POST /v1/messages and /v1/messages/count_tokens, after vLLM's AnthropicMessagesRequest
 * (vllm/entrypoints/anthropic/protocol.py) and Anthropic's own reference. Unknown fields are dropped.
 */
import { z } from "zod";
import { bool, float, int, shape } from "#wire/openai/_fields.ts";

const CONTENT = { anyOf: [{ type: "string" }, { type: "array", items: { type: "object", required: ["type"] } }] };
const MESSAGES = {
  type: "array",
  items: {
    type: "object",
    required: ["role", "content"],
    properties: { role: { enum: ["user", "assistant", "system"] }, content: CONTENT },
  },
};
const TOOLS = {
  type: "array",
  items: {
    type: "object",
    required: ["name", "input_schema"],
    properties: { name: { type: "string" }, description: { type: "string" }, input_schema: { type: "object" } },
  },
};
const REFUSED = { description: "Not accepted by this server: refused with 400." };
const NO_EFFECT = "Taken and without effect.";

/** What makes the prompt. */
const promptFields = {
  model: z.string().min(1),
  messages: z.unknown().meta(MESSAGES),
  system: shape(CONTENT),
  tools: shape(TOOLS),
  tool_choice: shape({
    type: "object",
    required: ["type"],
    properties: {
      type: { enum: ["auto", "any", "tool", "none"] },
      name: { type: "string" },
      disable_parallel_tool_use: { type: "boolean" },
    },
  }),
  thinking: shape({
    type: "object",
    required: ["type"],
    properties: {
      type: { enum: ["enabled", "adaptive", "disabled"] },
      budget_tokens: { type: "integer", minimum: 1 },
      display: { enum: ["summarized", "omitted"] },
    },
  }),
  output_config: shape({
    type: "object",
    properties: {
      effort: { enum: ["low", "medium", "high", "xhigh", "max"] },
      format: { type: "object", description: "type: json_schema, schema." },
    },
  }),
  chat_template_kwargs: shape({ type: "object" }),
  mcp_servers: shape(REFUSED),
  container: shape(REFUSED),
};

export const CountTokensBody = z.object(promptFields);

export const MessagesBody = z.object({
  ...promptFields,
  max_tokens: int,
  stop_sequences: shape({ type: "array", items: { type: "string" } }),
  stream: bool.nullish(),
  temperature: float.nullish(),
  top_p: float.nullish(),
  top_k: int.nullish(),
  metadata: shape({ type: "object", description: NO_EFFECT }),
  service_tier: z.string().nullish().meta({ description: NO_EFFECT }),
  kv_transfer_params: shape(REFUSED),
});

export type PromptBody = z.infer<typeof CountTokensBody>;
export type MessagesBodyValue = z.infer<typeof MessagesBody>;
