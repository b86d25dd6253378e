/**
 * One try of a call at one upstream: its ticket, what its outcome says of the upstream, and whether another try follows.
 *
 * It is the call's wish, and who asks the upstream, so that a call that is answered at the first try makes no other object
 * and no promise. Invariants (Wall: T122): the ticket is given back once, whatever ends the try; who asked is told one of
 * answer and failure, once, by the last try. What it asks of the pool is a Desk. Private to pool.ts.
 */
import { Fault } from "#core/fault.ts";
import type { RelaySource, UpstreamRequest } from "#core/relay.ts";
import type { Asker, UpstreamOutcome, UpstreamTimeouts } from "#egress/upstream/exchange.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import type { JudgedHead } from "#egress/upstream/heads.ts";
import type { Ticket, Verdict, Wish } from "./balancer.ts";
import type { Answering, PoolCall, PoolMember, Receiver } from "./pool.ts";
import { judgeStatus, mayHaveBegun, mayRetry, type Outcome, outcomeOf, verdictOf } from "./rules.ts";

/** What a try needs of its pool. */
export interface Desk {
  readonly timeouts: UpstreamTimeouts;
  readonly now: () => number;
  /** @returns undefined: it has to wait. @throws Fault nobody can help it */
  take(wish: Wish): Ticket | undefined;
  /** @throws Fault */
  wait(wish: Wish, call: PoolCall): Promise<Ticket>;
  member(id: number): PoolMember | undefined;
  give(ticket: Ticket, verdict: Verdict): void;
  correct(ticket: Ticket, tokens: number): void;
  sawHead(ticket: Ticket, label: string, seconds: number): void;
  ended(label: string, outcome: Outcome): void;
  /** Behind a try that failed. @returns who shall not be asked again; undefined: no other may be tried */
  again(ticket: Ticket, wish: Wish, fault: Fault): ReadonlySet<number> | undefined;
}

/** The tries before one. */
interface Before {
  readonly tries: number;
  /** How many of them an upstream may have begun. */
  readonly begun: number;
  readonly excluded: ReadonlySet<number>;
}

const NONE: Before = { tries: 0, begun: 0, excluded: new Set() };
const SMALL_BODY = 64 * 1024;

export class Try implements Wish, Asker, Answering {
  // Wish
  readonly tokens: number;
  readonly blocks: Wish["blocks"];
  readonly adapter: string | undefined;
  readonly excluded: ReadonlySet<number>;
  // Asker
  readonly timeouts: UpstreamTimeouts;
  readonly signal: AbortSignal | undefined;
  readonly maxBytes: number | undefined;
  readonly #desk: Desk;
  readonly #request: UpstreamRequest;
  readonly #call: PoolCall;
  readonly #receiver: Receiver;
  readonly #before: Before;
  #ticket: Ticket | undefined;
  #startedAt = 0;
  /** By its head. */
  #outcome: Outcome | undefined;
  /** Who asked has its answer, so that no other try follows. */
  #answered = false;
  #spent = false;
  /** The operator's name for the upstream. */
  upstream = "";

  constructor(
    desk: Desk,
    request: UpstreamRequest,
    call: PoolCall,
    receiver: Receiver,
    blocks: Wish["blocks"],
    before: Before = NONE,
  ) {
    this.#desk = desk;
    this.#request = request;
    this.#call = call;
    this.#receiver = receiver;
    this.tokens = call.tokens;
    this.blocks = blocks;
    this.adapter = call.adapter;
    this.excluded = before.excluded;
    this.timeouts = desk.timeouts;
    this.signal = call.signal;
    this.maxBytes = call.maxBytes;
    this.#before = before;
  }

  /** Throws nothing. */
  start(): void {
    try {
      const ticket = this.#desk.take(this);
      if (ticket !== undefined) this.#go(ticket);
      else this.#wait();
    } catch (error) {
      this.#receiver.failed(error);
    }
  }

  #wait(): void {
    this.#desk.wait(this, this.#call).then(
      (ticket) => this.#go(ticket),
      (error: unknown) => this.#receiver.failed(error),
    );
  }

  #go(ticket: Ticket): void {
    this.#ticket = ticket;
    const member = this.#desk.member(ticket.id);
    if (member === undefined) {
      this.#fall(new UpstreamFault("connect", { sent: false, detail: "it left" }));
      return;
    }
    this.upstream = member.label;
    this.#startedAt = this.#desk.now();
    try {
      member.link.ask(this.#request, this);
    } catch (error) {
      this.failed(error);
    }
  }

  onAbort(run: (reason: Fault) => void): void {
    this.#call.onAbort?.(run);
  }

  headed(head: JudgedHead, source: RelaySource, written: boolean): void {
    const judged = judgeStatus(head);
    this.#outcome = judged?.outcome ?? (head.status < 400 ? "ok" : "rejected");
    if (judged === undefined) {
      if (this.#ticket !== undefined)
        this.#desk.sawHead(this.#ticket, this.upstream, (this.#desk.now() - this.#startedAt) / 1000);
      this.#answered = true;
      this.#receiver.answered(head, source, this);
      if (written) this.#spend();
      return;
    }
    this.#give(judged.verdict);
    discard(source);
    this.#fall(judged.fault);
  }

  failed(error: unknown): void {
    if (error instanceof Fault) {
      this.#fall(error);
      return;
    }
    this.#give("neutral");
    this.#receiver.failed(error);
  }

  ended(end: UpstreamOutcome, fault: Fault | undefined): void {
    this.#desk.ended(this.upstream, end === "whole" ? (this.#outcome ?? "ok") : outcomeOf(end, fault));
    this.#give(verdictOf(end, fault));
    if (end === "whole" && this.#answered) this.#spend();
  }

  /** Wall: T127, a try before this one may still be written from its request. */
  #spend(): void {
    if (this.#spent || this.#before !== NONE) return;
    this.#spent = true;
    this.#call.spent?.();
  }

  settled(tokens: number): void {
    if (this.#ticket !== undefined) this.#desk.correct(this.#ticket, Math.max(0, Math.round(tokens)));
  }

  #give(verdict: Verdict): void {
    if (this.#ticket !== undefined) this.#desk.give(this.#ticket, verdict);
  }

  /** It has failed before its head went to anybody: the next one tries, or who asked is told. */
  #fall(fault: Fault): void {
    // Of an exchange that began, what it says of the upstream was told already.
    this.#give("neutral");
    const ticket = this.#ticket;
    const tries = this.#before.tries + 1;
    const begun = this.#before.begun + (mayHaveBegun(fault) ? 1 : 0);
    const may = mayRetry(fault, { attempt: tries, begun, idempotent: this.#call.idempotent });
    const excluded = may && ticket !== undefined ? this.#desk.again(ticket, this, fault) : undefined;
    if (excluded === undefined) {
      this.#receiver.failed(fault);
      return;
    }
    const next = { tries, begun, excluded };
    new Try(this.#desk, this.#request, this.#call, this.#receiver, this.blocks, next).start();
  }
}

/** Reads a short body to its end, so that the connection lives on; gives up a long one. */
function discard(source: RelaySource): void {
  let bytes = 0;
  const write = (chunk: Uint8Array): boolean => {
    bytes += chunk.byteLength;
    if (bytes > SMALL_BODY) source.cancel();
    return true;
  };
  source.pipe({ write, end: () => {}, fail: () => {} });
}
