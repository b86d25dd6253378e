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
import { AuditFailure, type AuditLog } from "./log.ts";

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
  const desk = { log, options, anonymous };
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

interface Desk {
  readonly log: AuditLog;
  readonly options: AuditGateOptions;
  readonly anonymous: AnonymousCalls;
}

class AuditedCall implements Admission {
  readonly meter: Meter;
  readonly content?: NonNullable<Admission["content"]>;
  readonly #inner: Admission;
  readonly #call: PolicyCall;
  readonly #desk: Desk;
  readonly #content: Content | undefined;
  #model: string | undefined;
  #usage: Usage = NO_USAGE;
  #reservations = 0;
  #recorded: { readonly outcome: Outcome; readonly usage: Usage; readonly seq: Promise<number> } | undefined;
  #asked = false;
  #closed: Outcome | undefined;

  constructor(inner: Admission, call: PolicyCall, desk: Desk) {
    this.#inner = inner;
    this.#call = call;
    this.#desk = desk;
    this.meter = { reserve: (work) => this.#reserve(work) };
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
    return this.#write(outcome)?.then(noted, (error: unknown) => this.#failed(error));
  }

  /** @throws Fault policy_unavailable, unless calls go on without a record */
  #failed(error: unknown): void {
    if (!(error instanceof AuditFailure)) throw error;
    if (this.#desk.options.onFailure === "allow") {
      this.#desk.log.passedUnrecorded();
      return;
    }
    throw new Fault("policy_unavailable", "The call cannot be recorded, and none is answered without.", {
      detail: error.message,
      retryAfterMs: 1000,
      cause: error,
    });
  }

  close(outcome: Outcome): void {
    this.#inner.close(outcome);
    this.#closed = outcome;
    // Nothing was sent, so nothing waited for a record.
    if (!this.#asked) this.#write(outcome)?.catch(counts);
    this.#end();
  }

  /** @returns the record on its way; undefined: none is kept of this call */
  #write(outcome: Outcome): Promise<number> | undefined {
    this.#asked = true;
    const { audit, principal } = this.#call;
    if (audit === "none" && outcome.fault === undefined) return undefined;
    const { anonymous, log } = this.#desk;
    if (principal === undefined && !anonymous.admits(this.#call, outcome.fault)) return undefined;
    const seq = log.append("call", this.#fields(outcome));
    this.#recorded = { outcome, usage: this.#usage, seq };
    return seq;
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
    recorded.seq.then(append, noted);
  }

  #reserve(work: Work): Reservation | Promise<Reservation> {
    this.#model = work.model;
    const reserved = this.#inner.meter.reserve(work);
    return reserved instanceof Promise ? reserved.then((got) => this.#watch(got)) : this.#watch(reserved);
  }

  #watch(reservation: Reservation): Reservation {
    this.#reservations++;
    let open = true;
    return {
      settle: (used) => {
        if (open) {
          open = false;
          this.#reservations--;
          this.#usage = sum(this.#usage, used);
          this.#end();
        }
        return reservation.settle(used);
      },
    };
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
