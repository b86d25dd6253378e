/**
 * What the Messages routes answer, for OpenAPI and for tests that hold replies against it.
 */
import { z } from "zod";

const count = z.int().nonnegative();

const usage = z.strictObject({
  input_tokens: count,
  output_tokens: count,
  cache_creation_input_tokens: z.null(),
  cache_read_input_tokens: count.nullable(),
});
const stop = {
  stop_reason: z.enum(["end_turn", "max_tokens", "stop_sequence", "tool_use"]).nullable(),
  stop_sequence: z.string().nullable(),
};
const block = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text"), text: z.string() }),
  z.strictObject({ type: z.literal("thinking"), thinking: z.string(), signature: z.string() }),
  z.strictObject({
    type: z.literal("tool_use"),
    id: z.string(),
    name: z.string(),
    input: z.record(z.string(), z.unknown()),
  }),
]);

export const MessageReply = z.strictObject({
  id: z.string().startsWith("msg_"),
  type: z.literal("message"),
  role: z.literal("assistant"),
  model: z.string(),
  content: z.array(block),
  ...stop,
  usage,
});

const delta = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text_delta"), text: z.string() }),
  z.strictObject({ type: z.literal("thinking_delta"), thinking: z.string() }),
  z.strictObject({ type: z.literal("signature_delta"), signature: z.string() }),
  z.strictObject({ type: z.literal("input_json_delta"), partial_json: z.string() }),
]);

export const MessageEvent = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("message_start"), message: MessageReply }),
  z.strictObject({ type: z.literal("content_block_start"), index: count, content_block: block }),
  z.strictObject({ type: z.literal("ping") }),
  z.strictObject({ type: z.literal("content_block_delta"), index: count, delta }),
  z.strictObject({ type: z.literal("content_block_stop"), index: count }),
  z.strictObject({ type: z.literal("message_delta"), delta: z.strictObject(stop), usage }),
  z.strictObject({ type: z.literal("message_stop") }),
]);

export const CountTokensReply = z.strictObject({
  input_tokens: count,
  context_management: z.strictObject({ original_input_tokens: count }),
});

export const MessageErrorReply = z.strictObject({
  type: z.literal("error"),
  error: z.strictObject({ type: z.string(), message: z.string() }),
  request_id: z.string().optional(),
});
