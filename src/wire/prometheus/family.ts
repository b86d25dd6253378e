/**
 * Families of metrics, and which samples belong to one. Pure data and one look-up. Callers: read.ts, merge.ts.
 *
 * OpenMetrics' families are read as those of the text format that hold the same samples: its counters are named with
 * their `_total`, and what the text format has no type for stands there without one.
 */
export const FAMILY_TYPES = ["counter", "gauge", "histogram", "summary", "untyped"] as const;
export type FamilyType = (typeof FAMILY_TYPES)[number];

export interface FamilySample {
  /** With what a family's name has behind it: `_bucket` and its like. */
  readonly name: string;
  /** As it is printed, without its line's end. */
  readonly line: string;
}

export interface Family {
  readonly name: string;
  readonly type: FamilyType;
  /** As it is spelled in the text format. */
  readonly help: string | undefined;
  readonly samples: readonly FamilySample[];
}

/** What a sample with this ending is: of the family itself, or of one that has its whole name. */
interface Place {
  readonly type: FamilyType;
  readonly whole: boolean;
  /** A label that has to be there, and a number. */
  readonly bound?: "le" | "quantile";
}

type Places = Readonly<Record<string, Place>>;

const alone = (type: FamilyType): Place => ({ type, whole: false });
const part = (type: FamilyType): Place => ({ type, whole: true });
const HISTOGRAM: Places = {
  _bucket: { ...part("histogram"), bound: "le" },
  _sum: part("histogram"),
  _count: part("histogram"),
};
const SUMMARY: Places = {
  "": { ...part("summary"), bound: "quantile" },
  _sum: part("summary"),
  _count: part("summary"),
};
const PLAIN: Readonly<Record<string, Places>> = {
  counter: { "": part("counter") },
  gauge: { "": part("gauge") },
  untyped: { "": part("untyped") },
  histogram: HISTOGRAM,
  summary: SUMMARY,
};
const OPEN: Readonly<Record<string, Places>> = {
  counter: { _total: alone("counter"), _created: alone("gauge") },
  gauge: { "": part("gauge") },
  unknown: { "": part("untyped") },
  info: { _info: alone("gauge") },
  stateset: { "": part("gauge") },
  histogram: { ...HISTOGRAM, _created: alone("gauge") },
  summary: { ...SUMMARY, _created: alone("gauge") },
  gaugehistogram: { _bucket: alone("untyped"), _gcount: alone("untyped"), _gsum: alone("untyped") },
};
const ENDINGS = ["", "_bucket", "_sum", "_count", "_total", "_created", "_info", "_gcount", "_gsum"] as const;

export function isDeclarable(type: string, open: boolean): boolean {
  return Object.hasOwn(open ? OPEN : PLAIN, type);
}

export interface Placed extends Place {
  /** Of the family that was declared. */
  readonly base: string;
}

/** @param types that were declared so far. @returns undefined: its family has no such sample */
export function placeOf(name: string, types: ReadonlyMap<string, string>, open: boolean): Placed | undefined {
  for (const ending of ENDINGS) {
    if (!name.endsWith(ending)) continue;
    const base = name.slice(0, name.length - ending.length);
    const place = (open ? OPEN : PLAIN)[types.get(base) ?? ""]?.[ending];
    if (place !== undefined) return { ...place, base };
  }
  return types.has(name) ? undefined : { ...part("untyped"), base: name };
}

/** Every name that samples of such a family may have: no other family may have one of them. */
export function namesOf({ name, type }: Pick<Family, "name" | "type">): readonly string[] {
  const endings = Object.keys(PLAIN[type] ?? {});
  return [...new Set([name, ...endings.map((ending) => name + ending)])];
}
