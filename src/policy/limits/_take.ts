/**
 * One take from the ledger over everybody whose limits hold, and what it turns into for the call: places that are
 * given back, headers, a refusal. Used by gate.ts only.
 */
import { Fault } from "#core/fault.ts";
import type { Limits } from "#core/limits.ts";
import type { UsageBook } from "#policy/usage/book.ts";
import type { Counter } from "./counters.ts";
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
  readonly limitsOf: (subject: Subject & { readonly kind: "tenant" | "model" }) => Limits | undefined;
  readonly priceOf: (model: string) => Price | undefined;
  /** A limit of this kind refused something. Both are of closed lists. */
  readonly onRefused: (subject: Subject["kind"], kind: string) => void;
  /** The ledger could not be asked. */
  readonly onUnavailable: (error: unknown) => void;
  /** Unix milliseconds. */
  readonly now: () => number;
}

/** What is asked of whom. */
export interface Asked {
  readonly key: readonly Counter[];
  readonly tenant: readonly Counter[];
  readonly model: readonly Counter[];
  /** Of each measure, from everybody. */
  readonly amounts: Amounts;
  /** What they may come to: of days and longer that is taken. Of minutes it is not: it would refuse what is likely to fit. */
  readonly atMost: Amounts;
  /** From the model besides. */
  readonly also: Amounts;
}

/** How the counters stood behind it, and the way back. */
export interface Held extends Standings {
  /** So much of each measure stays, the rest goes back. Absent: nothing stays. */
  settle(kept?: Amounts): void | Promise<void>;
}

export const NONE: Amounts = {};
const NOTHING: Held = { entries: [], used: [], settle: () => {} };

/**
 * All of it from all of them, or nothing.
 * @param seen hears how the counter stands that refuses
 * @throws Fault rate_limited | invalid_request | forbidden | policy_unavailable
 */
export function take(
  books: Books,
  asked: Asked,
  at: number,
  seen: (standings: Standings) => void,
): Held | Promise<Held> {
  const entries = entriesOf(asked, at);
  if (entries.length === 0) return NOTHING;
  let outcome: Taken | Refused | Promise<Taken | Refused>;
  try {
    outcome = books.ledger.take(entries);
  } catch (error) {
    throw unavailable(books, error);
  }
  if (!(outcome instanceof Promise)) return judged(books, entries, outcome, at, seen);
  return outcome.then(
    (got) => judged(books, entries, got, at, seen),
    (error) => {
      throw unavailable(books, error);
    },
  );
}

function entriesOf(asked: Asked, at: number): readonly Entry[] {
  const entries: Entry[] = [];
  add(entries, asked.key, asked, NONE, at);
  add(entries, asked.tenant, asked, NONE, at);
  add(entries, asked.model, asked, asked.also, at);
  return entries;
}

function add(
  to: Entry[],
  counters: readonly Counter[],
  { amounts, atMost }: Pick<Asked, "amounts" | "atMost">,
  also: Amounts,
  at: number,
): void {
  for (const counter of counters) {
    const { measure } = counter.rule;
    const amount = amounts[measure] ?? also[measure] ?? 0;
    if (amount === 0) continue;
    const most = counter.long ? Math.max(amount, atMost[measure] ?? 0) : amount;
    to.push({ counter, amount, most, span: counter.spanAt(at) });
  }
}

function judged(
  books: Books,
  entries: readonly Entry[],
  outcome: Taken | Refused,
  at: number,
  seen: (standings: Standings) => void,
): Held {
  if (outcome.ok) return new HeldEntries(entries, outcome);
  const entry = entries[outcome.at] as Entry;
  const { subject, rule } = entry.counter;
  seen({ entries: [entry], used: [outcome.used] });
  books.onRefused(subject.kind, rule.kind);
  throw refusal(entry, outcome, at);
}

class HeldEntries implements Held {
  readonly entries: readonly Entry[];
  readonly #taken: Taken;

  constructor(entries: readonly Entry[], taken: Taken) {
    this.entries = entries;
    this.#taken = taken;
  }

  get used(): readonly number[] {
    return this.#taken.used;
  }

  settle(kept = NONE): void | Promise<void> {
    return this.#taken.settle(this.entries.map(({ counter }) => kept[counter.rule.measure] ?? 0));
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
