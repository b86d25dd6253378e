/**
 * One take from the ledger over everybody whose limits hold, and what it turns into for the call: places that are
 * given back, headers, a refusal. Used by gate.ts only.
 */
import { Fault } from "#core/fault.ts";
import type { Limits } from "#core/limits.ts";
import type { UsageBook } from "#policy/usage/book.ts";
import type { Standing } from "./headers.ts";
import { type Entry, entryAt, isLong, type Ledger, type Refused, type Taken } from "./ledger.ts";
import type { Price } from "./price.ts";
import type { QueueShares } from "./queue-shares.ts";
import { refusal } from "./refusal.ts";
import { type Amounts, type Rule, rulesOf, type Subject } from "./rules.ts";

/** What a metered gate works with. */
export interface Books {
  readonly ledger: Ledger;
  readonly usage: UsageBook;
  readonly queue: QueueShares;
  /** The limits of a key: its own, and what holds for every key. */
  readonly keyLimits: (own: Limits) => Limits | undefined;
  readonly limitsOf: (subject: Subject & { readonly kind: "tenant" | "model" }) => Limits | undefined;
  readonly priceOf: (model: string) => Price | undefined;
  /** A limit of this kind refused something. Both are of closed lists. */
  readonly onRefused: (subject: Subject["kind"], kind: string) => void;
  /** The ledger could not be asked. */
  readonly onUnavailable: (error: unknown) => void;
  /** Unix milliseconds. */
  readonly now: () => number;
}

export interface Holder {
  readonly subject: Subject;
  readonly rules: readonly Rule[];
  /** Besides what everybody is asked for. */
  readonly also?: Amounts;
}

export interface Held {
  /** So much of each measure stays, the rest goes back. Absent: nothing stays. */
  settle(kept?: Amounts): void | Promise<void>;
}

const NOTHING: Held = { settle: () => {} };
const NONE: Amounts = {};

export function holderOf(subject: Subject, limits: Limits | undefined): Holder {
  return { subject, rules: rulesOf(limits) };
}

/**
 * All of it from all of them, or nothing.
 * @param atMost what the amounts may come to: days and longer take that, minutes do not, as they would refuse what fits
 * @param seen hears how the counters stand, of a refusal too. @throws Fault rate_limited | invalid_request | forbidden | policy_unavailable
 */
export function take(
  books: Books,
  holders: readonly Holder[],
  amounts: Amounts,
  at: number,
  seen: (standings: readonly Standing[]) => void,
  atMost = amounts,
): Held | Promise<Held> {
  const entries = entriesOf(holders, amounts, atMost, at);
  if (entries.length === 0) return NOTHING;
  const judge = (outcome: Taken | Refused): Held => judged(books, entries, outcome, at, seen);
  let outcome: Taken | Refused | Promise<Taken | Refused>;
  try {
    outcome = books.ledger.take(entries);
  } catch (error) {
    throw unavailable(books, error);
  }
  if (!(outcome instanceof Promise)) return judge(outcome);
  return outcome.then(judge, (error) => {
    throw unavailable(books, error);
  });
}

function entriesOf(holders: readonly Holder[], amounts: Amounts, atMost: Amounts, at: number): readonly Entry[] {
  const entries: Entry[] = [];
  for (const { subject, rules, also = NONE } of holders)
    for (const rule of rules) {
      const amount = amounts[rule.measure] ?? also[rule.measure] ?? 0;
      const most = isLong({ rule }) ? Math.max(amount, atMost[rule.measure] ?? 0) : amount;
      if (amount > 0) entries.push(entryAt(subject, rule, amount, at, most));
    }
  return entries;
}

function judged(
  books: Books,
  entries: readonly Entry[],
  outcome: Taken | Refused,
  at: number,
  seen: (standings: readonly Standing[]) => void,
): Held {
  if (!outcome.ok) {
    const entry = entries[outcome.at] as Entry;
    seen([{ entry, used: outcome.used }]);
    books.onRefused(entry.subject.kind, entry.rule.kind);
    throw refusal(entry, outcome, at);
  }
  seen(entries.map((entry, i) => ({ entry, used: outcome.used[i] ?? 0 })));
  return { settle: (kept = NONE) => outcome.settle(entries.map(({ rule }) => kept[rule.measure] ?? 0)) };
}

function unavailable(books: Books, error: unknown): Fault {
  books.onUnavailable(error);
  return new Fault("policy_unavailable", "The server cannot check limits at the moment.", {
    retryAfterMs: 1000,
    cause: error,
    detail: error instanceof Error ? error.message : String(error),
  });
}
