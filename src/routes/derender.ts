/**
 * POST /v1/chat/completions/derender and /v1/completions/derender
 */
import { Fault } from "#core/fault.ts";
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { derenderChat, derenderChatPart, derenderCompletion, derenderCompletionPart } from "#serving/derender.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { encodeChat } from "#wire/openai/chat-encode.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { encodeCompletion } from "#wire/openai/completion-encode.ts";
import { openai } from "#wire/openai/dialect.ts";
import type { Identity } from "#wire/openai/frames.ts";
import { ChatCompletionReply, CompletionReply } from "#wire/openai/replies.ts";
import { ChatDerenderBody, CompletionDerenderBody, decodeDerender } from "#wire/vllm/derender.ts";
import {
  ChatPartReply,
  CompletionPartReply,
  type DecodedPart,
  decodePart,
  encodeChatPart,
  encodeCompletionPart,
  type PartHead,
} from "#wire/vllm/derender-stream.ts";
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
    {
      status: 200,
      contentType: "application/json",
      schema: ChatCompletionReply.or(ChatPartReply),
      doc: "The completion; with `stream` a chunk of it.",
    },
    ...failures,
  ],
  audit: "none",
  doc: "The chat completion that generated token ids are.",
  handler: async ({ caller, body, requestId, services }) => {
    const caps = capsFor(services.caps, caller.principal.caps);
    const asked = { ...body.chat_request, model: body.model ?? body.chat_request.model };
    const { call, print } = decodeChat(asked, caps);
    const identity = identify("chatcmpl", asked.request_id ?? requestId, call.model, services, caller);
    if (body.stream) {
      const decoded = decodePart(body, caps);
      const piece = await derenderChatPart(caller, services.serving, call, decoded.part);
      return json(encodeChatPart(piece, decoded, headOf("chatcmpl", identity, decoded)));
    }
    const drawn = decodeDerender(body, caps);
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
    {
      status: 200,
      contentType: "application/json",
      schema: CompletionReply.or(CompletionPartReply),
      doc: "The completion; with `stream` a chunk of it.",
    },
    ...failures,
  ],
  audit: "none",
  doc: "The text completion that generated token ids are.",
  handler: async ({ caller, body, requestId, services }) => {
    const caps = capsFor(services.caps, caller.principal.caps);
    const asked = { ...body.completion_request, model: body.model ?? body.completion_request.model };
    const { call, print } = decodeCompletion(asked, caps);
    const identity = identify("cmpl", asked.request_id ?? requestId, call.model, services, caller);
    if (body.stream) {
      if (call.echo)
        throw new Fault("not_implemented", "echo is not supported in pieces.", { param: "completion_request.echo" });
      const decoded = decodePart(body, caps);
      const piece = derenderCompletionPart(caller, services.serving, call, decoded.part);
      return json(encodeCompletionPart(piece, decoded, headOf("cmpl", identity, decoded)));
    }
    const drawn = decodeDerender(body, caps);
    const answer = derenderCompletion(caller, services.serving, call, drawn);
    return json(await encodeCompletion(answer, { ...print, logprobs: undefined }, identity, call.output.n));
  },
});

/** All chunks of an answer have the id and the time of the engine's, where the client says them. */
function headOf(prefix: string, { id, created, usage }: Identity, given: DecodedPart): PartHead {
  const own = given.id === undefined || given.id.startsWith(`${prefix}-`) ? given.id : `${prefix}-${given.id}`;
  return { id: own ?? id, created: given.created ?? created, usage };
}
