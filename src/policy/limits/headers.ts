/**
 * What is left of a caller's limits, as headers that client libraries read. Pure. Used inside policy/limits/.
 *
 * One limit a group is shown: the one of which the smallest part is left. Limits of models are not shown: what is left
 * of them says what others do.
 */
import type { Entry } from "./ledger.ts";
import type { Measure } from "./rules.ts";

/** Counters as they stood after a take. */
export interface Standings {
  readonly entries: readonly Entry[];
  /** By entry. */
  readonly used: readonly number[];
}

export const NO_STANDINGS: Standings = { entries: [], used: [] };

/** What is shown together, and under which names. */
interface Group {
  readonly measures: readonly Measure[];
  readonly limit: string;
  readonly remaining: string;
  readonly reset: string;
}

const OPENAI: readonly Group[] = [
  openai("requests", ["requests"]),
  openai("tokens", ["tokens", "prompt", "completion"]),
];
const ANTHROPIC: readonly Group[] = [
  anthropic("requests", ["requests"]),
  anthropic("tokens", ["tokens"]),
  anthropic("input-tokens", ["prompt"]),
  anthropic("output-tokens", ["completion"]),
];

function openai(name: string, measures: readonly Measure[]): Group {
  const of = (what: string): string => `x-ratelimit-${what}-${name}`;
  return { measures, limit: of("limit"), remaining: of("remaining"), reset: of("reset") };
}

function anthropic(name: string, measures: readonly Measure[]): Group {
  const of = (what: string): string => `anthropic-ratelimit-${name}-${what}`;
  return { measures, limit: of("limit"), remaining: of("remaining"), reset: of("reset") };
}

/** @param dialect name of the route's dialect. @param now Unix milliseconds. @param others headers besides them */
export function limitHeaders(
  dialect: string,
  standings: readonly Standings[],
  now: number,
  others: Readonly<Record<string, string>> = {},
): Readonly<Record<string, string>> {
  const headers: Record<string, string> = { ...others };
  const absolute = dialect === "anthropic";
  for (const group of absolute ? ANTHROPIC : OPENAI) show(headers, group, standings, absolute ? undefined : now);
  return headers;
}

/** @param now undefined: the end is told as a time */
function show(
  headers: Record<string, string>,
  group: Group,
  standings: readonly Standings[],
  now: number | undefined,
): void {
  let tightest: Entry | undefined;
  let least = Number.POSITIVE_INFINITY;
  let left = 0;
  for (const { entries, used } of standings)
    for (let at = 0; at < entries.length; at++) {
      const entry = entries[at] as Entry;
      if (!isShown(entry, group)) continue;
      const { limit } = entry.counter.rule;
      const part = limit === 0 ? 0 : (limit - (used[at] ?? 0)) / limit;
      if (part >= least) continue;
      tightest = entry;
      least = part;
      left = limit - (used[at] ?? 0);
    }
  if (tightest === undefined) return;
  const { counter, span } = tightest;
  headers[group.limit] = String(counter.rule.limit);
  headers[group.remaining] = String(Math.max(0, left));
  headers[group.reset] = now === undefined ? new Date(span.end).toISOString() : goDuration(span.end - now);
}

function isShown({ counter: { subject, rule } }: Entry, { measures }: Group): boolean {
  return subject.kind !== "model" && rule.window !== "held" && measures.includes(rule.measure);
}

/** As OpenAI prints durations, in Go's form: `850ms`, `1s`, `6m0s`, `1h0m0s`. */
export function goDuration(milliseconds: number): string {
  const rest = Math.max(0, Math.ceil(milliseconds));
  if (rest < 1000) return `${rest}ms`;
  const seconds = Math.ceil(rest / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const tail = `${seconds % 60}s`;
  if (hours > 0) return `${hours}h${minutes}m${tail}`;
  return minutes > 0 ? `${minutes}m${tail}` : tail;
}
