/**
 * A field that holds prompts: a text, a list of texts, a list of token ids, or a list of such lists.
 */
import type { Prompt } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import { requireList, requireTokenIds } from "./_compound.ts";

const IDS = { type: "array", items: { type: "integer", minimum: 0 } };

export const PROMPTS_DOC = {
  anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }, IDS, { type: "array", items: IDS }],
};

/** @param most prompts @throws Fault invalid_request naming the entry */
export function decodePrompts(value: unknown, field: string, most: number): readonly Prompt[] {
  if (value === undefined || value === null) throw invalid(field, `${field} must be provided and non-empty.`);
  if (typeof value === "string") return [value];
  const list = requireList(value, field, Number.POSITIVE_INFINITY);
  const first = list[0];
  if (first === undefined) throw invalid(field, `${field} must be provided and non-empty.`);
  if (typeof first === "number") return [requireTokenIds(list, field, Number.POSITIVE_INFINITY)];
  requireList(list, field, most);
  return list.map((entry, i) => {
    if (typeof entry !== typeof first)
      throw invalid(
        `${field}.${i}`,
        `${field} must be a string, a list of strings, a list of token ids or a list of such lists.`,
      );
    return typeof entry === "string" ? entry : requireTokenIds(entry, `${field}.${i}`, Number.POSITIVE_INFINITY);
  });
}
