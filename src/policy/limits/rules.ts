/**
 * Limits as a flat list of rules: what is measured, over which time, how much. Pure. Used inside policy/limits/.
 *
 * Invariant: a subject has at most one rule a kind, since a rule's counter is found by its kind; of two budgets of the
 * same unit and period the smaller one holds.
 */
import { BUDGET_UNITS, type Budget, type Limits, PERIODS } from "#core/limits.ts";
import type { WindowLength } from "./windows.ts";

/** `calls`: on their way. `usd`: micro-dollars. */
export const MEASURES = ["requests", "prompt", "completion", "tokens", "usd", "calls", "sequences"] as const;
export type Measure = (typeof MEASURES)[number];

/** So much of each; absent: none. */
export type Amounts = Partial<Readonly<Record<Measure, number>>>;

export interface Rule {
  /** Of a closed list: `LIMIT_KINDS`. */
  readonly kind: string;
  readonly measure: Measure;
  readonly window: WindowLength;
  readonly limit: number;
}

/** Who or what a limit belongs to. */
export interface Subject {
  readonly kind: "key" | "tenant" | "model";
  readonly id: string;
}

type Shape = Omit<Rule, "limit">;

const FIELDS: Readonly<Record<Exclude<keyof Limits, "budgets">, Shape>> = {
  requestsPerMinute: { kind: "requests_per_minute", measure: "requests", window: "minute" },
  requestsPerDay: { kind: "requests_per_day", measure: "requests", window: "day" },
  promptTokensPerMinute: { kind: "prompt_tokens_per_minute", measure: "prompt", window: "minute" },
  promptTokensPerDay: { kind: "prompt_tokens_per_day", measure: "prompt", window: "day" },
  completionTokensPerMinute: { kind: "completion_tokens_per_minute", measure: "completion", window: "minute" },
  completionTokensPerDay: { kind: "completion_tokens_per_day", measure: "completion", window: "day" },
  tokensPerMinute: { kind: "tokens_per_minute", measure: "tokens", window: "minute" },
  tokensPerDay: { kind: "tokens_per_day", measure: "tokens", window: "day" },
  concurrentRequests: { kind: "concurrent_requests", measure: "calls", window: "held" },
  queuedSequences: { kind: "queued_sequences", measure: "sequences", window: "held" },
};

/** Every kind that a rule can have, for metrics and docs. */
export const LIMIT_KINDS: readonly string[] = [
  ...Object.values(FIELDS).map(({ kind }) => kind),
  ...BUDGET_UNITS.flatMap((unit) => PERIODS.map((period) => budgetKind({ unit, period }))),
];

const known = new WeakMap<Limits, readonly Rule[]>();
const NONE: readonly Rule[] = [];

/** The same list for the same object. */
export function rulesOf(limits: Limits | undefined): readonly Rule[] {
  if (limits === undefined) return NONE;
  let rules = known.get(limits);
  if (rules === undefined) {
    rules = flatten(limits);
    known.set(limits, rules);
  }
  return rules;
}

function flatten(limits: Limits): readonly Rule[] {
  const rules: Rule[] = [];
  for (const [field, shape] of Object.entries(FIELDS)) {
    const limit = limits[field as keyof typeof FIELDS];
    if (limit !== undefined) rules.push({ ...shape, limit });
  }
  const budgets = new Map<string, Rule>();
  for (const { period, unit, amount } of limits.budgets ?? []) {
    const kind = budgetKind({ unit, period });
    const limit = Math.min(amount, budgets.get(kind)?.limit ?? amount);
    budgets.set(kind, { kind, measure: unit, window: period, limit });
  }
  return [...rules, ...budgets.values()];
}

function budgetKind({ unit, period }: Pick<Budget, "unit" | "period">): string {
  return `${unit === "usd" ? "usd" : "token"}_budget_per_${period}`;
}
