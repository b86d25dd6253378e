/**
 * POST /classify, /score, /rerank and /generative_scoring, some under several paths
 */
import type { Dialect } from "#core/dialect.ts";
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { scoreLabels } from "#serving/generative-scoring.ts";
import { pool } from "#serving/pool.ts";
import { score as scoreTexts } from "#serving/score.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ClassifyBody, ClassifyReply, decodeClassify, encodeClassify } from "#wire/pooling/classify.ts";
import { cohere } from "#wire/pooling/dialect.ts";
import { decodeGenerativeScoring, GenerativeScoringBody } from "#wire/pooling/generative-scoring.ts";
import { decodeRerank, encodeRerank, RerankBody, RerankReply } from "#wire/pooling/rerank.ts";
import { decodeScore, encodeScore, ScoreBody, ScoreReply } from "#wire/pooling/score.ts";
import { failures, identify } from "./_answers.ts";
import { MIB, MINUTE, route } from "./_services.ts";

const limits = { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE };

export const classify = route({
  method: "POST",
  path: "/classify",
  dialect: openai,
  access: key("embeddings"),
  plane: "public",
  limits,
  body: ClassifyBody,
  reply: [
    { status: 200, contentType: "application/json", schema: ClassifyReply, doc: "The classes' shares, an input each." },
    ...failures,
  ],
  audit: "metadata",
  doc: "Classes of texts, of token ids or of a conversation.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const call = decodeClassify(body, capsFor(services.caps, caller.principal.caps));
    const heading = identify("classify", body.request_id ?? requestId, call.model, services, caller);
    return json(encodeClassify(await pool(caller, services.serving, { ...call, callId: heading.id }, signal), heading));
  },
});

function scoreRoute(path: "/score" | "/v1/score") {
  return route({
    method: "POST",
    path,
    dialect: openai,
    access: key("embeddings"),
    plane: "public",
    limits,
    body: ScoreBody,
    reply: [{ status: 200, contentType: "application/json", schema: ScoreReply, doc: "A score a pair." }, ...failures],
    audit: "metadata",
    doc: "How well texts match: one against many, or pair by pair.",
    handler: async ({ caller, body, requestId, signal, services }) => {
      const call = decodeScore(body, capsFor(services.caps, caller.principal.caps));
      const heading = identify("score", body.request_id ?? requestId, call.model, services, caller);
      return json(
        encodeScore(await scoreTexts(caller, services.serving, { ...call, callId: heading.id }, signal), heading),
      );
    },
  });
}

export const score = scoreRoute("/score");
export const scoreV1 = scoreRoute("/v1/score");

function rerankRoute(path: "/rerank" | "/v1/rerank" | "/v2/rerank", dialect: Dialect) {
  return route({
    method: "POST",
    path,
    dialect,
    access: key("embeddings"),
    plane: "public",
    limits,
    body: RerankBody,
    reply: [
      { status: 200, contentType: "application/json", schema: RerankReply, doc: "Documents, the best first." },
      ...failures,
    ],
    audit: "metadata",
    doc: "Order documents by how well they match a query.",
    handler: async ({ caller, body, requestId, signal, services }) => {
      const decoded = decodeRerank(body, capsFor(services.caps, caller.principal.caps));
      const { id } = identify("rerank", body.request_id ?? requestId, decoded.call.model, services, caller);
      const answer = await scoreTexts(caller, services.serving, { ...decoded.call, callId: id }, signal);
      return json(encodeRerank(answer, id, decoded));
    },
  });
}

export const rerank = rerankRoute("/rerank", openai);
export const rerankV1 = rerankRoute("/v1/rerank", openai);
export const rerankV2 = rerankRoute("/v2/rerank", cohere);

export const generativeScoring = route({
  method: "POST",
  path: "/generative_scoring",
  dialect: openai,
  access: key("embeddings"),
  plane: "public",
  limits,
  body: GenerativeScoringBody,
  reply: [
    { status: 200, contentType: "application/json", schema: ScoreReply, doc: "The first label's share, an item each." },
    ...failures,
  ],
  audit: "metadata",
  doc: "How likely a model that generates goes on with one of some tokens.",
  handler: async ({ caller, body, requestId, signal, services }) => {
    const call = decodeGenerativeScoring(body, capsFor(services.caps, caller.principal.caps));
    const heading = identify("generative-scoring", body.request_id ?? requestId, call.model, services, caller);
    return json(
      encodeScore(await scoreLabels(caller, services.serving, { ...call, callId: heading.id }, signal), heading),
    );
  },
});
