/**
 * What a tenant may draw on when there is more work than can be done. Callers: compose.ts, gateway.ts.
 */
import type { Settings } from "#config/settings.ts";
import { ownedKey } from "#core/owned.ts";
import type { Serving } from "#serving/context.ts";
import type { Policy } from "./policy.ts";

/** What a tenant's batches get of the engine beside somebody who waits for an answer. */
const BATCH_WEIGHT = 0.05;

export function sharesOf(settings: Settings, policy: Pick<Policy, "current">): Serving["shareOf"] {
  const weightOf = (tenant: string): number =>
    policy.current().tenants.of(tenant)?.weight ?? settings.tenantWeights.get(tenant) ?? 1;
  return ({ tenant, behind }) =>
    behind === true
      ? { key: ownedKey(tenant, "batch"), weight: weightOf(tenant) * BATCH_WEIGHT }
      : { key: tenant, weight: weightOf(tenant) };
}
