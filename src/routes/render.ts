/**
 * POST /v1/chat/completions/render, /v1/completions/render and /v1/messages/render: the tokenizer's work, no engine's
 */
import { z } from "zod";
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { renderChat, renderCompletion } from "#serving/render.ts";
import { anthropic } from "#wire/anthropic/dialect.ts";
import { decodeMessages } from "#wire/anthropic/messages-decode.ts";
import { MessagesBody } from "#wire/anthropic/messages-schema.ts";
import { MessageErrorReply } from "#wire/anthropic/replies.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { openai } from "#wire/openai/dialect.ts";
import {
  ChatRenderBody,
  CompletionRenderBody,
  encodeRendered,
  RenderReply,
  refuseOwnFields,
  tagOf,
} from "#wire/vllm/render.ts";
import { failures } from "./_answers.ts";
import { MIB, route, SECOND } from "./_services.ts";

const limits = { bodyBytes: 8 * MIB, timeoutMs: 30 * SECOND };
const rendered = {
  status: 200,
  contentType: "application/json",
  schema: RenderReply,
  doc: "A body for /inference/v1/generate.",
} as const;

export const chatRender = route({
  method: "POST",
  path: "/v1/chat/completions/render",
  dialect: openai,
  access: key("tokenize"),
  plane: "public",
  limits,
  body: ChatRenderBody,
  reply: [rendered, ...failures],
  audit: "none",
  doc: "A chat as the token ids and parameters with which it would be generated.",
  handler: async ({ caller, body, requestId, services }) => {
    refuseOwnFields(body);
    const { call, print } = decodeChat(body, capsFor(services.caps, caller.principal.caps));
    const { model, prompts } = await renderChat(caller, services.serving, call);
    const about = { ...call, id: `chatcmpl-${body.request_id ?? requestId}`, model, tag: tagOf(body), usage: print };
    return json(prompts.map((prompt) => encodeRendered(prompt, about))[0]);
  },
});

export const completionRender = route({
  method: "POST",
  path: "/v1/completions/render",
  dialect: openai,
  access: key("tokenize"),
  plane: "public",
  limits,
  body: CompletionRenderBody,
  reply: [
    { ...rendered, schema: z.array(RenderReply), doc: "A body for /inference/v1/generate a prompt." },
    ...failures,
  ],
  audit: "none",
  doc: "Prompts as the token ids and parameters with which they would be generated.",
  handler: async ({ caller, body, requestId, services }) => {
    refuseOwnFields(body);
    const { call, print } = decodeCompletion(body, capsFor(services.caps, caller.principal.caps));
    const { model, prompts } = await renderCompletion(caller, services.serving, call);
    const id = `cmpl-${body.request_id ?? requestId}`;
    return json(
      prompts.map((prompt, p) =>
        encodeRendered(prompt, { ...call, id: `${id}-${p}`, model, tag: tagOf(body), usage: print }),
      ),
    );
  },
});

const NO_USAGE = { includeUsage: false, continuousUsage: false };

export const messagesRender = route({
  method: "POST",
  path: "/v1/messages/render",
  dialect: anthropic,
  access: key("tokenize"),
  plane: "public",
  limits,
  body: MessagesBody,
  reply: [rendered, ...failures.map((declared) => ({ ...declared, schema: MessageErrorReply }))],
  audit: "none",
  doc: "A message's request as the token ids and parameters with which it would be generated.",
  handler: async ({ caller, body, requestId, services }) => {
    const { parsers } = services.serving.models.resolve(body.model, caller.principal);
    const caps = capsFor(services.caps, caller.principal.caps);
    const call = decodeMessages(body, caps, parsers.reasoning !== undefined);
    const { model, prompts } = await renderChat(caller, services.serving, call);
    const about = { ...call, id: `msg_${requestId}`, model, tag: undefined, usage: NO_USAGE };
    return json(prompts.map((prompt) => encodeRendered(prompt, about))[0]);
  },
});
