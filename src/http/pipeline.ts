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
import { headerValues } from "#base/headers.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { decodeQuery } from "./_decode.ts";
import { Exchange } from "./_exchange.ts";
import { type Asked, run } from "./_handled.ts";
import type { Incoming, Outgoing } from "./_message.ts";
import { refuse, stackOf } from "./_refuse.ts";
import { passOn, readRaw } from "./_relayed.ts";
import type { Timer } from "./_timers.ts";
import { type CallRecord, type Corridor, callerOf, openBooks, Walk } from "./_walk.ts";
import { writeReply } from "./_write.ts";
import { peerOf } from "./peer.ts";
import type { Matched } from "./registrar.ts";
import type { Reply } from "./reply.ts";
import type { AnyRoute, ListenerPlane, Spoken } from "./route.ts";

export type { CallRecord, Corridor, Observer } from "./_walk.ts";

/** Handles one request to its end. */
export function walk<S>(
  corridor: Corridor<S>,
  plane: ListenerPlane,
  matched: Matched<S>,
  req: Incoming,
  res: Outgoing,
): void {
  const exchange = new Exchange(req, res, corridor.options, corridor.counters);
  const dialect = dialectOf(corridor, matched, req.rawHeaders);
  const peer = corridor.client(peerOf(req.socket), req.rawHeaders);
  const step = new Walk(exchange, matched, plane, dialect, peer);
  exchange.idHeader = dialect.requestIdHeader;
  corridor.counters.calls++;
  corridor.open.add(exchange);
  void advance(corridor, step);
}

function dialectOf<S>(corridor: Corridor<S>, matched: Matched<S>, rawHeaders: readonly string[]): Dialect {
  const spoken: Spoken =
    matched.kind === "route" ? matched.route : matched.kind === "other-method" ? matched.spoken : corridor;
  const { dialect, orBy } = spoken;
  return orBy !== undefined && headerValues(rawHeaders, orBy.header).length > 0 ? orBy.dialect : dialect;
}

/** Step by step: behind one that answers at once the next follows at once. Never rejects. */
async function advance<S>(corridor: Corridor<S>, step: Walk<S>): Promise<void> {
  const { exchange } = step;
  let time: Timer | undefined;
  try {
    const known = identify(corridor, step);
    step.principal = known instanceof Promise ? await exchange.race(known) : known;
    const { route, caller, params } = authorized(corridor, step);
    const place = admit(corridor, step);
    if (place instanceof Promise) await exchange.race(place);
    time = limited(corridor, exchange, route);
    const query = route.query === undefined ? undefined : queried(exchange, route, route.query);
    const reading = readRaw(corridor, step, route);
    const raw = reading instanceof Promise ? await reading : reading;
    const replying = answer(corridor, step, { route, caller, query, params, raw });
    const reply = replying instanceof Promise ? await replying : replying;
    const writing = writeReply(exchange, reply, step);
    if (writing instanceof Promise) await writing;
  } catch (error) {
    await refuse(corridor, step, error);
  } finally {
    time?.end();
    settle(corridor, step);
  }
}

function identify<S>(
  { gate }: Corridor<S>,
  { exchange, matched, dialect, peer }: Walk<S>,
): Principal | undefined | Promise<Principal> {
  if (matched.kind === "route" && matched.route.access.kind === "open") return undefined;
  return gate.identify(exchange.req.rawHeaders, dialect.name, peer);
}

/** @throws Fault the route does not exist, or is not for this caller */
function authorized<S>(corridor: Corridor<S>, step: Walk<S>): Pick<Asked<S>, "route" | "caller" | "params"> {
  const { matched, principal } = step;
  const admission = openBooks(corridor, step);
  if (matched.kind === "other-method") throw new Fault("method_not_allowed", "Method Not Allowed");
  if (matched.kind === "unknown") throw new Fault("route_not_found", "Not Found");
  const { route, params } = matched;
  return { route, params, caller: callerOf(route, principal, admission) };
}

/** Open routes say how the server is, so they pass when it is full or ending. */
function admit<S>(corridor: Corridor<S>, step: Walk<S>): void | Promise<void> {
  step.exchange.last = corridor.draining;
  if (step.principal !== undefined) count(corridor, step);
  return openBooks(corridor, step).admit();
}

function count<S>(corridor: Corridor<S>, step: Walk<S>): void {
  if (corridor.draining) throw new Fault("draining", "The server is shutting down.");
  const { maxInFlight } = corridor.options;
  if (maxInFlight > 0 && corridor.admitted >= maxInFlight) {
    throw new Fault("overloaded", "The server has too many requests at once.", { retryAfterMs: 1000 });
  }
  step.admitted = true;
  corridor.admitted++;
}

function limited<S>({ counters, options }: Corridor<S>, exchange: Exchange, { limits }: AnyRoute<S>): Timer {
  return counters.after(Math.min(limits.timeoutMs, options.maxTimeoutMs), () =>
    exchange.abort(new Fault("request_timeout", "The request took too long.")),
  );
}

function queried<S>({ req }: Exchange, { repeats }: AnyRoute<S>, schema: NonNullable<AnyRoute<S>["query"]>): unknown {
  return decodeQuery(schema, req.url ?? "", repeats);
}

/** By a handler of ours, or by the relay. */
function answer<S>(corridor: Corridor<S>, step: Walk<S>, asked: Asked<S>): Reply | Promise<Reply> {
  const { relay } = corridor;
  return relay !== undefined && corridor.relayed.has(asked.route)
    ? passOn(corridor, relay, step, asked)
    : run(corridor, step, asked);
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
  openBooks(corridor, step).close(step.outcome(record.status, cause));
  try {
    corridor.observer(record);
  } catch (error) {
    corridor.log("error", "the observer of calls failed", { requestId, stack: stackOf(error) });
  }
  if (corridor.open.size === 0) corridor.whenIdle?.();
}
