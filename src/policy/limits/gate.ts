/**
 * Limits and usage around a gate: requests and places are taken in `admit`, work in the meter's `reserve`; what was
 * not used goes back when the work is settled and the call closed.
 *
 * Invariants: a call is held by the limits of its key, its tenant and its model, all or nothing; no limit is passed,
 * as nothing is looked at without being taken (Wall: T80), but by what a guess was short of (core/metering.ts, atMost), and
 * no limit of a day or longer by more than one call's; whatever ends a call, it gives back what it did not use;
 * what a client sees the end of has been booked before (Wall: T81). The server's own calls are not held, and a request
 * to the operations listener takes no place: an operator has to get in when everything is used up. app makes the value.
 */
import type { Usage } from "#core/calls.ts";
import type { Reservation, Work } from "#core/metering.ts";
import type { Principal } from "#core/principal.ts";
import type { Admission, Gate, Outcome, PolicyCall } from "#policy/gate.ts";
import { unwritable } from "#policy/usage/book.ts";
import { NO_COUNTS, type UsageCounts } from "#policy/usage/usage.ts";
import { type Books, type Held, type Holder, holderOf, take } from "./_take.ts";
import { limitHeaders, type Standing } from "./headers.ts";
import { costOf } from "./price.ts";
import type { Amounts } from "./rules.ts";
import { dayOf } from "./windows.ts";

export type { Books } from "./_take.ts";

export function meteredGate(gate: Gate, books: Books): Gate {
  return {
    identify: (...credentials) => gate.identify(...credentials),
    open: (call) => {
      const inner = gate.open(call);
      const { principal } = call;
      if (principal === undefined || principal.kind === "server") return inner;
      return new MeteredAdmission(inner, books, call, principal);
    },
  };
}

/** A place among the requests. */
const PLACE: Amounts = { requests: 1, calls: 1 };
/** What stays of it when the call is over. */
const REQUEST: Amounts = { requests: 1 };

class MeteredAdmission implements Admission {
  readonly meter = { reserve: (work: Work) => this.#reserve(work) };
  readonly #inner: Admission;
  readonly #books: Books;
  readonly #call: PolicyCall;
  readonly #principal: Principal;
  readonly #own: readonly Holder[];
  /** When it was let in; undefined: not yet, or not at all. */
  #admittedAt: number | undefined;
  #place: Held | undefined;
  #standings: readonly Standing[] = [];
  /** Of the last work. */
  #workStandings: readonly Standing[] = [];
  #model = "";
  /** Models whose request limits have counted this call. */
  readonly #models = new Set<string>();
  /** Its request is in the book. */
  #booked = false;
  /** A reservation was made: its settlement books the request. */
  #reserved = false;
  #failed = false;
  #closed = false;

  constructor(inner: Admission, books: Books, call: PolicyCall, principal: Principal) {
    this.#inner = inner;
    this.#books = books;
    this.#call = call;
    this.#principal = principal;
    const { id, tenant, limits } = principal;
    this.#own = [
      holderOf({ kind: "key", id }, books.keyLimits(limits)),
      holderOf({ kind: "tenant", id: tenant }, books.limitsOf({ kind: "tenant", id: tenant })),
    ];
  }

  admit(): void | Promise<void> {
    const at = this.#books.now();
    const enter = (): void | Promise<void> => {
      this.#admittedAt = at;
      return this.#inner.admit();
    };
    if (this.#call.plane === "ops") return enter();
    const place = take(this.#books, this.#own, PLACE, at, (standings) => {
      this.#standings = standings;
    });
    const hold = (held: Held): void | Promise<void> => {
      // The client may have left while the ledger was asked.
      if (this.#closed) held.settle();
      else this.#place = held;
      return enter();
    };
    return place instanceof Promise ? place.then(hold) : hold(place);
  }

  headers(): Readonly<Record<string, string>> {
    const standings = [...this.#standings, ...this.#workStandings];
    const inner = this.#inner.headers();
    if (standings.length === 0) return inner;
    return { ...inner, ...limitHeaders(this.#call.dialect, standings, this.#books.now()) };
  }

  async record(outcome: Outcome): Promise<void> {
    if (!this.#booked && !this.#reserved && this.#admittedAt !== undefined) {
      this.#booked = true;
      this.#failed = failed(outcome);
      await this.#post(this.#admittedAt, { requests: 1, errors: this.#failed ? 1 : 0 });
    }
    await this.#inner.record(outcome);
  }

  close(outcome: Outcome): void {
    this.#closed = true;
    this.#place?.settle(this.#admittedAt === undefined ? {} : REQUEST);
    if (this.#admittedAt !== undefined) {
      const requests = this.#booked || this.#reserved ? 0 : 1;
      const errors = !this.#failed && failed(outcome) ? 1 : 0;
      // Who waits for it has gone; the book keeps what it cannot write.
      if (requests + errors > 0) this.#post(this.#admittedAt, { requests, errors }).catch(() => {});
    }
    this.#inner.close(outcome);
  }

  async #reserve(work: Work): Promise<Reservation> {
    const { usage, queue, now, onRefused } = this.#books;
    if (usage.failing) throw unwritable();
    const at = now();
    const { tenant } = this.#principal;
    this.#model = work.model;
    const leaveQueue = queue.take(tenant, work.sequences, () => onRefused("tenant", "queued_sequences"));
    let held: Held | undefined;
    let inner: Reservation;
    try {
      held = await this.#takeWork(work, at);
      inner = await this.#inner.meter.reserve(work);
    } catch (error) {
      held?.settle();
      leaveQueue();
      throw error;
    }
    this.#reserved = true;
    this.#models.add(work.model);
    const settle = async (used: Usage): Promise<void> => {
      leaveQueue();
      // The shared counters first: should the process end in between, they have too much and not too little.
      await held.settle({ ...REQUEST, ...this.#amounts(work.model, used) });
      await Promise.all([inner.settle(used), this.#book(work.model, used, at)]);
    };
    let settled: Promise<void> | undefined;
    return {
      settle: (used) => {
        settled ??= settle(used);
        return settled;
      },
    };
  }

  #takeWork(work: Work, at: number): Held | Promise<Held> {
    const { model, sequences } = work;
    const amounts = { ...this.#amounts(model, { ...work, cachedTokens: 0 }), sequences };
    const atMost = work.atMost === undefined ? amounts : this.#amounts(model, { ...work.atMost, cachedTokens: 0 });
    const limits = this.#books.limitsOf({ kind: "model", id: model });
    const place = this.#models.has(model) ? { calls: 1 } : PLACE;
    const holders =
      limits === undefined
        ? this.#own
        : [...this.#own, { ...holderOf({ kind: "model", id: model }, limits), also: place }];
    const seen = (standings: readonly Standing[]): void => {
      this.#workStandings = standings;
    };
    return take(this.#books, holders, amounts, at, seen, atMost);
  }

  #amounts(model: string, used: Omit<Usage, "reasoningTokens">): Amounts {
    const { promptTokens: prompt, completionTokens: completion } = used;
    return { prompt, completion, tokens: prompt + completion, usd: costOf(this.#books.priceOf(model), used) };
  }

  /** The call's request counts on the day on which it was let in, its tokens where they were reserved. */
  async #book(model: string, used: Usage, at: number): Promise<void> {
    const { promptTokens, completionTokens, cachedTokens } = used;
    const cost = costOf(this.#books.priceOf(model), used);
    const admittedAt = this.#admittedAt ?? at;
    const first = !this.#booked;
    this.#booked = true;
    const here = first && dayOf(admittedAt) === dayOf(at);
    await Promise.all([
      this.#post(at, { promptTokens, completionTokens, cachedTokens, cost, requests: here ? 1 : 0 }, model),
      first && !here ? this.#post(admittedAt, { requests: 1 }, model) : undefined,
    ]);
  }

  #post(at: number, counts: Partial<UsageCounts>, model = this.#model): Promise<void> {
    const { id: key, tenant } = this.#principal;
    return this.#books.usage.post({ ...NO_COUNTS, ...counts, key, tenant, model, day: dayOf(at) });
  }
}

/** A client that leaves has not failed. */
function failed({ status, fault }: Outcome): boolean {
  return fault === "cancelled" ? false : status >= 400 || fault !== undefined;
}
