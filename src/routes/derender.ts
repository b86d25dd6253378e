/**
 * POST /v1/chat/completions/derender and /v1/completions/derender
 */
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { derenderChat, derenderCompletion } from "#serving/derender.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { encodeChat } from "#wire/openai/chat-encode.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { encodeCompletion } from "#wire/openai/completion-encode.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ChatCompletionReply, CompletionReply } from "#wire/openai/replies.ts";
import { ChatDerenderBody, CompletionDerenderBody, decodeDerender } from "#wire/vllm/derender.ts";
import { failures, identify } from "./_answers.ts";
import { MIB, route, SECOND } from "./_services.ts";

const limits = { bodyBytes: 8 * MIB, timeoutMs: 30 * SECOND };

export const chatDerender = route({
  method: "POST",
  path: "/v1/chat/completions/derender",
  dialect: openai,
  access: key("tokenize"),
  plane: "public",
  limits,
  body: ChatDerenderBody,
  reply: [
    { status: 200, contentType: "application/json", schema: ChatCompletionReply, doc: "The completion." },
    ...failures,
  ],
  audit: "none",
  doc: "The chat completion that generated token ids are.",
  handler: async ({ caller, body, requestId, services }) => {
    const caps = capsFor(services.caps, caller.principal.caps);
    const drawn = decodeDerender(body, caps);
    const { call, print } = decodeChat(body.chat_request, caps);
    const id = body.chat_request.request_id ?? requestId;
    const identity = identify("chatcmpl", id, call.model, services, caller);
    return json(await encodeChat(derenderChat(caller, services.serving, call, drawn), print, identity));
  },
});

export const completionDerender = route({
  method: "POST",
  path: "/v1/completions/derender",
  dialect: openai,
  access: key("tokenize"),
  plane: "public",
  limits,
  body: CompletionDerenderBody,
  reply: [
    { status: 200, contentType: "application/json", schema: CompletionReply, doc: "The completion." },
    ...failures,
  ],
  audit: "none",
  doc: "The text completion that generated token ids are.",
  handler: async ({ caller, body, requestId, services }) => {
    const caps = capsFor(services.caps, caller.principal.caps);
    const drawn = decodeDerender(body, caps);
    const { call, print } = decodeCompletion(body.completion_request, caps);
    const id = body.completion_request.request_id ?? requestId;
    const identity = identify("cmpl", id, call.model, services, caller);
    const answer = derenderCompletion(caller, services.serving, call, drawn);
    return json(await encodeCompletion(answer, { ...print, logprobs: undefined }, identity, call.output.n));
  },
});
