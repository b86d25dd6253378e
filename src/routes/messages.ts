/**
 * POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API
 */
import { newId } from "#base/ids.ts";
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { events, json } from "#http/reply.ts";
import { chat } from "#serving/chat.ts";
import { tokenize } from "#serving/tokenize.ts";
import { anthropic } from "#wire/anthropic/dialect.ts";
import { decodeCountTokens, decodeMessages } from "#wire/anthropic/messages-decode.ts";
import { encodeMessage } from "#wire/anthropic/messages-encode.ts";
import { CountTokensBody, MessagesBody } from "#wire/anthropic/messages-schema.ts";
import { messageFrames } from "#wire/anthropic/messages-stream.ts";
import { CountTokensReply, MessageErrorReply, MessageEvent, MessageReply } from "#wire/anthropic/replies.ts";
import { failures } from "./_answers.ts";
import { MIB, MINUTE, route, SECOND } from "./_services.ts";

const inAnthropicsWords = failures.map((declared) => ({ ...declared, schema: MessageErrorReply }));

export const messages = route({
  method: "POST",
  path: "/v1/messages",
  dialect: anthropic,
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE },
  body: MessagesBody,
  reply: [
    { status: 200, contentType: "application/json", schema: MessageReply, doc: "The message." },
    {
      status: 200,
      contentType: "text/event-stream",
      schema: MessageEvent,
      doc: "With `stream: true`: named events from `message_start` to `message_stop`.",
    },
    ...inAnthropicsWords,
  ],
  audit: "metadata",
  doc: "Create a message (Anthropic's Messages API).",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const { parsers } = services.serving.models.resolve(body.model, caller.principal);
    const call = decodeMessages(body, capsFor(services.caps, caller.principal.caps), parsers.reasoning !== undefined);
    const identity = {
      id: `msg_${requestId}`,
      cachedTokens: services.usage.cachedTokens,
      signature: newId,
    };
    const output = { ...call.output, callId: identity.id };
    const answer = chat(caller, services.serving, { ...call, output }, signal);
    if (output.stream) return events(messageFrames(answer, identity));
    return json(await encodeMessage(answer, identity));
  },
});

export const countMessageTokens = route({
  method: "POST",
  path: "/v1/messages/count_tokens",
  dialect: anthropic,
  // The tokenizer's work, without the engine: who may not have the one has not the other.
  access: key("tokenize"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 30 * SECOND },
  body: CountTokensBody,
  reply: [
    { status: 200, contentType: "application/json", schema: CountTokensReply, doc: "The count." },
    ...inAnthropicsWords,
  ],
  audit: "none",
  doc: "Count the tokens of the prompt that a message would have.",
  handler: async ({ caller, body, services }) => {
    const call = decodeCountTokens(body, capsFor(services.caps, caller.principal.caps));
    const { tokens } = await tokenize(caller, services.serving, call);
    return json({ input_tokens: tokens.length, context_management: { original_input_tokens: tokens.length } });
  },
});
