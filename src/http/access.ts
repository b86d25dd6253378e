/**
 * Who may call a route. `access` has no default: a route without it does not compile.
 */
import type { Grant, Scope } from "#core/principal.ts";

export interface KeyAccess<S extends Scope> {
  readonly kind: "key";
  readonly scope: S;
  /** It shows or changes what is every tenant's: for principals of the operator's tenant only. */
  readonly operator?: true;
}

/** Answers anybody. The reason is printed in docs/reference/routes.md and frozen by a test. */
export interface OpenAccess {
  readonly kind: "open";
  readonly reason: string;
}

export type Access = KeyAccess<Scope> | OpenAccess;

export interface Anonymous {
  readonly kind: "anonymous";
}

/** What the handler gets as `caller`: a grant for the declared scope, or nothing that could reach a model. */
export type CallerOf<A extends Access> = A extends KeyAccess<infer S> ? Grant<S> : Anonymous;

export function key<const S extends Scope>(scope: S): KeyAccess<S> {
  return { kind: "key", scope };
}

/** For principals of the operator's tenant that have the scope. */
export function operatorKey<const S extends Scope>(scope: S): KeyAccess<S> {
  return { kind: "key", scope, operator: true };
}

export function open(reason: string): OpenAccess {
  return { kind: "open", reason };
}
