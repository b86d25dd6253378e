/**
 * How much somebody may use. Data; policy/ counts it.
 *
 * Every figure is a whole number ≥ 0; absent: no limit. Minutes and days are windows of UTC that begin at a multiple of
 * their length.
 */
export const PERIODS = ["day", "week", "month"] as const;
/** Calendar periods in UTC; a week begins on Monday. */
export type Period = (typeof PERIODS)[number];

/** `usd`: micro-dollars (1e-6), by the model's price; `tokens`: prompt and completion together. */
export const BUDGET_UNITS = ["tokens", "usd"] as const;
export type BudgetUnit = (typeof BUDGET_UNITS)[number];

export interface Budget {
  readonly period: Period;
  readonly unit: BudgetUnit;
  readonly amount: number;
}

/** Of one key, one tenant or one model. */
export interface Limits {
  readonly requestsPerMinute?: number;
  readonly requestsPerDay?: number;
  readonly promptTokensPerMinute?: number;
  readonly promptTokensPerDay?: number;
  readonly completionTokensPerMinute?: number;
  readonly completionTokensPerDay?: number;
  /** Prompt and completion together: what OpenAI calls TPM and TPD. */
  readonly tokensPerMinute?: number;
  readonly tokensPerDay?: number;
  /** Calls on their way. */
  readonly concurrentRequests?: number;
  /** Sequences open in the engine, waiting or running. */
  readonly queuedSequences?: number;
  readonly budgets?: readonly Budget[];
}

export type LimitFigure = Exclude<keyof Limits, "budgets">;

/** figure → what it counts, one line for help and docs. The keys are all there are. */
export const LIMIT_DOCS: Readonly<Record<LimitFigure, string>> = {
  requestsPerMinute: "requests a minute",
  requestsPerDay: "requests a day",
  promptTokensPerMinute: "prompt tokens a minute",
  promptTokensPerDay: "prompt tokens a day",
  completionTokensPerMinute: "completion tokens a minute",
  completionTokensPerDay: "completion tokens a day",
  tokensPerMinute: "prompt and completion tokens a minute",
  tokensPerDay: "prompt and completion tokens a day",
  concurrentRequests: "requests on their way at once",
  queuedSequences: "sequences open in the engine at once",
};
