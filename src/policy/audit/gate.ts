/**
 * A gate that records: around another one, whose decisions it writes down.
 *
 * Invariants: a call that is kept has its record on the disk before the first byte of its answer, also when it is
 * refused, and has one also when its client went away before; what was not known by then follows as an `end` record,
 * for which nobody waits. Nothing that a client wrote is kept unless the operator asked for content.
 *
 * Kept: every call of a route declared with audit "metadata", everything that matched no route, and of routes with
 * audit "none" what was refused (a Fault, whoever called). Probes, model lists, metrics and token counts that went
 * well are not: they are many, and say nothing that the metrics do not.
 */
import { stringifyJson } from "#base/json.ts";
import type { Usage } from "#core/calls.ts";
import { Fault, type FaultKind } from "#core/fault.ts";
import { type Meter, NO_USAGE, type Reservation, type Work } from "#core/metering.ts";
import type { Admission, Gate, Outcome, PolicyCall } from "#policy/gate.ts";
import { AnonymousCalls } from "./_anonymous.ts";
import { callText, workText } from "./_call-text.ts";
import { Content } from "./_content.ts";
import { AuditFailure, type AuditLog, type RecordGroup } from "./log.ts";

export interface AuditGateOptions {
  /** When a record cannot be written: the call is refused with 503, or goes on and is counted. */
  readonly onFailure: "refuse" | "allow";
  /** Present: requests and answers of the public listener are kept, as far as they are short; the function takes secrets out of them. */
  readonly content?: (text: string) => string;
}

export interface AuditedGate extends Gate {
  /** Writes what was only counted so far. */
  close(): void;
}

/** Faults by which policy turned a call away. What failed otherwise had been let in. */
const DENIALS: ReadonlySet<FaultKind> = new Set<FaultKind>([
  "unauthenticated",
  "forbidden",
  "route_not_found",
  "method_not_allowed",
  "rate_limited",
]);

export function auditedGate(gate: Gate, log: AuditLog, options: AuditGateOptions): AuditedGate {
  const anonymous = new AnonymousCalls((counted) => void log.append("anonymous", counted).catch(counts));
  const desk = { log, options, anonymous, waiting: new WaitingCalls(log, options) };
  return {
    identify: gate.identify,
    open: (call) => new AuditedCall(gate.open(call), call, desk),
    close: () => anonymous.close(),
  };
}

/** The log has counted the failure. */
function counts(error: unknown): void {
  if (!(error instanceof AuditFailure)) throw error;
}

function noted(): void {}

interface Waiting {
  readonly group: RecordGroup;
  /** @throws Fault policy_unavailable, unless calls go on without a record */
  readonly known: Promise<void>;
  calls: number;
}

/** Calls that wait for their records: one promise for all whose records go together. */
class WaitingCalls {
  readonly #log: AuditLog;
  readonly #options: AuditGateOptions;
  #latest: Waiting | undefined;

  constructor(log: AuditLog, options: AuditGateOptions) {
    this.#log = log;
    this.#options = options;
  }

  /** Once for each call whose record it has. */
  for(group: RecordGroup): Promise<void> {
    if (this.#latest?.group === group) {
      this.#latest.calls++;
      return this.#latest.known;
    }
    const known = group.written.catch((error: unknown) => this.#failed(error, waiting.calls));
    const waiting: Waiting = { group, known, calls: 1 };
    this.#latest = waiting;
    return known;
  }

  #failed(error: unknown, calls: number): void {
    if (!(error instanceof AuditFailure)) throw error;
    if (this.#options.onFailure === "allow") {
      for (let call = 0; call < calls; call++) this.#log.passedUnrecorded();
      return;
    }
    throw new Fault("policy_unavailable", "The call cannot be recorded, and none is answered without.", {
      detail: error.message,
      retryAfterMs: 1000,
      cause: error,
    });
  }
}

interface Desk {
  readonly log: AuditLog;
  readonly options: AuditGateOptions;
  readonly anonymous: AnonymousCalls;
  readonly waiting: WaitingCalls;
}

/** A record, written or on its way. */
interface Recorded {
  readonly outcome: Outcome;
  readonly usage: Usage;
  readonly group: RecordGroup;
  /** In the group. */
  readonly place: number;
}

class AuditedCall implements Admission, Meter {
  /** As its work sees it. */
  readonly meter: Meter = this;
  readonly content?: NonNullable<Admission["content"]>;
  readonly #inner: Admission;
  readonly #call: PolicyCall;
  readonly #desk: Desk;
  readonly #content: Content | undefined;
  #model: string | undefined;
  #usage: Usage = NO_USAGE;
  #reservations = 0;
  #recorded: Recorded | undefined;
  #asked = false;
  #closed: Outcome | undefined;

  constructor(inner: Admission, call: PolicyCall, desk: Desk) {
    this.#inner = inner;
    this.#call = call;
    this.#desk = desk;
    // What is said on the operations listener is about keys, and new ones stand in its answers (Wall: T71).
    const content = call.plane === "public" ? desk.options.content : undefined;
    this.#content = content === undefined ? undefined : new Content(content);
    if (this.#content !== undefined) {
      const kept = this.#content;
      this.content = (part, piece) => {
        kept.add(part, piece);
        inner.content?.(part, piece);
      };
    }
  }

  admit(): void | Promise<void> {
    return this.#inner.admit();
  }

  headers(): Readonly<Record<string, string>> {
    return this.#inner.headers();
  }

  /** Wall: T70. */
  record(outcome: Outcome): void | Promise<void> {
    const known = this.#inner.record(outcome);
    return known instanceof Promise ? known.then(() => this.#kept(outcome)) : this.#kept(outcome);
  }

  #kept(outcome: Outcome): void | Promise<void> {
    const group = this.#write(outcome);
    return group === undefined ? undefined : this.#desk.waiting.for(group);
  }

  close(outcome: Outcome): void {
    this.#inner.close(outcome);
    this.#closed = outcome;
    // Nothing was sent, so nothing waited for a record.
    if (!this.#asked) this.#write(outcome);
    this.#end();
  }

  /** @returns what its record is written with; undefined: none is kept of this call */
  #write(outcome: Outcome): RecordGroup | undefined {
    this.#asked = true;
    const { audit, principal } = this.#call;
    if (audit === "none" && outcome.fault === undefined) return undefined;
    const { anonymous, log } = this.#desk;
    if (principal === undefined && !anonymous.admits(this.#call, outcome.fault)) return undefined;
    const group = log.enter("call", this.#fields(outcome));
    this.#recorded = { outcome, usage: this.#usage, group, place: group.size - 1 };
    return group;
  }

  #fields(outcome: Outcome): string {
    const denied = outcome.fault !== undefined && DENIALS.has(outcome.fault);
    const text = callText(this.#call, outcome, denied ? "deny" : "allow") + this.#work();
    const content = this.#content?.take("request");
    return content === undefined ? text : `${text},${stringifyJson(content).slice(1, -1)}`;
  }

  #work(): string {
    return this.#model === undefined ? "" : workText({ model: this.#model, usage: this.#usage });
  }

  /** Once the call is over and all that it had reserved is settled, whichever is later. */
  #end(): void {
    const { log } = this.#desk;
    const recorded = this.#recorded;
    const outcome = this.#closed;
    if (recorded === undefined || outcome === undefined || this.#reservations > 0) return;
    this.#recorded = undefined;
    const { status, fault } = recorded.outcome;
    const answer = this.#content?.take("answer");
    const known = this.#usage === recorded.usage && status === outcome.status && fault === outcome.fault;
    if (known && answer === undefined) return;
    const milliseconds = Date.now() - this.#call.at;
    const { status: last, fault: lastFault } = outcome;
    const append = (call: number): void => {
      const fields = { request: this.#call.requestId, call, status: last, fault: lastFault ?? null, milliseconds };
      const text = `,${stringifyJson(fields).slice(1, -1)}${this.#work()}`;
      log.append("end", answer === undefined ? text : `${text},${stringifyJson(answer).slice(1, -1)}`).catch(counts);
    };
    // Who asked for the record has heard of its failure.
    const { group, place } = recorded;
    group.written.then(() => append(group.first + place), noted);
  }

  reserve(work: Work): Reservation | Promise<Reservation> {
    this.#model = work.model;
    const reserved = this.#inner.meter.reserve(work);
    return reserved instanceof Promise ? reserved.then((got) => this.#watch(got)) : this.#watch(reserved);
  }

  #watch(reservation: Reservation): Reservation {
    this.#reservations++;
    return new WatchedWork(this, reservation);
  }

  /** Work is over. */
  used(usage: Usage): void {
    this.#reservations--;
    this.#usage = sum(this.#usage, usage);
    this.#end();
  }
}

class WatchedWork implements Reservation {
  readonly #call: AuditedCall;
  readonly #reservation: Reservation;
  #open = true;

  constructor(call: AuditedCall, reservation: Reservation) {
    this.#call = call;
    this.#reservation = reservation;
  }

  settle(used: Usage): Promise<void> {
    if (this.#open) {
      this.#open = false;
      this.#call.used(used);
    }
    return this.#reservation.settle(used);
  }
}

function sum(a: Usage, b: Usage): Usage {
  return {
    promptTokens: a.promptTokens + b.promptTokens,
    completionTokens: a.completionTokens + b.completionTokens,
    cachedTokens: a.cachedTokens + b.cachedTokens,
    reasoningTokens: a.reasoningTokens + b.reasoningTokens,
  };
}
