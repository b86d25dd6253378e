/**
 * POST /v1/embeddings, /v2/embed and /pooling
 */

import type { PoolAnswer } from "#core/pool-calls.ts";
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { bytes, jsonText, type Reply } from "#http/reply.ts";
import type { ReplyDeclaration } from "#http/route.ts";
import { pool } from "#serving/pool.ts";
import { openai } from "#wire/openai/dialect.ts";
import { CohereEmbedBody, CohereEmbedReply, decodeCohere, encodeCohere } from "#wire/pooling/cohere.ts";
import { cohere } from "#wire/pooling/dialect.ts";
import type { DecodedVectors } from "#wire/pooling/embeddings.ts";
import { decodeEmbeddings, EmbeddingsBody, EmbeddingsReply, encodeEmbeddings } from "#wire/pooling/embeddings.ts";
import { decodePooling, encodePooling, PoolingBody, PoolingReply } from "#wire/pooling/pooling.ts";
import { bytesAnswer, type Heading } from "#wire/pooling/vectors.ts";
import { failures, identify } from "./_answers.ts";
import { MIB, MINUTE, route } from "./_services.ts";

const limits = { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE };

const raw: ReplyDeclaration = {
  status: 200,
  contentType: "application/octet-stream",
  doc: "With `encoding_format` bytes or bytes_only: the numbers' bytes; the header `metadata` says where each stands.",
};

async function print(
  answer: PoolAnswer,
  heading: Heading,
  { format }: DecodedVectors,
  encode: typeof encodeEmbeddings,
): Promise<Reply> {
  if (format.encoding === "float" || format.encoding === "base64")
    return jsonText(await encode(answer, heading, format));
  const { body, headers } = bytesAnswer(answer, heading, format);
  return bytes(body, headers);
}

export const embeddings = route({
  method: "POST",
  path: "/v1/embeddings",
  dialect: openai,
  access: key("embeddings"),
  plane: "public",
  limits,
  body: EmbeddingsBody,
  reply: [
    { status: 200, contentType: "application/json", schema: EmbeddingsReply, doc: "A vector an input." },
    raw,
    ...failures,
  ],
  audit: "metadata",
  doc: "Embeddings of texts, of token ids or of a conversation.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const decoded = decodeEmbeddings(body, capsFor(services.caps, caller.principal.caps));
    const heading = identify("embd", body.request_id ?? requestId, decoded.call.model, services, caller);
    const answer = await pool(caller, services.serving, { ...decoded.call, callId: heading.id }, signal);
    return print(answer, heading, decoded, encodeEmbeddings);
  },
});

export const pooling = route({
  method: "POST",
  path: "/pooling",
  dialect: openai,
  access: key("embeddings"),
  plane: "public",
  limits,
  body: PoolingBody,
  reply: [
    {
      status: 200,
      contentType: "application/json",
      schema: PoolingReply,
      doc: "A vector an input, or one a token of it.",
    },
    raw,
    ...failures,
  ],
  audit: "metadata",
  doc: "What the model's pooler gives: vectors of inputs, of their tokens, or classes.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const decoded = decodePooling(body, capsFor(services.caps, caller.principal.caps));
    const heading = identify("pool", body.request_id ?? requestId, decoded.call.model, services, caller);
    const answer = await pool(caller, services.serving, { ...decoded.call, callId: heading.id }, signal);
    return print(answer, heading, decoded, encodePooling);
  },
});

export const cohereEmbed = route({
  method: "POST",
  path: "/v2/embed",
  dialect: cohere,
  access: key("embeddings"),
  plane: "public",
  limits,
  body: CohereEmbedBody,
  reply: [
    { status: 200, contentType: "application/json", schema: CohereEmbedReply, doc: "A vector a text, by type." },
    ...failures,
  ],
  audit: "metadata",
  doc: "Embeddings of texts, as Cohere's API has them.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const decoded = decodeCohere(body, capsFor(services.caps, caller.principal.caps), services.embedPrefixes);
    const { id } = identify("embd", requestId, decoded.call.model, services, caller);
    const answer = await pool(caller, services.serving, { ...decoded.call, callId: id }, signal);
    return jsonText(await encodeCohere(answer, id, decoded));
  },
});
