/**
 * The corridor's step for routes that another server answers: the body as bytes, the question to the relay, and the
 * way back to a handler of our own where the relay has no answer.
 *
 * Invariant: the relay hears of a call under the declaration of the route that answers, with the grant that was made
 * for that one. Private to the pipeline.
 */

import { conform } from "#core/conform.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault } from "#core/fault.ts";
import type { Grant, Scope } from "#core/principal.ts";
import { type RawBody, readJsonBody } from "./_body.ts";
import { canonicalQuery, decodeBody } from "./_decode.ts";
import type { Exchange } from "./_exchange.ts";
import { readFormBytes } from "./_form.ts";
import { discard } from "./_late.ts";
import { type Caller, type Corridor, callerOf, openBooks, type Walk } from "./_walk.ts";
import type { Relay, RelayAnswer, RelayForward, RelayRequest } from "./relay.ts";
import type { Reply } from "./reply.ts";
import type { AnyRoute, ListenerPlane } from "./route.ts";

/** What was asked, as far as it is the same whoever answers. */
export interface Asked<S> {
  readonly route: AnyRoute<S>;
  readonly caller: Caller;
  readonly query: unknown;
  readonly params: Readonly<Record<string, string>>;
  readonly raw: RawBody;
}

/** `local`: a handler of ours answers, of this route and with this caller. */
export type Passed<S> = { readonly reply: Reply } | { readonly local: AnyRoute<S>; readonly caller: Caller };

/** @throws Fault */
export async function readRaw<S>({ exchange, principal }: Walk<S>, route: AnyRoute<S>): Promise<RawBody> {
  if (route.form !== undefined) return readFormBytes(exchange, route, principal);
  if (route.body === undefined) return NO_BODY;
  const bytes = await readJsonBody(exchange, route, principal, route.body);
  return bytes === undefined ? NO_BODY : { bytes, contentType: undefined };
}

const NO_BODY: RawBody = { bytes: undefined, contentType: undefined };

export function decodeRaw<S>(route: AnyRoute<S>, { bytes }: RawBody): unknown {
  if (route.body === undefined) return undefined;
  return bytes === undefined ? conform(route.body, undefined) : decodeBody(route.body, bytes);
}

/**
 * Wall: T95, what another route answers is authorized by that route's own declaration before the relay hears of it as
 * that route's.
 * @throws Fault
 */
export async function passOn<S>(
  corridor: Corridor<S>,
  relay: Relay<S>,
  step: Walk<S>,
  asked: Asked<S>,
): Promise<Passed<S>> {
  const { exchange } = step;
  const found = await ask(exchange, relay, new Question(corridor, step, asked, asked.caller, undefined));
  if (found === undefined) return { local: asked.route, caller: asked.caller };
  if (!isForward(found)) return { reply: found };
  const { to } = found;
  // Only what the registrar has compared.
  if (asked.route.forwardsTo?.includes(to) !== true) throw new Error(`${asked.route.path} may not forward`);
  step.target = to.path;
  const caller = callerOf(to, step.principal, openBooks(corridor, step));
  if (!corridor.relayed.has(to)) return { local: to, caller };
  const second = await ask(
    exchange,
    relay,
    new Question(corridor, step, { ...asked, route: to }, caller, asked.route.path),
  );
  if (second === undefined) return { local: to, caller };
  if (isForward(second)) throw new Error(`${to.path} may not forward`);
  return { reply: second };
}

function isForward<S>(answer: Reply | RelayForward<S>): answer is RelayForward<S> {
  return answer.kind === "forward";
}

async function ask<S>(exchange: Exchange, relay: Relay<S>, question: Question<S>): Promise<RelayAnswer<S>> {
  if (exchange.aborted !== undefined) throw exchange.aborted;
  const answer = relay.answer(question);
  if (!(answer instanceof Promise)) return answer;
  exchange.counters.track(answer);
  try {
    return await exchange.race(answer);
  } catch (error) {
    if (exchange.aborted !== undefined)
      answer.then(
        (late) => {
          if (late !== undefined && !isForward(late)) discard(late);
        },
        () => {},
      );
    throw error;
  }
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
  readonly #exchange: Exchange;
  readonly #corridor: Corridor<S>;
  readonly #step: Walk<S>;

  constructor(
    corridor: Corridor<S>,
    step: Walk<S>,
    { route, query, params, raw }: Asked<S>,
    caller: Caller,
    by: string | undefined,
  ) {
    const { exchange, plane, dialect } = step;
    this.#corridor = corridor;
    this.#step = step;
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
    this.#exchange = exchange;
  }

  get signal(): AbortSignal {
    return this.#exchange.signal;
  }

  onAbort(run: (reason: Fault) => void): void {
    this.#exchange.onAbort(run);
  }

  async stillMay(): Promise<boolean> {
    const { principal, dialect, peer } = this.#step;
    try {
      const found = await this.#corridor.gate.identify(this.#exchange.req.rawHeaders, dialect.name, peer);
      return found.id === principal?.id && found.scopes.has(this.caller.scope);
    } catch (error) {
      if (error instanceof Fault) return false;
      throw error;
    }
  }
}
