/**
 * POST /v1/chat/completions/batch
 */
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { chatEach } from "#serving/chat.ts";
import { ChatBatchBody, decodeChatBatch } from "#wire/openai/chat-batch.ts";
import { encodeChat } from "#wire/openai/chat-encode.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ChatCompletionReply } from "#wire/openai/replies.ts";
import { failures, identify } from "./_answers.ts";
import { MIB, MINUTE, route } from "./_services.ts";

export const chatBatch = route({
  method: "POST",
  path: "/v1/chat/completions/batch",
  dialect: openai,
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE },
  body: ChatBatchBody,
  reply: [
    { status: 200, contentType: "application/json", schema: ChatCompletionReply, doc: "A choice a conversation." },
    ...failures,
  ],
  audit: "metadata",
  doc: "Answer several conversations at once.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const { calls, print: asked, speakers } = decodeChatBatch(body, capsFor(services.caps, caller.principal.caps));
    const print = { ...asked, tokensAsIds: body.return_tokens_as_token_ids ?? services.tokensAsIds };
    const identity = identify("chatcmpl", body.request_id ?? requestId, calls[0]?.model, services, caller);
    const named = calls.map((call) => ({ ...call, output: { ...call.output, callId: identity.id } }));
    const answer = chatEach(caller, services.serving, named, signal);
    return json(await encodeChat(answer, print, identity, speakers));
  },
});
