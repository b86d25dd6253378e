/**
 * POST /v1/chat/completions
 */
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { events, json } from "#http/reply.ts";
import { chat } from "#serving/chat.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { encodeChat } from "#wire/openai/chat-encode.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { chatFrames } from "#wire/openai/chat-stream.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ChatChunk, ChatCompletionReply } from "#wire/openai/replies.ts";
import { failures, identify } from "./_answers.ts";
import { MIB, MINUTE, route } from "./_services.ts";

export const chatCompletions = route({
  method: "POST",
  path: "/v1/chat/completions",
  dialect: openai,
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE },
  body: ChatBody,
  reply: [
    { status: 200, contentType: "application/json", schema: ChatCompletionReply, doc: "The completion." },
    {
      status: 200,
      contentType: "text/event-stream",
      schema: ChatChunk,
      doc: "With `stream: true`: one chunk an event, then `[DONE]`.",
    },
    ...failures,
  ],
  audit: "metadata",
  doc: "Create a chat completion.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const { call, print: asked } = decodeChat(body, capsFor(services.caps, caller.principal.caps));
    const print = { ...asked, tokensAsIds: body.return_tokens_as_token_ids ?? services.tokensAsIds };
    const identity = identify("chatcmpl", body.request_id ?? requestId, call.model, services, caller);
    const output = { ...call.output, callId: identity.id };
    const answer = chat(caller, services.serving, { ...call, output }, signal);
    if (print.stream) return events(chatFrames(answer, print, identity, call.output.n));
    return json(await encodeChat(answer, print, identity));
  },
});
