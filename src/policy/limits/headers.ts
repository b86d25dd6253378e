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
  const tightest = new Tightest();
  for (const group of absolute ? ANTHROPIC : OPENAI) {
    tightest.among(group, standings);
    tightest.show(headers, group, absolute ? undefined : now);
  }
  return headers;
}

/** The limit of a group of which the smallest part is left. */
class Tightest {
  #entry: Entry | undefined;
  #part = 0;
  #left = 0;

  among(group: Group, standings: readonly Standings[]): void {
    this.#entry = undefined;
    this.#part = Number.POSITIVE_INFINITY;
    for (const each of standings) this.#look(group, each);
  }

  #look({ measures }: Group, { entries, used }: Standings): void {
    for (let at = 0; at < entries.length; at++) {
      const entry = entries[at] as Entry;
      const { isShown, rule } = entry.counter;
      if (!isShown || !measures.includes(rule.measure)) continue;
      const left = rule.limit - (used[at] ?? 0);
      const part = rule.limit === 0 ? 0 : left / rule.limit;
      if (part >= this.#part) continue;
      this.#entry = entry;
      this.#part = part;
      this.#left = left;
    }
  }

  /** @param now undefined: the end is told as a time */
  show(headers: Record<string, string>, group: Group, now: number | undefined): void {
    if (this.#entry === undefined) return;
    const { counter, span } = this.#entry;
    headers[group.limit] = counter.limitText;
    headers[group.remaining] = remaining(Math.max(0, this.#left));
    headers[group.reset] = now === undefined ? new Date(span.end).toISOString() : goDuration(span.end - now);
  }
}

/** Not by `String`, which V8 keeps what it has printed for: each of these is printed once, and would be kept as long. */
function remaining(amount: number): string {
  return Number.isSafeInteger(amount) ? amount.toFixed(0) : String(amount);
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
