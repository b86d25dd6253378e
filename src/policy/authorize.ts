/**
 * From who calls to what they may: the one place in the program that makes a Grant.
 *
 * Pure. Callers: the pipeline, once a call, with the scope that the route declares.
 */
import { Fault } from "#core/fault.ts";
import { type Grant, type Principal, SCOPES, type Scope } from "#core/principal.ts";

/** What a key without scopes of its own may do: everything, as the listener separates operations from inference. */
export const EVERY_SCOPE: ReadonlySet<Scope> = new Set(SCOPES);

/** @throws Fault forbidden: the principal lacks the scope */
export function authorize<S extends Scope>(principal: Principal, scope: S): Grant<S> {
  if (!principal.scopes.has(scope)) {
    throw new Fault("forbidden", "This key may not do that.", { detail: `${principal.id} lacks ${scope}` });
  }
  // Grant's brand is a symbol that exists for the type checker only, so this cast is the way to make one.
  return Object.freeze({ principal, scope }) as Grant<S>;
}
