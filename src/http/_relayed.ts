/**
 * The corridor's step for routes that another server answers: the body as bytes, the question to the relay, and the
 * way back to a handler of our own where the relay has no answer.
 *
 * Invariant: the relay hears of a call under the declaration of the route that answers, with the grant that was made
 * for that one. Private to the pipeline.
 */

import { giveBack } from "#base/give-back.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault } from "#core/fault.ts";
import type { Grant, Scope } from "#core/principal.ts";
import { NO_BODY, type RawBody, readJsonBody } from "./_body.ts";
import { canonicalQuery } from "./_decode.ts";
import { readFormBytes } from "./_form.ts";
import { type Asked, run } from "./_handled.ts";
import { discard } from "./_late.ts";
import { type Corridor, callerOf, openBooks, type Walk } from "./_walk.ts";
import type { Relay, RelayAnswer, RelayRequest } from "./relay.ts";
import type { Reply } from "./reply.ts";
import type { AnyRoute, ListenerPlane } from "./route.ts";

/** The body before anybody is asked; of a form only where others answer it. @throws Fault */
export function readRaw<S>(
  corridor: Corridor<S>,
  { exchange, principal }: Walk<S>,
  route: AnyRoute<S>,
): RawBody | Promise<RawBody> {
  if (route.form !== undefined)
    return corridor.relayed.has(route) ? readFormBytes(exchange, route, principal) : NO_BODY;
  return route.body === undefined ? NO_BODY : readJsonBody(exchange, route, principal, route.body);
}

/**
 * Asks the relay; where it has no answer, a handler of ours has.
 * @param by the path that was asked, where another route answers in its place
 * @throws Fault
 */
export function passOn<S>(
  corridor: Corridor<S>,
  relay: Relay<S>,
  step: Walk<S>,
  asked: Asked<S>,
  by?: string,
): Reply | Promise<Reply> {
  const { exchange } = step;
  if (exchange.aborted !== undefined) throw exchange.aborted;
  const answer = relay.answer(new Question(corridor, step, asked, by));
  const follow = (found: RelayAnswer<S>): Reply | Promise<Reply> => {
    if (found === undefined) return run(corridor, step, asked);
    return found.kind === "forward" ? forward(corridor, relay, step, { asked, by, to: found.to }) : found;
  };
  return answer instanceof Promise ? exchange.handled(answer, follow, drop) : follow(answer);
}

/**
 * Wall: T95, what another route answers is authorized by that route's own declaration before the relay hears of it as
 * that route's.
 */
function forward<S>(
  corridor: Corridor<S>,
  relay: Relay<S>,
  step: Walk<S>,
  { asked, by, to }: { readonly asked: Asked<S>; readonly by: string | undefined; readonly to: AnyRoute<S> },
): Reply | Promise<Reply> {
  const { path, forwardsTo } = asked.route;
  // Only what the registrar has compared, and once.
  if (by !== undefined || forwardsTo?.includes(to) !== true) throw new Error(`${path} may not forward`);
  step.target = to.path;
  const target = { ...asked, route: to, caller: callerOf(to, step.principal, openBooks(corridor, step)) };
  return corridor.relayed.has(to) ? passOn(corridor, relay, step, target, path) : run(corridor, step, target);
}

function drop<S>(late: RelayAnswer<S>): void {
  if (late !== undefined && late.kind !== "forward") discard(late);
}

class Question<S> implements RelayRequest<S> {
  readonly route: AnyRoute<S>;
  readonly caller: Grant<Scope>;
  readonly body: Buffer | undefined;
  readonly contentType: string | undefined;
  readonly query: string;
  readonly params: Readonly<Record<string, string>>;
  readonly plane: ListenerPlane;
  readonly requestId: string;
  readonly dialect: Dialect;
  readonly askedBy: string | undefined;
  readonly #corridor: Corridor<S>;
  readonly #step: Walk<S>;

  constructor(
    corridor: Corridor<S>,
    step: Walk<S>,
    { route, caller, query, params, raw }: Asked<S>,
    by: string | undefined,
  ) {
    const { exchange, plane, dialect } = step;
    // No open route is relayed (server.ts); should one be, nobody has asked who calls.
    if (!("principal" in caller)) throw new Fault("unauthenticated", "Unauthorized");
    this.route = route;
    this.caller = caller;
    this.body = raw.bytes;
    this.contentType = raw.contentType;
    this.query = query === undefined ? "" : canonicalQuery(query, exchange.req.url ?? "");
    this.params = params;
    this.plane = plane;
    this.requestId = exchange.requestId;
    this.dialect = dialect;
    this.askedBy = by;
    this.#corridor = corridor;
    this.#step = step;
  }

  get signal(): AbortSignal {
    return this.#step.exchange.signal;
  }

  spent(): void {
    // Who listens may have kept it.
    if (this.body !== undefined && this.#step.exchange.tap === undefined) giveBack(this.body);
  }

  onAbort(run: (reason: Fault) => void): void {
    this.#step.exchange.onAbort(run);
  }

  async stillMay(): Promise<boolean> {
    const { exchange, principal, dialect, peer } = this.#step;
    try {
      const found = await this.#corridor.gate.identify(exchange.req.rawHeaders, dialect.name, peer);
      return found.id === principal?.id && found.scopes.has(this.caller.scope);
    } catch (error) {
      if (error instanceof Fault) return false;
      throw error;
    }
  }
}
