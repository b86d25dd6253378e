/**
 * GET /v1/models as Anthropic's clients read it: pages of models.
 */
import { z } from "zod";
import { invalid } from "#core/fault.ts";
import type { ModelCard } from "#wire/openai/models.ts";

/** Strings, as they stand in a URL: OpenAI's clients, who share the path, may write anything there. */
export const ModelPageQuery = z.object({
  limit: z.string().max(256).optional(),
  after_id: z.string().max(256).optional(),
  before_id: z.string().max(256).optional(),
});

export const AnthropicModel = z.object({
  type: z.literal("model"),
  id: z.string(),
  display_name: z.string(),
  created_at: z.iso.datetime(),
  max_input_tokens: z.int(),
  max_tokens: z.int(),
  capabilities: z.null(),
  lifecycle: z.literal("active"),
  line: z.null(),
  deprecated_at: z.null(),
  retires_at: z.null(),
});

export const AnthropicModelList = z.object({
  data: z.array(AnthropicModel),
  has_more: z.boolean(),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
});

/** Anthropic's own. */
const PAGE = 20;
const LONGEST_PAGE = 1000;

/** @throws Fault invalid_request naming the parameter */
export function encodeModelPage(
  cards: readonly ModelCard[],
  query: z.infer<typeof ModelPageQuery>,
): z.infer<typeof AnthropicModelList> {
  const limit = decodeLimit(query.limit);
  const { after_id: after, before_id: before } = query;
  if (after !== undefined && before !== undefined)
    throw invalid("before_id", "Give either after_id or before_id, not both.");
  const from = after === undefined ? 0 : placeOf(cards, after, "after_id") + 1;
  const end = before === undefined ? cards.length : placeOf(cards, before, "before_id");
  const page = before === undefined ? cards.slice(from, from + limit) : cards.slice(Math.max(0, end - limit), end);
  return {
    data: page.map(encodeModel),
    has_more: page.length < end - from,
    first_id: page[0]?.name ?? null,
    last_id: page.at(-1)?.name ?? null,
  };
}

function decodeLimit(value: string | undefined): number {
  if (value === undefined) return PAGE;
  const limit = /^\d{1,4}$/.test(value) ? Number(value) : 0;
  if (limit < 1 || limit > LONGEST_PAGE) throw invalid("limit", `limit lies between 1 and ${LONGEST_PAGE}.`);
  return limit;
}

function placeOf(cards: readonly ModelCard[], name: string, field: string): number {
  const at = cards.findIndex((card) => card.name === name);
  if (at < 0) throw invalid(field, `${field} names no model.`);
  return at;
}

export function encodeModel({ name, createdAt, contextLength }: ModelCard): z.infer<typeof AnthropicModel> {
  return {
    type: "model",
    id: name,
    display_name: name,
    created_at: new Date(createdAt * 1000).toISOString(),
    // Prompt and answer share one window.
    max_input_tokens: contextLength,
    max_tokens: contextLength,
    capabilities: null,
    lifecycle: "active",
    line: null,
    deprecated_at: null,
    retires_at: null,
  };
}
