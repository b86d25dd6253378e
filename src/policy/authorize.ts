/**
 * From who calls to what they may: the one place in the program that makes a Grant.
 *
 * Pure. Callers: the pipeline, once a call, with the scope that the route declares; serving, where a field asks for what
 * another scope opens.
 */
import { Fault } from "#core/fault.ts";
import type { Meter } from "#core/metering.ts";
import { type Grant, OPERATOR_TENANT, type Principal, type Scope } from "#core/principal.ts";

/**
 * For routes about what is every tenant's.
 * @throws Fault forbidden: the principal is not of the operator's tenant
 */
export function requireOperator({ id, tenant }: Pick<Principal, "id" | "tenant">): void {
  if (tenant === OPERATOR_TENANT) return;
  throw new Fault("forbidden", "This key may not do that: it concerns every tenant.", {
    detail: `${id} is of the tenant ${tenant}`,
  });
}

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
