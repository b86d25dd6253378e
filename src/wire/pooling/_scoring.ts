/**
 * What scoring and reranking have in common.
 */
import { z } from "zod";
import type { ScoreCall } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { int } from "#wire/openai/_fields.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";
import { decodeKwargs } from "#wire/openai/_template.ts";
import { basicFields, decodeOptions } from "./_fields.ts";
import type { GivenText } from "./_texts.ts";

export const scoringFields = {
  ...basicFields,
  max_tokens_per_query: int.gte(0).optional(),
  max_tokens_per_doc: int.gte(0).optional(),
};

const Scoring = z.object(scoringFields);

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeScoring(
  body: z.infer<typeof Scoring>,
  sides: { readonly queries: readonly GivenText[]; readonly documents: readonly GivenText[] },
  fields: ScoreCall["fields"],
  caps: RequestCaps,
): ScoreCall {
  return dropAbsent<ScoreCall>({
    ...decodeOptions(body),
    api: "Score",
    queries: sides.queries.map(({ text }) => text),
    documents: sides.documents.map(({ text }) => text),
    fields,
    kwargs: decodeKwargs(body, caps),
    // 0 says nothing, as in vLLM.
    queryTokens: body.max_tokens_per_query === 0 ? undefined : body.max_tokens_per_query,
    documentTokens: body.max_tokens_per_doc === 0 ? undefined : body.max_tokens_per_doc,
  });
}
