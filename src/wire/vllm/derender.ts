/**
 * POST /v1/chat/completions/derender and /v1/completions/derender: what /inference/v1/generate answered, with the
 * request that it belongs to, → the answer of that request. In pieces: derender-stream.ts.
 */
import { z } from "zod";
import { invalid } from "#core/fault.ts";
import type { FinishReason } from "#core/generate.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { requireList, requireObject, requireTokenIds } from "#wire/openai/_compound.ts";
import { bool, int, shape } from "#wire/openai/_fields.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";

const GENERATED = { type: "object", required: ["choices"], properties: { choices: { type: "array" } } };
const IDS = { type: "array", items: { type: "integer", minimum: 0 } };

const shared = {
  model: z.string().nullish(),
  generate_response: shape({ anyOf: [GENERATED, { type: "array", items: GENERATED }] }),
  prompt_tokens: int.nonnegative().nullish(),
  prompt_token_ids: shape(IDS),
  stream: bool.nullish(),
  generate_chunk: shape({ ...GENERATED, description: "With stream: one chunk, of at most one choice." }),
  stream_state: shape({ type: "object", description: "With stream: what came with the chunk before." }),
};
const COUNTS = {
  anyOf: [
    { type: "integer", minimum: 0 },
    { type: "array", items: { type: "integer", minimum: 0 } },
  ],
};

export const ChatDerenderBody = z.object({ ...shared, chat_request: ChatBody });
export const CompletionDerenderBody = z.object({
  ...shared,
  completion_request: CompletionBody,
  generate_responses: shape({ type: "array", items: GENERATED }),
  prompt_tokens: shape(COUNTS),
});

interface Body {
  readonly generate_response?: unknown;
  readonly generate_responses?: unknown;
  readonly prompt_tokens?: unknown;
  readonly prompt_token_ids?: unknown;
  readonly stream_state?: unknown;
  readonly generate_chunk?: unknown;
}

export interface DecodedDerender {
  readonly choices: readonly { readonly tokens: readonly number[]; readonly reason: FinishReason }[];
  readonly promptTokens: number | undefined;
  readonly field: string;
}

const REASONS: ReadonlySet<unknown> = new Set(["stop", "length", "abort", "repetition"] satisfies FinishReason[]);

/** @throws Fault invalid_request naming the field */
export function decodeDerender(body: Body, caps: RequestCaps): DecodedDerender {
  for (const field of ["generate_chunk", "stream_state"] as const)
    if (isGiven(body[field])) throw invalid(field, `${field} goes with stream: true.`);
  const name = isGiven(body.generate_responses) ? "generate_responses" : "generate_response";
  const given = body[name];
  const responses =
    Array.isArray(given) || name === "generate_responses" ? requireList(given, name, caps.completionPrompts) : [given];
  const field = `${name}.choices`;
  const entries = responses.flatMap((response) =>
    requireList(requireObject(response, name).choices, field, caps.choices),
  );
  if (entries.length === 0) throw invalid(field, `${field} must hold at least one choice.`);
  if (entries.length > caps.choices) throw invalid(field, `${field} holds at most ${caps.choices} choices.`);
  // Wall: T10, all choices together: each token is read by a parser.
  let left = caps.derenderTokens;
  const choices = entries.map((entry, i) => {
    const choice = requireObject(entry, `${field}.${i}`);
    const tokens = requireTokenIds(choice.token_ids, `${field}.${i}.token_ids`, left);
    left -= tokens.length;
    return { tokens, reason: decodeReason(choice.finish_reason, `${field}.${i}.finish_reason`) };
  });
  const ids = body.prompt_token_ids ?? undefined;
  const prompt = ids === undefined ? undefined : requireTokenIds(ids, "prompt_token_ids", caps.derenderTokens).length;
  return { choices, promptTokens: decodeCounts(body.prompt_tokens, responses.length) ?? prompt, field };
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** One number, or one a response. @throws Fault invalid_request */
export function decodeCounts(value: unknown, responses: number): number | undefined {
  if (!isGiven(value)) return undefined;
  const counts = Array.isArray(value) ? requireTokenCounts(value) : requireTokenCounts([value]);
  if (Array.isArray(value) && value.length !== responses)
    throw invalid("prompt_tokens", `prompt_tokens has ${value.length} entries, for ${responses} responses.`);
  return counts.reduce((sum, count) => sum + count, 0);
}

function requireTokenCounts(list: readonly unknown[]): readonly number[] {
  if (!list.every((count) => Number.isSafeInteger(count) && (count as number) >= 0))
    throw invalid("prompt_tokens", "prompt_tokens must hold whole numbers from 0 up.");
  return list as readonly number[];
}

export function decodeReason(value: unknown, param: string): FinishReason {
  if (value === undefined || value === null) return "length";
  if (!REASONS.has(value)) throw invalid(param, `${param} must be stop, length, abort or repetition.`);
  return value as FinishReason;
}
