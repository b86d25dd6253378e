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
import { conform } from "#core/conform.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault } from "#core/fault.ts";
import type { RawBody } from "./_body.ts";
import { decodeQuery } from "./_decode.ts";
import { Exchange } from "./_exchange.ts";
import { readForm } from "./_form.ts";
import { discard } from "./_late.ts";
import { refuse, stackOf } from "./_refuse.ts";
import { decodeRaw, passOn, readRaw } from "./_relayed.ts";
import {
  before,
  type Caller,
  type CallRecord,
  type Corridor,
  callerOf,
  openBooks,
  outcome,
  type Walk,
} from "./_walk.ts";
import { writeReply } from "./_write.ts";
import { peerOf } from "./peer.ts";
import type { Matched } from "./registrar.ts";
import type { Reply } from "./reply.ts";
import type { AnyRoute, Forward, ListenerPlane, Spoken, TakeFile } from "./route.ts";

export type { CallRecord, Corridor, Observer } from "./_walk.ts";

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
    recorded: false,
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
    const reply = await answer(corridor, step, route, { caller, params });
    await writeReply(exchange, reply, (status) => before(step, status));
  } finally {
    endTime();
  }
}

/** From the query and the body to a reply, by a handler of ours or by the relay. */
async function answer<S>(
  corridor: Corridor<S>,
  step: Walk<S>,
  route: AnyRoute<S>,
  { caller, params }: Pick<Given, "caller" | "params">,
): Promise<Reply> {
  const query =
    route.query === undefined ? undefined : decodeQuery(route.query, step.exchange.req.url ?? "", route.repeats);
  const { relay } = corridor;
  if (relay === undefined || !corridor.relayed.has(route)) {
    const raw = route.form === undefined ? await readRaw(step, route) : undefined;
    const body = raw === undefined ? undefined : decodeRaw(route, raw);
    return run(corridor, step, route, { caller, body, query, params });
  }
  const raw = await readRaw(step, route);
  const passed = await passOn(corridor, relay, step, { route, caller, query, params, raw });
  if ("reply" in passed) return passed.reply;
  const { local } = passed;
  const given = { caller: passed.caller, body: decodeRaw(local, raw), form: raw, params };
  return run(corridor, step, local, { ...given, query });
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

interface Given {
  readonly caller: Caller;
  readonly body: unknown;
  readonly query: unknown;
  readonly params: Readonly<Record<string, string>>;
  /** The form's bytes, where they have been read. */
  readonly form?: RawBody;
}

/** By its handler, or that of the route that it forwards to. */
async function run<S>(corridor: Corridor<S>, step: Walk<S>, route: AnyRoute<S>, given: Given): Promise<Reply> {
  const found = handle(corridor, step, route, given);
  return "kind" in found && found.kind === "forward" ? forward(corridor, step, route, found) : found;
}

function handle<S>(
  corridor: Corridor<S>,
  { exchange, plane, principal, dialect }: Walk<S>,
  route: AnyRoute<S>,
  { form: held, ...given }: Given,
): Reply | Forward<S> | Promise<Reply> {
  const { requestId, signal } = exchange;
  const form = (file: TakeFile) => readForm(exchange, route, principal, file, held);
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
    status: exchange.switched ? 101 : res.headersSent ? res.statusCode : 499,
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
