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
import { type Meter, type Reservation, UNMETERED, type Work } from "#core/metering.ts";
import type { Principal } from "#core/principal.ts";
import type { Admission, Gate, Outcome, PolicyCall } from "#policy/gate.ts";
import { unwritable } from "#policy/usage/book.ts";
import { NO_COUNTS, type UsageCounts } from "#policy/usage/usage.ts";
import { type Books, type Denied, entriesOf, type Held, NONE, take } from "./_take.ts";
import { type Holder, Holders } from "./counters.ts";
import { limitHeaders, NO_STANDINGS, type Standings } from "./headers.ts";
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
      return new MeteredAdmission({ books, holders }, inner, call, principal);
    },
  };
}

/** What a model takes besides. */
const PLACE: Amounts = { requests: 1, calls: 1 };
/** Of a model whose requests have counted the call. */
const CALL: Amounts = { calls: 1 };
/** What stays of a place when the call is over. */
const REQUEST: Amounts = { requests: 1 };

interface Desk {
  readonly books: Books;
  readonly holders: Holders;
}

class MeteredAdmission implements Admission, Meter {
  /** As its work sees it. */
  readonly meter: Meter = this;
  readonly #desk: Desk;
  readonly #inner: Admission;
  readonly #call: PolicyCall;
  readonly #principal: Principal;
  readonly #key: Holder;
  readonly #tenant: Holder;
  /** When it was let in; undefined: not yet, or not at all. */
  #admittedAt: number | undefined;
  #place: Held | undefined;
  #standings: Standings = NO_STANDINGS;
  /** Of the last work. */
  #workStandings: Standings = NO_STANDINGS;
  #model = "";
  /** The first model whose request limits have counted this call, and further ones. */
  #first: string | undefined;
  #further: Set<string> | undefined;
  /** Its request is in the book. */
  #booked = false;
  /** A reservation was made: its settlement books the request. */
  #reserved = false;
  #failed = false;
  #closed = false;

  constructor(desk: Desk, inner: Admission, call: PolicyCall, principal: Principal) {
    this.#desk = desk;
    this.#inner = inner;
    this.#call = call;
    this.#principal = principal;
    const { books, holders } = desk;
    const { id, tenant, limits } = principal;
    this.#key = holders.of("key", id, books.keyLimits(limits));
    this.#tenant = holders.of("tenant", tenant, books.limitsOf("tenant", tenant));
  }

  admit(): void | Promise<void> {
    const { books } = this.#desk;
    const at = books.now();
    if (this.#call.plane === "ops") return this.#enter(at);
    const place = take(books, this.#key.placeWith(this.#tenant, at), at);
    return place instanceof Promise ? place.then((held) => this.#hold(held, at)) : this.#hold(place, at);
  }

  #hold(held: Held | Denied, at: number): void | Promise<void> {
    this.#standings = held;
    if (held.refused !== undefined) throw held.refused;
    // The client may have left while the ledger was asked.
    if (this.#closed) held.settle();
    else this.#place = held;
    return this.#enter(at);
  }

  #enter(at: number): void | Promise<void> {
    this.#admittedAt = at;
    return this.#inner.admit();
  }

  headers(): Readonly<Record<string, string>> {
    const others = this.#inner.headers();
    const [place, work] = [this.#standings, this.#workStandings];
    if (place.entries.length + work.entries.length === 0) return others;
    return limitHeaders(this.#call.dialect, [place, work], this.#desk.books.now(), others);
  }

  record(outcome: Outcome): void | Promise<void> {
    if (this.#booked || this.#reserved || this.#admittedAt === undefined) return this.#inner.record(outcome);
    this.#booked = true;
    this.#failed = failed(outcome);
    const posted = this.#post(this.#admittedAt, { ...NO_COUNTS, requests: 1, errors: this.#failed ? 1 : 0 });
    return posted.then(() => this.#inner.record(outcome));
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
    this.#inner.close(outcome);
  }

  reserve(work: Work): Reservation | Promise<Reservation> {
    const { usage, queue, now, onRefused } = this.#desk.books;
    if (usage.failing) throw unwritable();
    const at = now();
    this.#model = work.model;
    const full = queue.take(this.#principal.tenant, work.sequences);
    if (full !== undefined) {
      onRefused("tenant", "queued_sequences");
      throw full;
    }
    try {
      const held = this.#takeWork(work, at);
      // Mostly the ledger is in this process, and nothing below counts: then there is nothing to wait for.
      if (held instanceof Promise || this.#inner.meter !== UNMETERED) return this.#reserveBelow(work, at, held);
      return this.#begun(work, at, this.#granted(held), undefined);
    } catch (error) {
      queue.leave(this.#principal.tenant, work.sequences);
      throw error;
    }
  }

  async #reserveBelow(work: Work, at: number, taken: Held | Denied | Promise<Held | Denied>): Promise<Reservation> {
    let held: Held | undefined;
    try {
      held = this.#granted(await taken);
      return this.#begun(work, at, held, await this.#inner.meter.reserve(work));
    } catch (error) {
      held?.settle();
      this.#desk.books.queue.leave(this.#principal.tenant, work.sequences);
      throw error;
    }
  }

  /** @throws Fault it was refused */
  #granted(held: Held | Denied): Held {
    this.#workStandings = held;
    if (held.refused !== undefined) throw held.refused;
    return held;
  }

  /** @param inner undefined: nothing below counts */
  #begun(work: Work, at: number, held: Held, inner: Reservation | undefined): Reservation {
    this.#reserved = true;
    this.#first ??= work.model;
    if (work.model !== this.#first) this.#further = new Set(this.#further).add(work.model);
    return new MeteredWork(this, work, { at, held, inner });
  }

  #takeWork({ model, sequences, promptTokens, completionTokens, atMost }: Work, at: number) {
    const { books, holders } = this.#desk;
    const amounts = this.#amountsOf(model, promptTokens, completionTokens, sequences);
    const asked = {
      key: this.#key,
      tenant: this.#tenant,
      model: holders.of("model", model, books.limitsOf("model", model)),
      amounts,
      atMost:
        atMost === undefined
          ? amounts
          : this.#amountsOf(model, atMost.promptTokens, atMost.completionTokens, sequences),
      also: model === this.#first || this.#further?.has(model) === true ? CALL : PLACE,
    };
    return take(books, entriesOf(asked, at), at);
  }

  #amountsOf(model: string, promptTokens: number, completionTokens: number, sequences: number): Amounts {
    const usd = this.costOf(model, { promptTokens, completionTokens, cachedTokens: 0 });
    return {
      prompt: promptTokens,
      completion: completionTokens,
      tokens: promptTokens + completionTokens,
      usd,
      sequences,
    };
  }

  costOf(model: string, used: Tokens): number {
    const price = this.#desk.books.priceOf(model);
    return price === undefined ? 0 : costOf(price, used);
  }

  leaveQueue({ sequences }: Work): void {
    this.#desk.books.queue.leave(this.#principal.tenant, sequences);
  }

  /** The call's request counts on the day on which it was let in, its tokens where they were reserved. */
  book(model: string, used: Usage, cost: number, at: number): Promise<void> {
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
    const { id: key, tenant } = this.#principal;
    const { requests, errors, promptTokens, cachedTokens, completionTokens, cost } = counts;
    const day = dayOf(at);
    const row = { key, tenant, model, day, requests, errors, promptTokens, cachedTokens, completionTokens, cost };
    return this.#desk.books.usage.post(row);
  }
}

/** What a reservation holds. */
interface Begun {
  readonly at: number;
  readonly held: Held;
  /** Undefined: nothing below counts. */
  readonly inner: Reservation | undefined;
}

class MeteredWork implements Reservation {
  readonly #admission: MeteredAdmission;
  readonly #work: Work;
  readonly #begun: Begun;
  #settled: Promise<void> | undefined;

  constructor(admission: MeteredAdmission, work: Work, begun: Begun) {
    this.#admission = admission;
    this.#work = work;
    this.#begun = begun;
  }

  settle(used: Usage): Promise<void> {
    this.#settled ??= this.#settle(used);
    return this.#settled;
  }

  #settle(used: Usage): Promise<void> {
    this.#admission.leaveQueue(this.#work);
    const { promptTokens: prompt, completionTokens: completion } = used;
    const usd = this.#admission.costOf(this.#work.model, used);
    // The shared counters first: should the process end in between, they have too much and not too little.
    const given = this.#begun.held.settle({ requests: 1, prompt, completion, tokens: prompt + completion, usd });
    return given instanceof Promise ? given.then(() => this.#book(used, usd)) : this.#book(used, usd);
  }

  #book(used: Usage, cost: number): Promise<void> {
    const { at, inner } = this.#begun;
    const booked = this.#admission.book(this.#work.model, used, cost, at);
    return inner === undefined ? booked : Promise.all([inner.settle(used), booked]).then(() => {});
  }
}

type Tokens = Omit<Usage, "reasoningTokens">;

/** A client that leaves has not failed. */
function failed({ status, fault }: Outcome): boolean {
  return fault === "cancelled" ? false : status >= 400 || fault !== undefined;
}
