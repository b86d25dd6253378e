/**
 * Who may call a route. `access` has no default: a route without it does not compile.
 */
import type { Grant, Scope } from "#core/principal.ts";

export interface KeyAccess<S extends Scope> {
  readonly kind: "key";
  readonly scope: S;
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

export function open(reason: string): OpenAccess {
  return { kind: "open", reason };
}
