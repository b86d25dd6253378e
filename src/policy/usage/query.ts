/**
 * What people ask of usage, by words. Pure. Callers: the command line, and the routes of administration.
 */
import { USAGE_GROUPS, type UsageGrouping, type UsageQuery } from "./table.ts";

export interface UsageWords {
  readonly by?: string;
  readonly from?: string;
  readonly to?: string;
  readonly key?: string;
  readonly tenant?: string;
  readonly model?: string;
}

export interface UsageProblem {
  readonly field: "by" | "from" | "to";
  /** Behind the field's name: what it takes. */
  readonly problem: string;
}

const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** Without `from`: the month of UTC so far. */
export function usageQuery(words: UsageWords, now: number): UsageQuery | UsageProblem {
  const { from = `${new Date(now).toISOString().slice(0, 7)}-01`, to, key, tenant, model } = words;
  if (!isDay(from)) return { field: "from", problem: "is a day such as 2026-11-25" };
  if (to !== undefined && !isDay(to)) return { field: "to", problem: "is a day such as 2026-11-25" };
  if (to !== undefined && to < from) return { field: "to", problem: `comes before ${from}, where it begins` };
  const by = (words.by ?? "day").split(",").map((word) => word.trim());
  const unknown = by.find((word) => !USAGE_GROUPS.includes(word as UsageGrouping));
  if (unknown !== undefined) return { field: "by", problem: `takes ${USAGE_GROUPS.join(", ")}, several with commas` };
  return {
    by: [...new Set(by)] as UsageGrouping[],
    from,
    ...(to === undefined ? {} : { to }),
    ...(key === undefined ? {} : { key }),
    ...(tenant === undefined ? {} : { tenant }),
    ...(model === undefined ? {} : { model }),
  };
}

function isDay(text: string): boolean {
  const time = Date.parse(text);
  return DAY.test(text) && !Number.isNaN(time) && new Date(time).toISOString().startsWith(text);
}
