/**
 * The corridor's step for routes that a handler of ours answers.
 *
 * Private to the pipeline and its parts.
 */
import { conform } from "#core/conform.ts";
import type { RawBody } from "./_body.ts";
import { decodeBody } from "./_decode.ts";
import { readForm } from "./_form.ts";
import { discard } from "./_late.ts";
import { type Caller, type Corridor, callerOf, openBooks, type Walk } from "./_walk.ts";
import type { Reply } from "./reply.ts";
import type { AnyRoute, Forward, TakeFile } from "./route.ts";

/** What was asked, as far as it is the same whoever answers. */
export interface Asked<S> {
  readonly route: AnyRoute<S>;
  readonly caller: Caller;
  readonly query: unknown;
  readonly params: Readonly<Record<string, string>>;
  /** As it came; a form's is here only where it has been read before the handler. */
  readonly raw: RawBody;
}

interface Given {
  readonly caller: Caller;
  readonly body: unknown;
  readonly query: unknown;
  readonly params: Readonly<Record<string, string>>;
  readonly form?: RawBody;
}

/** By its handler, or that of the route that it forwards to. @throws Fault */
export function run<S>(corridor: Corridor<S>, step: Walk<S>, asked: Asked<S>): Reply | Promise<Reply> {
  const { route, caller, query, params, raw } = asked;
  const found = handle(corridor, step, route, { caller, body: decodeRaw(route, raw), query, params, form: raw });
  return "kind" in found && found.kind === "forward" ? forward(corridor, step, route, found) : found;
}

function decodeRaw<S>(route: AnyRoute<S>, { bytes }: RawBody): unknown {
  if (route.body === undefined) return undefined;
  return bytes === undefined ? conform(route.body, undefined) : decodeBody(route.body, bytes);
}

/**
 * Wall: T95, what another route answers is authorized by that route's own declaration, and held against its schema,
 * before it hears of the call.
 */
function forward<S>(
  corridor: Corridor<S>,
  step: Walk<S>,
  from: AnyRoute<S>,
  { to, body }: Forward<S>,
): Reply | Promise<Reply> {
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
  { form: held, ...given }: Given,
): Reply | Forward<S> | Promise<Reply> {
  const { requestId, signal } = exchange;
  const form = (file: TakeFile) => readForm(exchange, route, principal, file, held);
  const call = { ...given, form, plane, dialect, requestId, signal, services: corridor.services };
  if (exchange.aborted !== undefined) throw exchange.aborted;
  const reply = route.handler(call as Parameters<typeof route.handler>[0]);
  return reply instanceof Promise ? exchange.handled(reply, same, discard) : reply;
}

function same(reply: Reply): Reply {
  return reply;
}
