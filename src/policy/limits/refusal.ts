/**
 * What a caller is told who has reached a limit. Pure. Used inside policy/limits/.
 *
 * A limit of a key or a tenant is the caller's own, so the figures may be told; what others have used of a model is
 * theirs. What could never be granted is no 429, since clients send those again.
 */
import { Fault } from "#core/fault.ts";
import type { Entry, Refused } from "./ledger.ts";
import type { Measure, Rule } from "./rules.ts";
import type { WindowLength } from "./windows.ts";

const NOUNS: Readonly<Record<Measure, string>> = {
  requests: "requests",
  prompt: "prompt tokens",
  completion: "completion tokens",
  tokens: "tokens",
  usd: "US dollars",
  calls: "concurrent requests",
  sequences: "queued sequences",
};
/** When something held is likely to be free again: nobody knows. */
const HELD_RETRY_MS = 1000;
const MICRO = 1_000_000;

/** @param now Unix milliseconds */
export function refusal(entry: Entry, { used }: Pick<Refused, "used">, now: number): Fault {
  const { counter, amount, span } = entry;
  const { rule, subject } = counter;
  const whose = `this ${subject.kind}`;
  if (amount > rule.limit) return impossible(entry, whose);
  const held = rule.window === "held";
  const wait = held ? HELD_RETRY_MS : Math.max(1, span.end - now);
  const figures = [`limit ${figure(rule, rule.limit)}`];
  if (subject.kind !== "model") {
    figures.push(`used ${figure(rule, used)}`);
    if (amount > 1) figures.push(`asked for up to ${figure(rule, amount)}`);
  }
  const again = held ? "when others have ended" : `in ${inWords(wait)}`;
  return new Fault(
    "rate_limited",
    `Rate limit reached for ${ruleInWords(rule)} of ${whose}: ${figures.join(", ")}. Try again ${again}.`,
    { retryAfterMs: wait, detail: `${rule.kind} of ${subject.kind} ${subject.id}` },
  );
}

function impossible({ counter, amount }: Entry, whose: string): Fault {
  const { rule, subject } = counter;
  const detail = `${rule.kind} of ${subject.kind} ${subject.id}`;
  const limit = `the limit for ${ruleInWords(rule)} of ${whose} is ${figure(rule, rule.limit)}`;
  if (rule.measure === "requests" || rule.measure === "calls")
    return new Fault("forbidden", `No request can be taken: ${limit}.`, { detail });
  if (rule.measure === "sequences")
    return new Fault("invalid_request", `The request makes ${amount} sequences and ${limit}: ask for fewer choices.`, {
      detail,
      param: "n",
    });
  const remedy = rule.measure === "prompt" ? "Send a shorter prompt." : "Ask for a lower max_tokens, or send less.";
  return new Fault(
    "invalid_request",
    `The request may take up to ${figure(rule, amount)} ${rule.measure === "usd" ? "" : `${NOUNS[rule.measure]} `}and ${limit}. ${remedy}`,
    { detail, param: rule.measure === "prompt" ? "prompt" : "max_tokens" },
  );
}

const PERIOD: Readonly<Record<WindowLength, string>> = {
  minute: " per minute",
  day: " per day",
  week: " per week",
  month: " per month",
  held: "",
};

export function ruleInWords({ measure, window }: Pick<Rule, "measure" | "window">): string {
  return `${NOUNS[measure]}${PERIOD[window]}`;
}

function figure({ measure }: Rule, amount: number): string {
  return measure === "usd" ? `$${dollars(amount)}` : String(amount);
}

/** Micro-dollars as dollars: two digits behind the point, or all that are there. */
export function dollars(micro: number): string {
  const exact = (micro / MICRO).toFixed(6).replace(/0+$/, "");
  const [whole = "0", fraction = ""] = exact.split(".");
  return `${whole}.${fraction.padEnd(2, "0")}`;
}

const STEPS = [
  ["d", 86_400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
] as const;

/** The two largest units: `12 s`, `3 h 20 min`. */
export function inWords(milliseconds: number): string {
  let rest = Math.ceil(milliseconds / 1000);
  const parts: string[] = [];
  for (const [unit, seconds] of STEPS) {
    const count = Math.floor(rest / seconds);
    rest -= count * seconds;
    if (count > 0) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}
