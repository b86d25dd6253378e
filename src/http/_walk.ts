/**
 * What the corridor's steps share: what is known of a call on its walk, its books with policy, and its grant.
 *
 * Private to the pipeline and its parts (_relayed.ts, _refuse.ts).
 */
import type { Log } from "#base/log.ts";
import type { OpenCalls } from "#base/open-calls.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault, type FaultKind } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { authorize, requireOperator } from "#policy/authorize.ts";
import type { FindClient } from "#policy/client-address.ts";
import type { Admission, Gate, Outcome } from "#policy/gate.ts";
import type { Peer } from "#policy/peer.ts";
import type { Exchange } from "./_exchange.ts";
import type { Before, OwnHeaders } from "./_head.ts";
import type { Anonymous } from "./access.ts";
import type { Counters } from "./counters.ts";
import type { HttpOptions } from "./options.ts";
import type { Matched } from "./registrar.ts";
import type { Relay } from "./relay.ts";
import type { AnyRoute, ListenerPlane, SpokenBy } from "./route.ts";

/** What is known of a call when it is over: data for metrics and the access log, nothing that the client wrote. */
export interface CallRecord {
  readonly requestId: string;
  /** The declared path; undefined: no route matched. */
  readonly route: string | undefined;
  /** A declared method, or "other". */
  readonly method: string;
  /** As sent; 499: nothing could be sent. */
  readonly status: number;
  readonly fault: FaultKind | undefined;
  /** Id of the principal. */
  readonly principal: string | undefined;
  readonly milliseconds: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
}

export type Observer = (record: CallRecord) => void;

/** What the corridor works with; one for all listeners of a server. */
export interface Corridor<S> {
  readonly services: S;
  readonly gate: Gate;
  readonly client: FindClient;
  /** Prints what happens outside of any route. */
  readonly dialect: Dialect;
  readonly orBy: SpokenBy | undefined;
  readonly options: HttpOptions;
  readonly counters: Counters;
  readonly log: Log;
  readonly observer: Observer;
  readonly relay: Relay<S> | undefined;
  /** What the relay wants. */
  readonly relayed: ReadonlySet<AnyRoute<S>>;
  /** Calls on their way, for the server's end. */
  readonly open: OpenCalls<Exchange>;
  /** Called when the last open call has settled. */
  whenIdle: (() => void) | undefined;
  draining: boolean;
  /** Calls with a key on their way. */
  admitted: number;
}

/** What a walk finds out step by step; `settle` reports it. */
export class Walk<S> implements Before {
  readonly exchange: Exchange;
  readonly matched: Matched<S>;
  readonly plane: ListenerPlane;
  readonly dialect: Dialect;
  readonly peer: Peer;
  principal: Principal | undefined;
  /** Opened once it is known who calls, or that nobody does. */
  admission: Admission | undefined;
  fault: Fault | undefined;
  admitted = false;
  /** The declared route that answers in place of the one that was asked. */
  target: string | undefined;
  /** The call's record on its way to the disk; asked for once. */
  #record: void | Promise<void> = undefined;
  #recorded = false;

  constructor(exchange: Exchange, matched: Matched<S>, plane: ListenerPlane, dialect: Dialect, peer: Peer) {
    this.exchange = exchange;
    this.matched = matched;
    this.plane = plane;
    this.dialect = dialect;
    this.peer = peer;
  }

  record(status: number): void | Promise<void> {
    const { admission, fault } = this;
    if (admission === undefined || this.#recorded) return this.#record;
    this.#record = admission.record(this.outcome(status, fault));
    this.#recorded = true;
    return this.#record;
  }

  headers(): OwnHeaders {
    return this.admission?.headers() ?? NO_HEADERS;
  }

  outcome(status: number, fault: Fault | undefined): Outcome {
    const { target } = this;
    return target === undefined ? { status, fault: fault?.kind } : { status, fault: fault?.kind, target };
  }
}

const NO_HEADERS: OwnHeaders = {};

export type Caller = ReturnType<typeof callerOf>;

export function callerOf<S>(route: AnyRoute<S>, principal: Principal | undefined, { meter }: Admission) {
  if (route.access.kind === "open") return { kind: "anonymous" } satisfies Anonymous;
  // No key route comes here without a principal; should one, it has no grant.
  if (principal === undefined) throw new Fault("unauthenticated", "Unauthorized");
  const grant = authorize(principal, route.access.scope, meter);
  if (route.access.operator === true) requireOperator(principal);
  return grant;
}

/** From here on policy knows of the call, and hears of its end. */
export function openBooks<S>({ gate }: Corridor<S>, step: Walk<S>): Admission {
  if (step.admission !== undefined) return step.admission;
  const { exchange, matched, plane, principal, peer } = step;
  const route = matched.kind === "route" ? matched.route : undefined;
  step.admission = gate.open({
    requestId: exchange.requestId,
    at: Date.now(),
    method: route?.method ?? "other",
    route: route?.path,
    scope: route?.access.kind === "key" ? route.access.scope : undefined,
    plane,
    dialect: step.dialect.name,
    // What matches no route, or asks for one in a wrong way, is of interest to whoever looks for attacks.
    audit: route?.audit ?? "metadata",
    principal,
    peer,
  });
  exchange.tap = step.admission.content;
  return step.admission;
}
