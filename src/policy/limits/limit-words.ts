/**
 * Limits and prices as an operator writes them: JSON objects with the names of core/limits.ts. Pure.
 * Callers: whoever takes such words from people or reads them back.
 */
import { z } from "zod";
import { BUDGET_UNITS, type Limits, PERIODS } from "#core/limits.ts";

const MOST_BUDGETS = 16;
/** Dollars a million tokens: more is a slip of the finger. */
const HIGHEST_PRICE = 1_000_000;

const figure = z.int().min(0);
const price = z.number().min(0).max(HIGHEST_PRICE);

export const LIMITS = z.strictObject({
  requestsPerMinute: figure.optional(),
  requestsPerDay: figure.optional(),
  promptTokensPerMinute: figure.optional(),
  promptTokensPerDay: figure.optional(),
  completionTokensPerMinute: figure.optional(),
  completionTokensPerDay: figure.optional(),
  tokensPerMinute: figure.optional(),
  tokensPerDay: figure.optional(),
  concurrentRequests: figure.optional(),
  queuedSequences: figure.optional(),
  budgets: z
    .array(z.strictObject({ period: z.enum(PERIODS), unit: z.enum(BUDGET_UNITS), amount: figure }))
    .max(MOST_BUDGETS)
    .optional(),
} satisfies Record<keyof Limits, unknown>);

export const PRICE = z
  .strictObject({ prompt: price, completion: price, cached: price.optional() })
  // What is reserved must never be less than what is booked.
  .refine(({ prompt, cached }) => cached === undefined || cached <= prompt, "cached is at most prompt");

/** name → value; `*`: every other name. */
export const named = <T extends z.ZodType>(value: T) => z.record(z.string().min(1), value);
