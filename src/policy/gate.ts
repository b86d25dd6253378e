/**
 * What the corridor asks of policy, and a gate that keeps no books.
 *
 * One gate a server. Order within a call: identify → open → (scope checked, grant made with the admission's meter) →
 * admit → … → record → … → close. `record` and `close` come once on every path that had an `open`; both see every
 * call, refused ones included. Callers: http/pipeline.ts; app makes the value.
 */
import type { FaultKind } from "#core/fault.ts";
import { type Meter, UNMETERED } from "#core/metering.ts";
import type { Principal, Scope } from "#core/principal.ts";
import type { Identify } from "./identify.ts";
import type { Peer } from "./peer.ts";

/** A call as policy sees it. Nothing in it was written by the client, but for the address. */
export interface PolicyCall {
  readonly requestId: string;
  /** Unix milliseconds. */
  readonly at: number;
  /** A declared method, or "other". */
  readonly method: string;
  /** The declared path; undefined: no route matched. */
  readonly route: string | undefined;
  /** Undefined: an open route, or none. */
  readonly scope: Scope | undefined;
  readonly plane: "public" | "ops";
  /** Name of the dialect in which it is answered. */
  readonly dialect: string;
  /** What the audit log keeps: the route's declaration. */
  readonly audit: "none" | "metadata";
  /** Undefined: nobody, or an open route. */
  readonly principal: Principal | undefined;
  readonly peer: Peer;
}

export interface Outcome {
  /** As it is about to be sent; 499: nothing can be sent. */
  readonly status: number;
  readonly fault: FaultKind | undefined;
  /** The declared path of the route that answered in place of the one that was asked; absent: none did. */
  readonly target?: string;
}

export interface Admission {
  readonly meter: Meter;
  /** Takes a place among the caller's requests. @throws Fault rate_limited */
  admit(): void | Promise<void>;
  /** Headers of the answer: what is left of the limits. Lower case. */
  headers(): Readonly<Record<string, string>>;
  /**
   * Before the first byte of the answer: resolves once the call's record is on the disk.
   * @throws Fault when it cannot be written and the operator wants no answer without it
   */
  record(outcome: Outcome): void | Promise<void>;
  /**
   * Present: somebody wants to see what is said. Called with the body as it was read, and with the answer's pieces as
   * they are sent.
   */
  readonly content?: (part: "request" | "answer", piece: string | Uint8Array) => void;
  /** The call is over and gives its place back; reservations are settled by who made them, perhaps a moment later. Never throws. */
  close(outcome: Outcome): void;
}

export interface Gate {
  readonly identify: Identify;
  open(call: PolicyCall): Admission;
}

const NOTHING: Readonly<Record<string, string>> = {};
const OPEN: Admission = {
  meter: UNMETERED,
  admit: () => {},
  headers: () => NOTHING,
  record: () => {},
  close: () => {},
};

/** Knows who calls and counts nothing. */
export function plainGate(identify: Identify): Gate {
  return { identify, open: () => OPEN };
}
