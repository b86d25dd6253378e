/**
 * From a role to a principal. Pure. Callers: whatever proves who calls (keys, tokens, certificates), and tests.
 */
import { type Principal, ROLES, type Role, type Scope } from "#core/principal.ts";

const SCOPES_OF: Readonly<Record<Role, ReadonlySet<Scope>>> = Object.fromEntries(
  Object.entries(ROLES).map(([role, scopes]) => [role, new Set(scopes)]),
) as unknown as Record<Role, ReadonlySet<Scope>>;

export interface PrincipalSpec extends Partial<Pick<Principal, "kind" | "reach" | "limits" | "caps" | "ruledBy">> {
  readonly id: string;
  readonly tenant: string;
  readonly role: Role;
  /** Narrows the role; what the role has not is not given. */
  readonly scopes?: readonly Scope[];
}

const NONE = Object.freeze({});

/** Frozen. */
export function principalOf(spec: PrincipalSpec): Principal {
  const { id, tenant, role, kind = "key", reach = NONE, limits = NONE, caps = NONE, ruledBy } = spec;
  const all = SCOPES_OF[role];
  const scopes = spec.scopes === undefined ? all : new Set(spec.scopes.filter((scope) => all.has(scope)));
  const made = { id, kind, tenant, role, scopes, reach, limits, caps };
  return Object.freeze(ruledBy === undefined ? made : { ...made, ruledBy });
}
