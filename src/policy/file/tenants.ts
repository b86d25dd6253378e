/**
 * What a policy file says of tenants, applied to whoever has been identified.
 *
 * Invariants (Wall: T49): a tenant that is disabled is nobody, whatever proved who calls; its lists narrow every
 * principal of it and widen none. The server's own calls are not held. Pure but for a memory of principals, by their
 * identity: provers keep the objects that they make. Callers: app, explain.ts.
 */
import type { Named, Principal, Reach } from "#core/principal.ts";
import type { Identify } from "#policy/identify.ts";
import { unauthenticated } from "#policy/keys.ts";
import type { TenantRule } from "./schema.ts";

export class TenantRules {
  readonly #tenants: Readonly<Record<string, TenantRule>>;
  readonly #narrowed = new WeakMap<Principal, Principal>();

  /** @param tenants `*`: every tenant that is not named */
  constructor(tenants: Readonly<Record<string, TenantRule>> = {}) {
    this.#tenants = tenants;
  }

  /** Whether it is named, and what is said of it. */
  find(tenant: string): { readonly named: boolean; readonly rule: TenantRule | undefined } {
    const named = Object.hasOwn(this.#tenants, tenant);
    return { named, rule: named ? this.#tenants[tenant] : this.#tenants["*"] };
  }

  of(tenant: string): TenantRule | undefined {
    return this.#tenants[Object.hasOwn(this.#tenants, tenant) ? tenant : "*"];
  }

  /** The principal within its tenant's lists. @throws Fault unauthenticated: its tenant is disabled */
  apply(principal: Principal): Principal {
    if (principal.kind === "server") return principal;
    const rule = this.of(principal.tenant);
    if (rule?.disabled === true) throw unauthenticated(`the tenant ${principal.tenant} is disabled`);
    if (rule === undefined) return principal;
    const within = listsOf(rule);
    if (within === undefined) return principal;
    let known = this.#narrowed.get(principal);
    if (known === undefined) {
      known = Object.freeze({ ...principal, within });
      this.#narrowed.set(principal, known);
    }
    return known;
  }
}

/** @param rules those that hold now */
export function withinTenants(identify: Identify, rules: () => TenantRules): Identify {
  return (rawHeaders, dialect, peer) => {
    const found = identify(rawHeaders, dialect, peer);
    if (found instanceof Promise) return found.then((principal) => rules().apply(principal));
    return rules().apply(found);
  };
}

function listsOf({ models, adapters, tools }: TenantRule): Pick<Reach, Named> | undefined {
  if (models === undefined && adapters === undefined && tools === undefined) return undefined;
  return {
    ...(models === undefined ? {} : { models }),
    ...(adapters === undefined ? {} : { adapters }),
    ...(tools === undefined ? {} : { tools }),
  };
}
