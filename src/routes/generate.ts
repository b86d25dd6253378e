/**
 * POST /inference/v1/generate
 */
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { events, json } from "#http/reply.ts";
import { complete } from "#serving/complete.ts";
import { openai } from "#wire/openai/dialect.ts";
import { decodeGenerate, GenerateBody } from "#wire/vllm/generate.ts";
import { encodeGenerate, GenerateChunk, GenerateReply, generateFrames } from "#wire/vllm/generate-encode.ts";
import { failures, identify } from "./_answers.ts";
import { MIB, MINUTE, route } from "./_services.ts";

export const generate = route({
  method: "POST",
  path: "/inference/v1/generate",
  dialect: openai,
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE },
  body: GenerateBody,
  reply: [
    { status: 200, contentType: "application/json", schema: GenerateReply, doc: "The token ids." },
    {
      status: 200,
      contentType: "text/event-stream",
      schema: GenerateChunk,
      doc: "With `stream: true`: one chunk an event, then `[DONE]`.",
    },
    ...failures,
  ],
  audit: "metadata",
  doc: "Continue token ids with token ids.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const { call, print: asked } = decodeGenerate(body, capsFor(services.caps, caller.principal.caps));
    const print = { ...asked, tokensAsIds: services.tokensAsIds };
    const id = body.request_id ?? requestId;
    const identity = { ...identify("generate", id, call.model, services, caller), id };
    const output = { ...call.output, callId: id };
    const answer = complete(caller, services.serving, { ...call, output }, signal, "token_ids");
    if (print.stream) return events(generateFrames(answer, print, identity));
    return json(await encodeGenerate(answer, print, identity));
  },
});
