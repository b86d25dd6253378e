/**
 * From who calls to what they may: the one place in the program that makes a Grant.
 *
 * Pure. Callers: the pipeline, once a call, with the scope that the route declares.
 */
import { Fault } from "#core/fault.ts";
import type { Meter } from "#core/metering.ts";
import type { Grant, Principal, Scope } from "#core/principal.ts";

/** @throws Fault forbidden: the principal lacks the scope */
export function authorize<S extends Scope>(principal: Principal, scope: S, meter: Meter): Grant<S> {
  if (!principal.scopes.has(scope)) {
    throw new Fault("forbidden", `This key may not do that: it lacks the scope ${scope}.`, {
      detail: `${principal.id} lacks ${scope}`,
    });
  }
  // Grant's brand is a symbol that exists for the type checker only, so this cast is the way to make one.
  return Object.freeze({ principal, scope, meter }) as Grant<S>;
}
