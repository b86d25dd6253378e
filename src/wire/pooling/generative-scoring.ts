/**
 * POST /generative_scoring, after vLLM's GenerativeScoringRequest. It answers in the shape of /score.
 */
import { z } from "zod";
import type { Prompt } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { LabelCall } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { requireTokenIds } from "#wire/openai/_compound.ts";
import { bool, int64, shape } from "#wire/openai/_fields.ts";
import { decodeSalt } from "#wire/openai/_output.ts";
import { decodePrompts } from "#wire/openai/_prompts.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";

const IDS = { type: "array", items: { type: "integer", minimum: 0 } };

export const GenerativeScoringBody = z.object({
  model: z.string().nullish(),
  query: z.unknown().meta({ anyOf: [{ type: "string" }, IDS] }),
  items: z.unknown().meta({
    anyOf: [
      { type: "array", items: { type: "string" } },
      { type: "array", items: IDS },
    ],
  }),
  label_token_ids: shape(IDS),
  apply_softmax: bool.optional(),
  item_first: bool.optional(),
  add_special_tokens: bool.optional(),
  cache_salt: z.string().nullish(),
  priority: int64.optional(),
  request_id: z.string().max(256).optional(),
});

/** @throws Fault invalid_request naming the field */
export function decodeGenerativeScoring(body: z.infer<typeof GenerativeScoringBody>, caps: RequestCaps): LabelCall {
  const labels = requireTokenIds(body.label_token_ids ?? [], "label_token_ids", caps.logprobTokenIds);
  if (labels.length === 0) throw invalid("label_token_ids", "label_token_ids must contain at least one token ID.");
  return dropAbsent<LabelCall>({
    model: body.model ?? undefined,
    query: decodeQuery(body.query),
    items: decodeItems(body.items, caps),
    labels,
    amongLabels: body.apply_softmax ?? true,
    itemFirst: body.item_first ?? false,
    addSpecialTokens: body.add_special_tokens ?? true,
    cacheSalt: decodeSalt(body.cache_salt),
    priority: body.priority,
    callId: undefined,
  });
}

function decodeQuery(value: unknown): Prompt {
  return typeof value === "string" ? value : requireTokenIds(value, "query", Number.POSITIVE_INFINITY);
}

function decodeItems(value: unknown, caps: RequestCaps): readonly Prompt[] {
  if (!Array.isArray(value) || typeof value[0] === "number")
    throw invalid("items", "items must be a list of strings or a list of lists of token ids.");
  return decodePrompts(value, "items", caps.poolingInputs);
}
