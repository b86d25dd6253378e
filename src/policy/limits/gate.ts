/**
 * Limits and usage around a gate: requests and places are taken in `admit`, work in the meter's `reserve`; what was
 * not used goes back when the work is settled and the call closed.
 *
 * Invariants: a call is held by the limits of its key, its tenant and its model, all or nothing; no limit is passed,
 * as nothing is looked at without being taken (Wall: T80), but by what a guess was short of (core/metering.ts, atMost),
 * and none of a day or longer by more than one call's; whatever ends a call, it gives back what it did not use;
 * what a client sees the end of has been booked before (Wall: T81). The server's own calls are not held, and a request
 * to the operations listener takes no place: an operator has to get in when everything is used up. app makes the value.
 */
import type { Usage } from "#core/calls.ts";
import { type Reservation, UNMETERED, type Work } from "#core/metering.ts";
import type { Principal } from "#core/principal.ts";
import type { Admission, Gate, Outcome, PolicyCall } from "#policy/gate.ts";
import { unwritable } from "#policy/usage/book.ts";
import { NO_COUNTS, type UsageCounts } from "#policy/usage/usage.ts";
import { type Books, type Held, NONE, take } from "./_take.ts";
import { type Counter, Holders } from "./counters.ts";
import { limitHeaders, NO_STANDINGS } from "./headers.ts";
import { costOf } from "./price.ts";
import type { Amounts } from "./rules.ts";
import { dayOf } from "./windows.ts";

export type { Books } from "./_take.ts";

export function meteredGate(gate: Gate, books: Books): Gate {
  const holders = new Holders();
  return {
    identify: gate.identify,
    open: (call) => {
      const inner = gate.open(call);
      const { principal } = call;
      if (principal === undefined || principal.kind === "server") return inner;
      return new MeteredAdmission({ inner, books, holders, call, principal });
    },
  };
}

/** A place among the requests. */
const PLACE: Amounts = { requests: 1, calls: 1 };
/** What stays of it when the call is over. */
const REQUEST: Amounts = { requests: 1 };
/** Of a model whose requests have counted the call. */
const CALL: Amounts = { calls: 1 };
const NOBODY: readonly Counter[] = [];

interface Desk {
  readonly inner: Admission;
  readonly books: Books;
  readonly holders: Holders;
  readonly call: PolicyCall;
  readonly principal: Principal;
}

class MeteredAdmission implements Admission {
  readonly meter = { reserve: (work: Work) => this.#reserve(work) };
  readonly #desk: Desk;
  readonly #key: readonly Counter[];
  readonly #tenant: readonly Counter[];
  /** When it was let in; undefined: not yet, or not at all. */
  #admittedAt: number | undefined;
  #place: Held | undefined;
  #standings = NO_STANDINGS;
  /** Of the last work. */
  #workStandings = NO_STANDINGS;
  #model = "";
  /** Models whose request limits have counted this call; undefined: none. */
  #models: Set<string> | undefined;
  /** Its request is in the book. */
  #booked = false;
  /** A reservation was made: its settlement books the request. */
  #reserved = false;
  #failed = false;
  #closed = false;

  constructor(desk: Desk) {
    this.#desk = desk;
    const { books, holders, principal } = desk;
    const { id, tenant, limits } = principal;
    this.#key = holders.countersOf("key", id, books.keyLimits(limits));
    this.#tenant = holders.countersOf("tenant", tenant, books.limitsOf({ kind: "tenant", id: tenant }));
  }

  admit(): void | Promise<void> {
    const { books, call } = this.#desk;
    const at = books.now();
    if (call.plane === "ops") return this.#enter(at);
    const asked = { key: this.#key, tenant: this.#tenant, model: NOBODY, amounts: PLACE, atMost: PLACE, also: NONE };
    const place = take(books, asked, at, (standings) => {
      this.#standings = standings;
    });
    return place instanceof Promise ? place.then((held) => this.#hold(held, at)) : this.#hold(place, at);
  }

  #hold(held: Held, at: number): void | Promise<void> {
    this.#standings = held;
    // The client may have left while the ledger was asked.
    if (this.#closed) held.settle();
    else this.#place = held;
    return this.#enter(at);
  }

  #enter(at: number): void | Promise<void> {
    this.#admittedAt = at;
    return this.#desk.inner.admit();
  }

  headers(): Readonly<Record<string, string>> {
    const { inner, books, call } = this.#desk;
    const others = inner.headers();
    const [place, work] = [this.#standings, this.#workStandings];
    if (place.entries.length + work.entries.length === 0) return others;
    return limitHeaders(call.dialect, [place, work], books.now(), others);
  }

  record(outcome: Outcome): void | Promise<void> {
    const { inner } = this.#desk;
    if (this.#booked || this.#reserved || this.#admittedAt === undefined) return inner.record(outcome);
    this.#booked = true;
    this.#failed = failed(outcome);
    const posted = this.#post(this.#admittedAt, { ...NO_COUNTS, requests: 1, errors: this.#failed ? 1 : 0 });
    return posted.then(() => inner.record(outcome));
  }

  close(outcome: Outcome): void {
    this.#closed = true;
    this.#place?.settle(this.#admittedAt === undefined ? NONE : REQUEST);
    if (this.#admittedAt !== undefined) {
      const requests = this.#booked || this.#reserved ? 0 : 1;
      const errors = !this.#failed && failed(outcome) ? 1 : 0;
      // Who waits for it has gone; the book keeps what it cannot write.
      if (requests + errors > 0) this.#post(this.#admittedAt, { ...NO_COUNTS, requests, errors }).catch(() => {});
    }
    this.#desk.inner.close(outcome);
  }

  #reserve(work: Work): Reservation | Promise<Reservation> {
    const { usage, queue, now, onRefused } = this.#desk.books;
    if (usage.failing) throw unwritable();
    const at = now();
    const { tenant } = this.#desk.principal;
    this.#model = work.model;
    const leaveQueue = queue.take(tenant, work.sequences, () => onRefused("tenant", "queued_sequences"));
    let held: Held | Promise<Held>;
    try {
      held = this.#takeWork(work, at);
    } catch (error) {
      leaveQueue();
      throw error;
    }
    // Mostly the ledger is in this process, and nothing below counts: then there is nothing to wait for.
    if (!(held instanceof Promise) && this.#desk.inner.meter === UNMETERED) {
      this.#workStandings = held;
      return this.#begun(work, at, { held, inner: undefined, leaveQueue });
    }
    return this.#reserveBelow(work, at, held, leaveQueue);
  }

  async #reserveBelow(
    work: Work,
    at: number,
    taken: Held | Promise<Held>,
    leaveQueue: () => void,
  ): Promise<Reservation> {
    let held: Held | undefined;
    try {
      held = await taken;
      this.#workStandings = held;
      const inner = await this.#desk.inner.meter.reserve(work);
      return this.#begun(work, at, { held, inner, leaveQueue });
    } catch (error) {
      held?.settle();
      leaveQueue();
      throw error;
    }
  }

  #begun(work: Work, at: number, { held, inner, leaveQueue }: Begun): Reservation {
    const { model } = work;
    this.#reserved = true;
    this.#models ??= new Set();
    this.#models.add(model);
    const settle = (used: Usage): Promise<void> => {
      leaveQueue();
      const cost = this.#costOf(model, used);
      // The shared counters first: should the process end in between, they have too much and not too little.
      const given = held.settle({ ...amountsOf(used, cost), ...REQUEST });
      const book = (): Promise<void> => {
        const booked = this.#book(model, used, cost, at);
        return inner === undefined ? booked : Promise.all([inner.settle(used), booked]).then(() => {});
      };
      return given instanceof Promise ? given.then(book) : book();
    };
    let settled: Promise<void> | undefined;
    return {
      settle: (used) => {
        settled ??= settle(used);
        return settled;
      },
    };
  }

  #takeWork({ model, sequences, promptTokens, completionTokens, atMost }: Work, at: number): Held | Promise<Held> {
    const { books, holders } = this.#desk;
    const used = { promptTokens, completionTokens, cachedTokens: 0 };
    const amounts = { ...amountsOf(used, this.#costOf(model, used)), sequences };
    const most = { ...used, ...atMost };
    const asked = {
      key: this.#key,
      tenant: this.#tenant,
      model: holders.countersOf("model", model, books.limitsOf({ kind: "model", id: model })),
      amounts,
      atMost: atMost === undefined ? amounts : amountsOf(most, this.#costOf(model, most)),
      also: this.#models?.has(model) === true ? CALL : PLACE,
    };
    return take(books, asked, at, (standings) => {
      this.#workStandings = standings;
    });
  }

  #costOf(model: string, used: Tokens): number {
    return costOf(this.#desk.books.priceOf(model), used);
  }

  /** The call's request counts on the day on which it was let in, its tokens where they were reserved. */
  #book(model: string, used: Usage, cost: number, at: number): Promise<void> {
    const { promptTokens, completionTokens, cachedTokens } = used;
    const admittedAt = this.#admittedAt ?? at;
    const first = !this.#booked;
    this.#booked = true;
    const here = first && dayOf(admittedAt) === dayOf(at);
    const counts = { requests: here ? 1 : 0, errors: 0, promptTokens, cachedTokens, completionTokens, cost };
    const posted = this.#post(at, counts, model);
    if (!first || here) return posted;
    return Promise.all([posted, this.#post(admittedAt, { ...NO_COUNTS, requests: 1 }, model)]).then(() => {});
  }

  #post(at: number, counts: UsageCounts, model = this.#model): Promise<void> {
    const { id: key, tenant } = this.#desk.principal;
    return this.#desk.books.usage.post({ key, tenant, model, day: dayOf(at), ...counts });
  }
}

/** What a reservation holds. */
interface Begun {
  readonly held: Held;
  /** Undefined: nothing below counts. */
  readonly inner: Reservation | undefined;
  readonly leaveQueue: () => void;
}

type Tokens = Omit<Usage, "reasoningTokens">;

function amountsOf({ promptTokens: prompt, completionTokens: completion }: Tokens, usd: number): Amounts {
  return { prompt, completion, tokens: prompt + completion, usd };
}

/** A client that leaves has not failed. */
function failed({ status, fault }: Outcome): boolean {
  return fault === "cancelled" ? false : status >= 400 || fault !== undefined;
}
