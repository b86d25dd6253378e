/**
 * Usage over the operations listener. Made by the app; the routes call it with a grant.
 *
 * Invariant: what tenants used that the caller does not administer is not in any sum (Wall: T83).
 */
import { invalid } from "#core/fault.ts";
import type { Grant } from "#core/principal.ts";
import { withinTenants } from "#policy/delegation.ts";
import { type UsageWords, usageQuery } from "#policy/usage/query.ts";
import type { UsageQuery, UsageSum } from "#policy/usage/table.ts";
import { stored } from "./_administration.ts";

export interface AdminUsageOptions {
  readonly read: (query: UsageQuery) => Promise<readonly UsageSum[]>;
  readonly now?: () => number;
}

export interface UsageAnswer {
  readonly query: UsageQuery;
  readonly sums: readonly UsageSum[];
}

export class AdminUsage {
  readonly #options: AdminUsageOptions;

  constructor(options: AdminUsageOptions) {
    this.#options = options;
  }

  /** @throws Fault invalid_request | policy_unavailable */
  async read({ principal }: Grant<"keys:read">, words: UsageWords): Promise<UsageAnswer> {
    const asked = usageQuery(words, (this.#options.now ?? Date.now)());
    if ("problem" in asked) throw invalid(asked.field, `${asked.field} ${asked.problem}.`);
    const within = withinTenants(principal, asked.tenant);
    if (within === undefined) return { query: asked, sums: [] };
    const query = { ...asked, ...within };
    return { query, sums: await stored(this.#options.read(query)) };
  }
}
