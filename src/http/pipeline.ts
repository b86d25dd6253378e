/**
 * The corridor: every request walks through it, in this order, and nothing else answers one.
 *
 *   match → identify → authorize → admit → read → decode → handle → record → write → settle
 *
 * Invariants: who calls is settled before a byte of the body is read (Wall: T01); unknown paths and wrong methods
 * ask for a key like everything else, so that the route list is no secret and no oracle; a failure is printed by the
 * route's dialect, in one place; what is not a Fault is a bug, and the client learns its request id only; the call's
 * record is written before the first byte of any answer; `settle` runs once on every path. A handler may name another
 * route that answers (once): the walk goes back to authorize, by that route's declaration.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { headerValues } from "#base/headers.ts";
import { stringifyJson } from "#base/json.ts";
import type { Log } from "#base/log.ts";
import { conform } from "#core/conform.ts";
import type { Dialect, FaultReply } from "#core/dialect.ts";
import { Fault, type FaultKind } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { authorize, requireOperator } from "#policy/authorize.ts";
import type { FindClient } from "#policy/client-address.ts";
import type { Admission, Gate, Outcome } from "#policy/gate.ts";
import type { Peer } from "#policy/peer.ts";
import { checkMediaType, readBody, requireKnownExpectation } from "./_body.ts";
import { decodeBody, decodeQuery } from "./_decode.ts";
import { Exchange } from "./_exchange.ts";
import { readForm } from "./_form.ts";
import { writeReply, writeWhole } from "./_write.ts";
import type { Anonymous } from "./access.ts";
import type { Counters } from "./counters.ts";
import type { HttpOptions } from "./options.ts";
import { peerOf } from "./peer.ts";
import type { Matched } from "./registrar.ts";
import type { Reply } from "./reply.ts";
import type { AnyRoute, Forward, ListenerPlane, Spoken, SpokenBy, TakeFile } from "./route.ts";

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
  /** Calls on their way, for the server's end. */
  readonly open: Set<Exchange>;
  /** Called when the last open call has settled. */
  whenIdle: (() => void) | undefined;
  draining: boolean;
  /** Calls with a key on their way. */
  admitted: number;
}

/** What a walk finds out step by step; `settle` reports it. */
interface Walk<S> {
  readonly exchange: Exchange;
  readonly matched: Matched<S>;
  readonly plane: ListenerPlane;
  readonly dialect: Dialect;
  readonly peer: Peer;
  principal: Principal | undefined;
  /** Opened once it is known who calls, or that nobody does. */
  admission: Admission | undefined;
  /** The call's record on its way to the disk; asked for once. */
  record: Promise<void> | undefined;
  fault: Fault | undefined;
  admitted: boolean;
  /** The declared route that answers in place of the one that was asked. */
  target: string | undefined;
}

/** Handles one request to its end. Never throws. */
export async function walk<S>(
  corridor: Corridor<S>,
  plane: ListenerPlane,
  matched: Matched<S>,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const exchange = new Exchange(req, res, corridor.options, corridor.counters);
  const step: Walk<S> = {
    exchange,
    matched,
    plane,
    dialect: dialectOf(corridor, matched, req.rawHeaders),
    peer: corridor.client(peerOf(req.socket), req.rawHeaders),
    principal: undefined,
    admission: undefined,
    record: undefined,
    fault: undefined,
    admitted: false,
    target: undefined,
  };
  exchange.idHeader = step.dialect.requestIdHeader;
  corridor.counters.calls++;
  corridor.open.add(exchange);
  try {
    await advance(corridor, step);
  } catch (error) {
    await refuse(corridor, step, error);
  } finally {
    settle(corridor, step);
  }
}

function dialectOf<S>(corridor: Corridor<S>, matched: Matched<S>, rawHeaders: readonly string[]): Dialect {
  const spoken: Spoken =
    matched.kind === "route" ? matched.route : matched.kind === "other-method" ? matched.spoken : corridor;
  const { dialect, orBy } = spoken;
  return orBy !== undefined && headerValues(rawHeaders, orBy.header).length > 0 ? orBy.dialect : dialect;
}

async function advance<S>(corridor: Corridor<S>, step: Walk<S>): Promise<void> {
  const { exchange, matched } = step;
  const access = matched.kind === "route" ? matched.route.access : undefined;
  if (access?.kind !== "open") {
    const found = corridor.gate.identify(exchange.req.rawHeaders, step.dialect.name, step.peer);
    step.principal = found instanceof Promise ? await exchange.race(found) : found;
  }
  const admission = openBooks(corridor, step);
  if (matched.kind === "other-method") throw new Fault("method_not_allowed", "Method Not Allowed");
  if (matched.kind === "unknown") throw new Fault("route_not_found", "Not Found");
  const caller = callerOf(matched.route, step.principal, admission);
  admit(corridor, step);
  const place = admission.admit();
  if (place instanceof Promise) await exchange.race(place);
  const { route, params } = matched;
  const endTime = corridor.counters.after(Math.min(route.limits.timeoutMs, corridor.options.maxTimeoutMs), () =>
    exchange.abort(new Fault("request_timeout", "The request took too long.")),
  );
  try {
    const query =
      route.query === undefined ? undefined : decodeQuery(route.query, exchange.req.url ?? "", route.repeats);
    const body = route.body === undefined ? undefined : await take(step, route, route.body);
    const found = handle(corridor, step, route, { caller, body, query, params });
    const reply = await ("kind" in found && found.kind === "forward" ? forward(corridor, step, route, found) : found);
    await writeReply(exchange, reply, (status) => before(step, status));
  } finally {
    endTime();
  }
}

type Caller = ReturnType<typeof callerOf>;

function callerOf<S>(route: AnyRoute<S>, principal: Principal | undefined, { meter }: Admission) {
  if (route.access.kind === "open") return { kind: "anonymous" } satisfies Anonymous;
  // No key route comes here without a principal; should one, it has no grant.
  if (principal === undefined) throw new Fault("unauthenticated", "Unauthorized");
  const grant = authorize(principal, route.access.scope, meter);
  if (route.access.operator === true) requireOperator(principal);
  return grant;
}

/** From here on policy knows of the call, and hears of its end. */
function openBooks<S>({ gate }: Corridor<S>, step: Walk<S>): Admission {
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

/**
 * What precedes an answer's first byte: the call's record. A call that was aborted while its record was on the way
 * waits for it all the same, so that no answer overtakes it.
 * @returns headers that the answer has besides its own
 * @throws Fault policy_unavailable, each time it is asked
 */
async function before<S>(step: Walk<S>, status: number): Promise<Readonly<Record<string, string>>> {
  const { admission, fault } = step;
  if (admission === undefined) return {};
  step.record ??= Promise.resolve(admission.record(outcome(step, status, fault)));
  await step.record;
  return admission.headers();
}

function outcome<S>({ target }: Walk<S>, status: number, fault: Fault | undefined): Outcome {
  return { status, fault: fault?.kind, ...(target === undefined ? {} : { target }) };
}

/** Open routes say how the server is, so they pass when it is full or ending. */
function admit<S>(corridor: Corridor<S>, step: Walk<S>): void {
  step.exchange.last = corridor.draining;
  if (step.principal === undefined) return;
  if (corridor.draining) throw new Fault("draining", "The server is shutting down.");
  const { maxInFlight } = corridor.options;
  if (maxInFlight > 0 && corridor.admitted >= maxInFlight) {
    throw new Fault("overloaded", "The server has too many requests at once.", { retryAfterMs: 1000 });
  }
  step.admitted = true;
  corridor.admitted++;
}

type BodySchema<S> = NonNullable<AnyRoute<S>["body"]>;

async function take<S>({ exchange, principal }: Walk<S>, route: AnyRoute<S>, schema: BodySchema<S>): Promise<unknown> {
  const { req, options } = exchange;
  requireKnownExpectation(exchange);
  if (!exchange.hasBody && schema.safeParse(undefined).success) return conform(schema, undefined);
  checkMediaType(req.rawHeaders);
  if (!exchange.hasBody) throw new Fault("invalid_json", "The request has no body.");
  const limit = Math.min(route.limits.bodyBytes ?? 0, principal?.caps.bodyBytes ?? options.maxBodyBytes);
  const bytes = await readBody(exchange, limit);
  exchange.tap?.("request", bytes);
  return decodeBody(schema, bytes);
}

/**
 * Wall: T95, what another route answers is authorized by that route's own declaration, and held against its schema,
 * before it hears of the call.
 */
async function forward<S>(
  corridor: Corridor<S>,
  step: Walk<S>,
  from: AnyRoute<S>,
  { to, body }: Forward<S>,
): Promise<Reply> {
  // Only what the registrar has compared.
  if (from.forwardsTo?.includes(to) !== true || to.body === undefined) throw new Error(`${from.path} may not forward`);
  step.target = to.path;
  const caller = callerOf(to, step.principal, openBooks(corridor, step));
  const reply = handle(corridor, step, to, { caller, body: conform(to.body, body), query: undefined, params: {} });
  if ("kind" in reply && reply.kind === "forward") throw new Error(`${to.path} may not forward`);
  return reply;
}

function handle<S>(
  corridor: Corridor<S>,
  { exchange, plane, principal, dialect }: Walk<S>,
  route: AnyRoute<S>,
  given: { caller: Caller; body: unknown; query: unknown; params: Readonly<Record<string, string>> },
): Reply | Forward<S> | Promise<Reply> {
  const { requestId, signal } = exchange;
  const form = (file: TakeFile) => readForm(exchange, route, principal, file);
  const call = { ...given, form, plane, dialect, requestId, signal, services: corridor.services };
  if (exchange.aborted !== undefined) throw exchange.aborted;
  const reply = route.handler(call as Parameters<typeof route.handler>[0]);
  return reply instanceof Promise ? later(corridor, exchange, reply) : reply;
}

async function later<S>(corridor: Corridor<S>, exchange: Exchange, reply: Promise<Reply>): Promise<Reply> {
  corridor.counters.track(reply);
  try {
    return await exchange.race(reply);
  } catch (error) {
    if (exchange.aborted !== undefined) reply.then(discard, () => {});
    throw error;
  }
}

/** An answer that came after its call was over: nobody will read what it streams. */
function discard(reply: Reply): void {
  const source = reply.kind === "events" ? reply.frames : reply.kind === "stream" ? reply.pieces : undefined;
  source?.[Symbol.asyncIterator]()
    .return?.()
    .catch(() => {});
}

/** The one catch: prints the failure in the dialect, as far as the client can still be told. */
async function refuse<S>(corridor: Corridor<S>, step: Walk<S>, error: unknown): Promise<void> {
  const { exchange, dialect } = step;
  const fault = faultOf(corridor, exchange, error);
  step.fault = fault;
  // Whatever still works for the answer hears that it does not leave.
  exchange.abort(fault);
  if (exchange.gone) return;
  try {
    if (!exchange.res.headersSent) await writeFault(corridor, step, fault);
    else if (exchange.res.writableEnded || !exchange.streaming) exchange.res.destroy();
    else {
      exchange.write(exchange.options.redact(dialect.streamFault(fault, exchange.requestId)));
      exchange.end();
      await exchange.taken();
    }
  } catch (second) {
    // A second abort while the first failure is printed is no bug: the client was slow and the time ran out.
    if (!(second instanceof Fault))
      corridor.log("error", "a failure could not be printed", {
        requestId: exchange.requestId,
        stack: stackOf(second),
      });
    exchange.res.destroy();
  }
}

function faultOf<S>(corridor: Corridor<S>, exchange: Exchange, error: unknown): Fault {
  if (error instanceof Fault) return error;
  // What a handler throws on its way out after an abort (an AbortError, as a rule) is not the cause.
  if (exchange.aborted !== undefined) return exchange.aborted;
  corridor.log("error", "a bug ended a call", { requestId: exchange.requestId, stack: stackOf(error) });
  return new Fault("internal", "Internal server error.", { cause: error });
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** A failure that cannot be recorded is not told: that it cannot is what the client hears. */
async function recorded<S>(step: Walk<S>, fault: Fault): Promise<[Fault, Readonly<Record<string, string>>]> {
  try {
    return [fault, await before(step, step.dialect.fault(fault, step.exchange.requestId).status)];
  } catch (error) {
    if (!(error instanceof Fault) || error.kind !== "policy_unavailable") throw error;
    step.fault = error;
    return [error, {}];
  }
}

async function writeFault<S>(corridor: Corridor<S>, step: Walk<S>, cause: Fault): Promise<void> {
  const { exchange, dialect, matched } = step;
  openBooks(corridor, step);
  const [fault, own] = await recorded(step, cause);
  const { status, body }: FaultReply = dialect.fault(fault, exchange.requestId);
  const headers: Record<string, string> = { ...own, "content-type": "application/json" };
  if (fault.kind === "unauthenticated") headers["www-authenticate"] = "Bearer";
  if (matched.kind === "other-method" && fault.kind === "method_not_allowed") headers.allow = matched.allow;
  if (fault.kind === "draining" || fault.kind === "request_timeout") exchange.last = true;
  if (fault.retryAfterMs !== undefined)
    headers["retry-after"] = String(Math.max(1, Math.ceil(fault.retryAfterMs / 1000)));
  if (isVain(fault)) headers["x-should-retry"] = "false";
  await writeWhole(exchange, status, headers, exchange.options.redact(stringifyJson(body)));
}

/** OpenAI's and Anthropic's clients try 408, 429 and every 5xx again; they wait no minute, and do more soon. */
const PATIENCE_MS = 60_000;

/** Whether they would ask for the same work in vain, or for work that has just taken too long. */
function isVain({ kind, retryAfterMs = 0 }: Fault): boolean {
  return kind === "not_implemented" || kind === "request_timeout" || retryAfterMs > PATIENCE_MS;
}

function settle<S>(corridor: Corridor<S>, step: Walk<S>): void {
  const { exchange, matched, principal, fault, admitted } = step;
  corridor.counters.calls--;
  corridor.open.delete(exchange);
  if (admitted) corridor.admitted--;
  const { res, requestId } = exchange;
  // A client that went away mid-answer ends a call without anything being thrown.
  const cause = fault ?? exchange.aborted;
  const record: CallRecord = {
    requestId,
    route: matched.kind === "route" ? matched.route.path : undefined,
    method: matched.kind === "route" ? matched.route.method : "other",
    status: res.headersSent ? res.statusCode : 499,
    fault: cause?.kind,
    principal: principal?.id,
    milliseconds: performance.now() - exchange.startedAt,
    requestBytes: exchange.bytesIn,
    responseBytes: exchange.bytesOut,
  };
  if (corridor.options.accessLog) {
    // Probes ask every few seconds: their record is for whoever debugs them.
    const level = record.principal === undefined && record.status === 200 ? "debug" : "info";
    corridor.log(level, "call", { ...record, ...(cause?.detail === undefined ? {} : { detail: cause.detail }) });
  }
  openBooks(corridor, step).close(outcome(step, record.status, cause));
  try {
    corridor.observer(record);
  } catch (error) {
    corridor.log("error", "the observer of calls failed", { requestId, stack: stackOf(error) });
  }
  if (corridor.open.size === 0) corridor.whenIdle?.();
}
