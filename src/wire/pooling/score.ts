/**
 * POST /score, after vLLM's ScoreRequest (vllm/entrypoints/pooling/scoring/protocol.py).
 */
import { z } from "zod";
import { invalid } from "#core/fault.ts";
import type { ScoreAnswer, ScoreCall } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { shape } from "#wire/openai/_fields.ts";
import { decodeScoring, scoringFields } from "./_scoring.ts";
import { decodeTexts, TEXTS_DOC } from "./_texts.ts";
import { PoolUsageReply, poolUsage } from "./_usage.ts";
import type { Heading } from "./vectors.ts";

/** The names that the two sides may have, the first pair that is there counts. */
const PAIRS = [
  ["queries", "documents"],
  ["queries", "items"],
  ["data_1", "data_2"],
  ["text_1", "text_2"],
] as const;

const SIDE = shape(TEXTS_DOC);

export const ScoreBody = z.object({
  ...scoringFields,
  queries: SIDE,
  documents: SIDE,
  items: SIDE,
  data_1: SIDE,
  data_2: SIDE,
  text_1: SIDE,
  text_2: SIDE,
});

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeScore(body: z.infer<typeof ScoreBody>, caps: RequestCaps): ScoreCall {
  const given = (name: (typeof PAIRS)[number][number]): boolean => body[name] !== undefined && body[name] !== null;
  const fields = PAIRS.find(([first, second]) => given(first) && given(second));
  if (fields === undefined)
    throw invalid(
      "queries",
      "Two sides are required: queries and documents, queries and items, data_1 and data_2, or text_1 and text_2.",
    );
  const [first, second] = fields;
  const sides = {
    queries: decodeTexts(body[first], first, caps),
    documents: decodeTexts(body[second], second, caps),
  };
  return decodeScoring(body, sides, fields, caps);
}

/** Also what /generative_scoring answers. */
export const ScoreReply = z.object({
  id: z.string(),
  object: z.literal("list"),
  created: z.int(),
  model: z.string(),
  data: z.array(z.object({ index: z.int().min(0), object: z.literal("score"), score: z.number() })),
  usage: PoolUsageReply,
});

export function encodeScore(
  { model, scores, usage }: ScoreAnswer,
  { id, created }: Heading,
): z.infer<typeof ScoreReply> {
  return {
    id,
    object: "list",
    created,
    model,
    data: scores.map((score, index) => ({ index, object: "score", score })),
    usage: poolUsage(usage),
  };
}
