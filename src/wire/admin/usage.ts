/**
 * Usage over the admin routes: what is asked, and how sums are printed, by `castellan usage --json` too. Pure.
 */
import { z } from "zod";
import { count, given } from "./_fields.ts";

const name = z.string().max(256);

export const UsageQueryWords = z.strictObject({
  by: z
    .string()
    .max(64)
    .optional()
    .meta({ description: "day, key, tenant, model; several with commas.", default: "day" }),
  from: z.string().max(16).optional().meta({ description: "A day of UTC. Absent: the first of this month." }),
  to: z.string().max(16).optional().meta({ description: "A day of UTC, inclusive. Absent: until now." }),
  key: name.optional().meta({ description: "Id of a key or other principal." }),
  tenant: name.optional(),
  model: name.optional(),
});

const UsageRowReply = z.object({
  day: z.string().optional(),
  key: z.string().optional(),
  tenant: z.string().optional(),
  model: z.string().optional(),
  requests: count,
  errors: count,
  prompt_tokens: count,
  cached_tokens: count,
  completion_tokens: count,
  cost_usd_micros: count,
});

export const UsageReport = z.object({
  from: z.string().nullable(),
  to: z.string().nullable(),
  data: z.array(UsageRowReply),
});

export interface UsageCall {
  readonly by?: string;
  readonly from?: string;
  readonly to?: string;
  readonly key?: string;
  readonly tenant?: string;
  readonly model?: string;
}

/** As people write them; policy reads the words. */
export function decodeUsage(words: z.infer<typeof UsageQueryWords>): UsageCall {
  return given(words);
}

/** A sum as it is kept. */
export interface PrintedUsage {
  readonly group: { readonly day?: string; readonly key?: string; readonly tenant?: string; readonly model?: string };
  readonly requests: number;
  readonly errors: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Micro-dollars. */
  readonly cost: number;
}

/** What the sums are of; null: no bound. */
export function encodeUsage(
  { from, to }: { readonly from?: string; readonly to?: string },
  sums: readonly PrintedUsage[],
): z.infer<typeof UsageReport> {
  return {
    from: from ?? null,
    to: to ?? null,
    data: sums.map(({ group, requests, errors, promptTokens, cachedTokens, completionTokens, cost }) => ({
      ...group,
      requests,
      errors,
      prompt_tokens: promptTokens,
      cached_tokens: cachedTokens,
      completion_tokens: completionTokens,
      cost_usd_micros: cost,
    })),
  };
}
