/**
 * One take from the ledger over everybody whose limits hold, and what it turns into for the call: places that are
 * given back, headers, a refusal. Used by gate.ts only.
 */
import { Fault } from "#core/fault.ts";
import type { Limits } from "#core/limits.ts";
import type { UsageBook } from "#policy/usage/book.ts";
import type { Counter, Holder } from "./counters.ts";
import type { Standings } from "./headers.ts";
import type { Entry, Ledger, Refused, Taken } from "./ledger.ts";
import type { Price } from "./price.ts";
import type { QueueShares } from "./queue-shares.ts";
import { refusal } from "./refusal.ts";
import type { Amounts, Subject } from "./rules.ts";

/** What a metered gate works with. */
export interface Books {
  readonly ledger: Ledger;
  readonly usage: UsageBook;
  readonly queue: QueueShares;
  /** The limits of a key: its own, and what holds for every key. */
  readonly keyLimits: (own: Limits) => Limits | undefined;
  readonly limitsOf: (kind: "tenant" | "model", id: string) => Limits | undefined;
  readonly priceOf: (model: string) => Price | undefined;
  /** A limit of this kind refused something. Both are of closed lists. */
  readonly onRefused: (subject: Subject["kind"], kind: string) => void;
  /** The ledger could not be asked. */
  readonly onUnavailable: (error: unknown) => void;
  /** Unix milliseconds. */
  readonly now: () => number;
}

/** Work that is asked of whom. */
export interface Asked {
  readonly key: Holder;
  readonly tenant: Holder;
  readonly model: Holder;
  /** Of each measure, from everybody. */
  readonly amounts: Amounts;
  /** What they may come to: of days and longer that is taken. Of minutes it is not: it would refuse what is likely to fit. */
  readonly atMost: Amounts;
  /** From the model besides. */
  readonly also: Amounts;
}

/** How the counters stood behind it, and the way back. */
export interface Held extends Standings {
  readonly refused: undefined;
  /** So much of each measure stays, the rest goes back. Absent: nothing stays. */
  settle(kept?: Amounts): void | Promise<void>;
}

/** How the counter stands that refused. */
export interface Denied extends Standings {
  /** rate_limited | invalid_request | forbidden */
  readonly refused: Fault;
}

export const NONE: Amounts = {};
const NOTHING: Held = { entries: [], used: [], refused: undefined, settle: () => {} };

/**
 * All of it from all of them, or nothing.
 * @throws Fault policy_unavailable
 */
export function take(books: Books, entries: readonly Entry[], at: number): Held | Denied | Promise<Held | Denied> {
  if (entries.length === 0) return NOTHING;
  let outcome: Taken | Refused | Promise<Taken | Refused>;
  try {
    outcome = books.ledger.take(entries);
  } catch (error) {
    throw unavailable(books, error);
  }
  if (!(outcome instanceof Promise)) return judged(books, entries, outcome, at);
  return outcome.then(
    (got) => judged(books, entries, got, at),
    (error) => {
      throw unavailable(books, error);
    },
  );
}

/** What work takes. */
export function entriesOf(asked: Asked, at: number): readonly Entry[] {
  const { key, tenant, model, also } = asked;
  const entries = new Array<Entry>(key.work.length + tenant.work.length + model.all.length);
  let count = 0;
  for (const counter of key.work) count = add(entries, count, counter, asked, 0, at);
  for (const counter of tenant.work) count = add(entries, count, counter, asked, 0, at);
  for (const counter of model.all) count = add(entries, count, counter, asked, also[counter.rule.measure] ?? 0, at);
  entries.length = count;
  return entries;
}

/** @returns how many there are then */
function add(
  to: Entry[],
  count: number,
  counter: Counter,
  { amounts, atMost }: Asked,
  also: number,
  at: number,
): number {
  const { measure } = counter.rule;
  const amount = amounts[measure] ?? also;
  if (amount === 0) return count;
  const most = counter.long ? Math.max(amount, atMost[measure] ?? 0) : amount;
  to[count] = { counter, amount, most, span: counter.spanAt(at) };
  return count + 1;
}

function judged(books: Books, entries: readonly Entry[], outcome: Taken | Refused, at: number): Held | Denied {
  if (outcome.ok) return new HeldEntries(entries, outcome);
  const entry = entries[outcome.at] as Entry;
  const { subject, rule } = entry.counter;
  books.onRefused(subject.kind, rule.kind);
  return { entries: [entry], used: [outcome.used], refused: refusal(entry, outcome, at) };
}

class HeldEntries implements Held {
  readonly entries: readonly Entry[];
  readonly used: readonly number[];
  readonly refused = undefined;
  readonly #taken: Taken;

  constructor(entries: readonly Entry[], taken: Taken) {
    this.entries = entries;
    this.used = taken.used;
    this.#taken = taken;
  }

  settle(kept = NONE): void | Promise<void> {
    const { entries } = this;
    const amounts = new Array<number>(entries.length);
    for (let at = 0; at < entries.length; at++) amounts[at] = kept[(entries[at] as Entry).counter.rule.measure] ?? 0;
    return this.#taken.settle(amounts);
  }
}

function unavailable(books: Books, error: unknown): Fault {
  books.onUnavailable(error);
  return new Fault("policy_unavailable", "The server cannot check limits at the moment.", {
    retryAfterMs: 1000,
    cause: error,
    detail: error instanceof Error ? error.message : String(error),
  });
}
