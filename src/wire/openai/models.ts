/**
 * GET /v1/models as vLLM prints it, and one of its cards, without paths: `root` is the served name.
 */
import { z } from "zod";

export interface ModelCard {
  readonly name: string;
  /** Unix seconds. */
  readonly createdAt: number;
  /** Tokens. */
  readonly contextLength: number;
  /** Of a LoRA adapter: a name of the model that it changes, if the caller may know one. */
  readonly parent?: string;
  /** Of a LoRA adapter: of what was loaded. */
  readonly sha256?: string;
}

export const Model = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  root: z.string(),
  parent: z.string().nullable(),
  max_model_len: z.int(),
  sha256: z.string().optional(),
  permission: z.array(z.looseObject({ id: z.string(), object: z.literal("model_permission") })),
});

export const ModelList = z.object({ object: z.literal("list"), data: z.array(Model) });

export function encodeModels(cards: readonly ModelCard[]): z.infer<typeof ModelList> {
  return { object: "list", data: cards.map(encodeCard) };
}

export function encodeCard(card: ModelCard): z.infer<typeof Model> {
  return {
    id: card.name,
    object: "model",
    created: card.createdAt,
    // What clients that tell servers apart look for.
    owned_by: "vllm",
    root: card.name,
    parent: card.parent ?? null,
    max_model_len: card.contextLength,
    ...(card.sha256 === undefined ? {} : { sha256: card.sha256 }),
    permission: [encodePermission(card)],
  };
}

/** One of the oldest parts of OpenAI's API: constant here, and some clients still read it. */
function encodePermission(card: ModelCard) {
  return {
    id: `modelperm-${card.name}`,
    object: "model_permission" as const,
    created: card.createdAt,
    allow_create_engine: false,
    allow_sampling: true,
    allow_logprobs: true,
    allow_search_indices: false,
    allow_view: true,
    allow_fine_tuning: false,
    organization: "*",
    group: null,
    is_blocking: false,
  };
}
