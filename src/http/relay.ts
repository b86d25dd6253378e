/**
 * Calls that another server answers: what the corridor tells about one, and what it wants to hear.
 *
 * Invariants: a relay hears of a call when the corridor has settled who calls, by the declaration of the route that
 * answers, and has read the body, bounded; it never sees a header, so that nothing of what a client wrote can be
 * copied on by mistake, and a path or query only as the declaration spells them. It changes nothing about the walls in
 * front. Routes that are open are never relayed: nobody would be asked who calls. Made by app.
 */
import type { Dialect } from "#core/dialect.ts";
import type { Fault } from "#core/fault.ts";
import type { Grant, Scope } from "#core/principal.ts";
import type { Reply } from "./reply.ts";
import type { AnyRoute, ListenerPlane } from "./route.ts";

export interface RelayRequest<S> {
  /** The declaration under which it is answered. */
  readonly route: AnyRoute<S>;
  readonly caller: Grant<Scope>;
  /** As it came, within the route's limit and of its media type; nobody has parsed it. Undefined: there is none. */
  readonly body: Buffer | undefined;
  /** Of a form, with its boundary; undefined: JSON, or no body. */
  readonly contentType: string | undefined;
  /** Encoded anew from the declared parameters, which their schema has taken; without "?". Empty: there are none. */
  readonly query: string;
  readonly params: Readonly<Record<string, string>>;
  readonly plane: ListenerPlane;
  readonly requestId: string;
  readonly dialect: Dialect;
  /** The path that was asked, where another route answers in its place (`RelayForward`). */
  readonly askedBy: string | undefined;
  /** Made when it is first looked at; `onAbort` is the cheaper way. */
  readonly signal: AbortSignal;
  /** Whether who calls would be let in again, as who they are: for what lasts longer than a call. */
  stillMay(): Promise<boolean>;
  /** Nobody reads the body any more, and nothing is written from it: its memory may go. */
  spent(): void;
  /** One listener a call; called at once if the call is over. */
  onAbort(run: (reason: Fault) => void): void;
}

/** The body is for another route, as a handler may find it is (route.ts): asked again, with a grant for that one. */
export interface RelayForward<S> {
  readonly kind: "forward";
  readonly to: AnyRoute<S>;
}

/** Undefined: this server answers itself. */
export type RelayAnswer<S> = Reply | RelayForward<S> | undefined;

export interface Relay<S> {
  /** Asked once a route, before the server listens. */
  wants(route: AnyRoute<S>): boolean;
  /** @throws Fault */
  answer(request: RelayRequest<S>): RelayAnswer<S> | Promise<RelayAnswer<S>>;
}
