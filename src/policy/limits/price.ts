/**
 * What tokens of a model cost. Pure.
 *
 * Prices are US dollars a million tokens, which is micro-dollars a token. A cost is rounded up to a whole micro-dollar,
 * so that what is reserved is never less than what is booked.
 */
import type { Usage } from "#core/calls.ts";

export interface Price {
  readonly prompt: number;
  readonly completion: number;
  /** Of prompt tokens that were found in the prefix cache; at most `prompt`, which it is if absent. */
  readonly cached?: number;
}

type Tokens = Pick<Usage, "promptTokens" | "completionTokens" | "cachedTokens">;

/** What binary fractions make of a whole number: 0.15 × 20 is a little more than 3. */
const ROUNDING = 1e-6;

/** Micro-dollars. */
export function costOf(price: Price | undefined, { promptTokens, completionTokens, cachedTokens }: Tokens): number {
  if (price === undefined) return 0;
  const { prompt, completion, cached = prompt } = price;
  const sum = (promptTokens - cachedTokens) * prompt + cachedTokens * cached + completionTokens * completion;
  return Math.max(0, Math.ceil(sum - ROUNDING));
}
