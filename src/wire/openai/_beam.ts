/**
 * `use_beam_search`: the beam width is `n`. What a search cannot take account of is refused by name, where vLLM drops it
 * in silence; what only sampling has (temperature, top_p, seed …) means nothing here and is taken.
 */
import type { OutputOptions } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { JsonObject } from "./_compound.ts";

/** Beyond this a power of the length is no number any more. */
const MOST_PENALTY = 50;

/** Each with what it has to be to ask for nothing. */
const UNSUPPORTED: readonly (readonly [field: string, asksNothing: (value: unknown) => boolean])[] = [
  ["stream", (value) => value === false],
  ["logprob_token_ids", () => false],
  ["stop", (value) => Array.isArray(value) && value.length === 0],
  ["min_tokens", (value) => value === 0],
  ["presence_penalty", (value) => value === 0],
  ["frequency_penalty", (value) => value === 0],
  ["repetition_penalty", (value) => value === 1],
  ["logit_bias", (value) => Object.keys(value as object).length === 0],
  ["allowed_token_ids", () => false],
  ["bad_words", (value) => Array.isArray(value) && value.length === 0],
  ["repetition_detection", () => false],
  ["thinking_token_budget", (value) => value === -1],
  ["response_format", (value) => (value as JsonObject)["type"] === "text"],
  ["structured_outputs", () => false],
  ["tool_choice", (value) => value === "none" || value === "auto"],
];

/** @param maxTokens the budget, if given @throws Fault invalid_request naming the field */
export function decodeBeam(body: JsonObject, maxTokens: number | undefined): OutputOptions["beam"] {
  if (body["use_beam_search"] !== true) return undefined;
  for (const [field, asksNothing] of UNSUPPORTED) {
    const value = body[field];
    if (value !== undefined && value !== null && !asksNothing(value))
      throw invalid(field, `${field} is not supported with beam search.`);
  }
  if (maxTokens === 0) throw invalid("max_tokens", "max_tokens must be at least 1 with beam search.");
  const penalty = body["length_penalty"] ?? 1;
  if (typeof penalty !== "number" || Math.abs(penalty) > MOST_PENALTY)
    throw invalid("length_penalty", `length_penalty must be a number between -${MOST_PENALTY} and ${MOST_PENALTY}.`);
  return { lengthPenalty: penalty };
}
