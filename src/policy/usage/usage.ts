/**
 * What was used, as the usage table keeps it: a row a key, tenant, model and UTC day. Pure.
 */

/** Which row. `model` is empty for calls that reached no model. */
export interface UsageKey {
  /** Id of the principal. */
  readonly key: string;
  readonly tenant: string;
  readonly model: string;
  /** `2026-11-25`; the day on which the call was let in, whenever it ended. */
  readonly day: string;
}

/** What a row holds, and what is added to it. */
export interface UsageCounts {
  /** Calls that were let in. */
  readonly requests: number;
  /** Of these, how many did not end well. */
  readonly errors: number;
  readonly promptTokens: number;
  /** Of the prompt tokens, those found in the prefix cache. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Micro-dollars. */
  readonly cost: number;
}

export type UsageRow = UsageKey & UsageCounts;

export const NO_COUNTS: UsageCounts = {
  requests: 0,
  errors: 0,
  promptTokens: 0,
  cachedTokens: 0,
  completionTokens: 0,
  cost: 0,
};

/** Counts that are still added to. */
export type Counts = { -readonly [K in keyof UsageCounts]: UsageCounts[K] };

export function addCounts(to: Counts, more: UsageCounts): void {
  to.requests += more.requests;
  to.errors += more.errors;
  to.promptTokens += more.promptTokens;
  to.cachedTokens += more.cachedTokens;
  to.completionTokens += more.completionTokens;
  to.cost += more.cost;
}
