/**
 * POST /v1/chat/completions/derender and /v1/completions/derender: what /inference/v1/generate answered, with the
 * request that it belongs to, → the answer of that request. Whole answers only.
 */
import { z } from "zod";
import { Fault, invalid } from "#core/fault.ts";
import type { FinishReason } from "#core/generate.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { requireList, requireObject, requireTokenIds } from "#wire/openai/_compound.ts";
import { bool, int, shape } from "#wire/openai/_fields.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";

const GENERATED = { type: "object", required: ["choices"], properties: { choices: { type: "array" } } };
const IDS = { type: "array", items: { type: "integer", minimum: 0 } };

const shared = {
  generate_response: z.unknown().meta({ anyOf: [GENERATED, { type: "array", items: GENERATED }] }),
  prompt_tokens: int.nonnegative().nullish(),
  prompt_token_ids: shape(IDS),
  stream: bool.nullish(),
  stream_state: shape({ type: "object", description: "Refused with 501, as stream." }),
};

export const ChatDerenderBody = z.object({ ...shared, chat_request: ChatBody });
export const CompletionDerenderBody = z.object({ ...shared, completion_request: CompletionBody });

type Body = z.infer<z.ZodObject<typeof shared>>;

export interface DecodedDerender {
  readonly choices: readonly { readonly tokens: readonly number[]; readonly reason: FinishReason }[];
  readonly promptTokens: number | undefined;
  readonly field: string;
}

const REASONS: ReadonlySet<unknown> = new Set(["stop", "length", "abort", "repetition"] satisfies FinishReason[]);
const FIELD = "generate_response.choices";

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeDerender(body: Body, caps: RequestCaps): DecodedDerender {
  const parts = body.stream ? "stream" : (body.stream_state ?? null) === null ? undefined : "stream_state";
  if (parts !== undefined)
    throw new Fault("not_implemented", "Only whole answers are derendered by this server yet.", { param: parts });
  const given = body.generate_response;
  const responses = Array.isArray(given) ? requireList(given, "generate_response", caps.completionPrompts) : [given];
  const entries = responses.flatMap((response) =>
    requireList(requireObject(response, "generate_response").choices, FIELD, caps.choices),
  );
  if (entries.length === 0) throw invalid(FIELD, `${FIELD} must hold at least one choice.`);
  if (entries.length > caps.choices) throw invalid(FIELD, `${FIELD} holds at most ${caps.choices} choices.`);
  // Wall: T10, all choices together: each token is read by a parser.
  let left = caps.derenderTokens;
  const choices = entries.map((entry, i) => {
    const choice = requireObject(entry, `${FIELD}.${i}`);
    const tokens = requireTokenIds(choice.token_ids, `${FIELD}.${i}.token_ids`, left);
    left -= tokens.length;
    return { tokens, reason: decodeReason(choice.finish_reason, `${FIELD}.${i}.finish_reason`) };
  });
  const ids = body.prompt_token_ids ?? undefined;
  const prompt = ids === undefined ? undefined : requireTokenIds(ids, "prompt_token_ids", caps.derenderTokens).length;
  return { choices, promptTokens: body.prompt_tokens ?? prompt, field: FIELD };
}

function decodeReason(value: unknown, param: string): FinishReason {
  if (value === undefined || value === null) return "length";
  if (!REASONS.has(value)) throw invalid(param, `${param} must be stop, length, abort or repetition.`);
  return value as FinishReason;
}
