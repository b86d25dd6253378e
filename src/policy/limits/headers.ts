/**
 * What is left of a caller's limits, as headers that client libraries read. Pure. Used inside policy/limits/.
 *
 * One limit a group is shown: the one of which the smallest part is left. Limits of models are not shown: what is left
 * of them says what others do.
 */
import type { Entry } from "./ledger.ts";
import type { Measure } from "./rules.ts";

/** A counter as it stood after the last take. */
export interface Standing {
  readonly entry: Entry;
  readonly used: number;
}

type Headers = Readonly<Record<string, string>>;

/** group → measures, OpenAI's names and Anthropic's. */
const OPENAI: Readonly<Record<string, readonly Measure[]>> = {
  requests: ["requests"],
  tokens: ["tokens", "prompt", "completion"],
};
const ANTHROPIC: Readonly<Record<string, readonly Measure[]>> = {
  requests: ["requests"],
  tokens: ["tokens"],
  "input-tokens": ["prompt"],
  "output-tokens": ["completion"],
};

/** @param dialect name of the route's dialect. @param now Unix milliseconds */
export function limitHeaders(dialect: string, standings: readonly Standing[], now: number): Headers {
  const headers: Record<string, string> = {};
  const anthropic = dialect === "anthropic";
  for (const [group, measures] of Object.entries(anthropic ? ANTHROPIC : OPENAI)) {
    const tightest = tightestOf(standings, measures);
    if (tightest === undefined) continue;
    const { entry, used } = tightest;
    const values = {
      limit: String(entry.rule.limit),
      remaining: String(Math.max(0, entry.rule.limit - used)),
      reset: anthropic ? new Date(entry.end).toISOString() : goDuration(entry.end - now),
    };
    for (const [what, value] of Object.entries(values))
      headers[anthropic ? `anthropic-ratelimit-${group}-${what}` : `x-ratelimit-${what}-${group}`] = value;
  }
  return headers;
}

function tightestOf(standings: readonly Standing[], measures: readonly Measure[]): Standing | undefined {
  let best: Standing | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const standing of standings) {
    const { rule, subject } = standing.entry;
    if (subject.kind === "model" || rule.window === "held" || !measures.includes(rule.measure)) continue;
    const left = rule.limit === 0 ? 0 : (rule.limit - standing.used) / rule.limit;
    if (left < least) {
      best = standing;
      least = left;
    }
  }
  return best;
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
