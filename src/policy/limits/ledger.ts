/**
 * Where it is counted what has been taken: the interface, and what passes through it. memory-ledger.ts is one
 * server's, redis-ledger.ts is shared by many.
 *
 * Contract (ledger.contract.ts): a take is all or nothing over all of its entries; no counter ever passes its limit by
 * a take, whatever runs at once; of work that is not known exactly a counter has given what it may come to, but for one
 * piece at a time, which has all that was left; a settlement gives back to the windows that were taken from, the first
 * call counts;
 * a counter of a day or longer that nobody has yet begins with what was booked before (`Spent`).
 */
import { Counter } from "./counters.ts";
import type { Rule, Subject } from "./rules.ts";
import type { Span } from "./windows.ts";

/** One counter and how much of it. */
export interface Entry {
  readonly counter: Counter;
  /** > 0 */
  readonly amount: number;
  /** ≥ amount: what it may come to. So much is taken, or, where less is left and nobody else has such a rest, the rest. */
  readonly most: number;
  /** The window. */
  readonly span: Span;
}

export interface Taken {
  readonly ok: true;
  /** What each counter stands at now, this take included. */
  readonly used: readonly number[];
  /**
   * So much of each entry stays; the rest goes back. Absent: nothing stays. Never fails: a ledger that cannot be
   * reached is told later.
   */
  settle(kept?: readonly number[]): void | Promise<void>;
}

export interface Refused {
  readonly ok: false;
  /** Index of the entry that did not fit. */
  readonly at: number;
  /** What its counter stands at. */
  readonly used: number;
}

export interface Ledger {
  /** @throws LedgerError it cannot be reached */
  take(entries: readonly Entry[]): Taken | Refused | Promise<Taken | Refused>;
  /** Waits for what is on its way. */
  close(): Promise<void>;
}

/** The ledger cannot be reached; nothing is known of the take. */
export class LedgerError extends Error {
  override readonly name = "LedgerError";
}

/** What a subject has used since a UTC day began, by what was booked. Amounts of the measure's unit. */
export type Spent = (subject: Subject, measure: Rule["measure"], since: number) => Promise<number>;

/** No memory of earlier starts. */
export const SPENT_NOTHING: Spent = async () => 0;

export function entryAt(subject: Subject, rule: Rule, amount: number, at: number, most = amount): Entry {
  const counter = new Counter(subject, rule);
  return { counter, amount, most, span: counter.spanAt(at) };
}
