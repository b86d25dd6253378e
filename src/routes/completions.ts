/**
 * POST /v1/completions
 */
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { events, json } from "#http/reply.ts";
import { complete } from "#serving/complete.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { encodeCompletion } from "#wire/openai/completion-encode.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { completionFrames } from "#wire/openai/completion-stream.ts";
import { openai } from "#wire/openai/dialect.ts";
import { CompletionChunk, CompletionReply } from "#wire/openai/replies.ts";
import { failures, identify } from "./_answers.ts";
import { MIB, MINUTE, route } from "./_services.ts";

export const completions = route({
  method: "POST",
  path: "/v1/completions",
  dialect: openai,
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE },
  body: CompletionBody,
  reply: [
    { status: 200, contentType: "application/json", schema: CompletionReply, doc: "The completion." },
    {
      status: 200,
      contentType: "text/event-stream",
      schema: CompletionChunk,
      doc: "With `stream: true`: one chunk an event, then `[DONE]`.",
    },
    ...failures,
  ],
  audit: "metadata",
  doc: "Complete one or more prompts.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const { call, print: asked } = decodeCompletion(body, capsFor(services.caps, caller.principal.caps));
    const print = { ...asked, tokensAsIds: body.return_tokens_as_token_ids ?? services.tokensAsIds };
    const identity = identify("cmpl", body.request_id ?? requestId, call.model, services, caller);
    const output = { ...call.output, callId: identity.id };
    const answer = complete(caller, services.serving, { ...call, output }, signal);
    if (print.stream) return events(completionFrames(answer, print, identity, call.output.n));
    return json(await encodeCompletion(answer, print, identity, call.output.n));
  },
});
