/**
 * POST /rerank, after vLLM's RerankRequest (vllm/entrypoints/pooling/scoring/protocol.py): Jina's and Cohere's shape.
 */
import { z } from "zod";
import type { ScoreAnswer, ScoreCall } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { int } from "#wire/openai/_fields.ts";
import { decodeScoring, scoringFields } from "./_scoring.ts";
import { decodeText, decodeTexts, type GivenText, ONE_TEXT_DOC, TEXTS_DOC } from "./_texts.ts";

export const RerankBody = z.object({
  ...scoringFields,
  query: z.unknown().meta(ONE_TEXT_DOC),
  documents: z.unknown().meta(TEXTS_DOC),
  top_n: int.optional(),
});

export interface DecodedRerank {
  readonly call: ScoreCall;
  readonly documents: readonly GivenText[];
  /** Results at most. */
  readonly top: number;
}

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeRerank(body: z.infer<typeof RerankBody>, caps: RequestCaps): DecodedRerank {
  const queries = [decodeText(body.query, "query", caps)];
  const documents = decodeTexts(body.documents, "documents", caps);
  const call = decodeScoring(body, { queries, documents }, ["query", "documents"], caps);
  const top = body.top_n ?? 0;
  return { call: { ...call, api: "Rerank" }, documents, top: top > 0 ? top : documents.length };
}

const count = z.int().min(0);

export const RerankReply = z.object({
  id: z.string().startsWith("rerank-"),
  model: z.string(),
  usage: z.object({ prompt_tokens: count, total_tokens: count }),
  results: z.array(
    z.object({
      index: count,
      document: z.object({
        text: z.string().nullable(),
        multi_modal: z.array(z.object({ type: z.literal("text"), text: z.string() })).nullable(),
      }),
      relevance_score: z.number(),
    }),
  ),
});

/** The best first; of equals the one that was given first. */
export function encodeRerank(
  { model, scores, usage }: ScoreAnswer,
  id: string,
  { documents, top }: Pick<DecodedRerank, "documents" | "top">,
): z.infer<typeof RerankReply> {
  const order = scores.map((_, index) => index).sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0));
  return {
    id,
    model,
    usage: { prompt_tokens: usage.promptTokens, total_tokens: usage.promptTokens },
    results: order.slice(0, top).map((index) => ({
      index,
      document: printDocument(documents[index]),
      relevance_score: scores[index] ?? 0,
    })),
  };
}

function printDocument(document: GivenText | undefined) {
  const parts = document?.parts;
  return parts === undefined
    ? { text: document?.text ?? null, multi_modal: null }
    : { text: null, multi_modal: [...parts] };
}
