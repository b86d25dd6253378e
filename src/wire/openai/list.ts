/**
 * Lists as OpenAI's newer APIs page them: newest first, behind an id.
 */
import { z } from "zod";

const MOST = 100;
const PARAMETER = 128;

/** A number in a query. */
const limit = z
  .string()
  .regex(/^[1-9][0-9]{0,5}$/, "takes a whole number from 1")
  .optional()
  .meta({ description: `How many at most; 20 without it, never more than ${MOST}.` });
const after = z.string().max(PARAMETER).optional().meta({ description: "Goes on behind the one with this id." });

export const PAGE_WORDS = { limit, after };

export function decodePage(query: { readonly limit?: string | undefined; readonly after?: string | undefined }): {
  readonly limit: number;
  readonly after?: string;
} {
  const most = Math.min(Number(query.limit ?? 20), MOST);
  return { limit: most, ...(query.after === undefined ? {} : { after: query.after }) };
}

/** @param found one more than `limit`, where there are more */
export function encodePage<T extends { readonly id: string }>(found: readonly T[], most: number) {
  const data = found.slice(0, most);
  return {
    object: "list" as const,
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: found.length > most,
  };
}

export function listOf<T extends z.ZodType>(item: T) {
  return z.object({
    object: z.literal("list"),
    data: z.array(item),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  });
}
