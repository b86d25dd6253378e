/**
 * From the claims of a verified token to a principal, by the issuer's rule table. Pure; nothing of a claim is evaluated.
 *
 * Invariants: the first rule whose conditions all hold decides, and where it cannot say tenant or role nobody is made and
 * no later rule is asked; a claim reaches a principal as a tenant of a checked shape, a role of the table, or scopes that
 * the role has; own members of objects only, so that no claim path leads into a prototype.
 * Callers: verify.ts.
 */
import { hash } from "node:crypto";
import { type JsonValue, stringifyJson } from "#base/json.ts";
import { matchesAny } from "#core/name-patterns.ts";
import { type Principal, type Reach, type Role, SCOPES, type Scope } from "#core/principal.ts";
import { principalOf } from "#policy/roles.ts";
import type { Claims } from "./problem.ts";
import { type ClaimPath, type Condition, type Rule, TENANT } from "./schema.ts";

/** Why a good token makes nobody: for the log, without a claim's value. */
export interface Unmapped {
  readonly reason: string;
}

/** @param issuer as configured @param subject `sub` of the token @param marks of the rules (rule-chain.ts) */
export function principalFrom(
  rules: readonly Rule[],
  issuer: string,
  subject: string,
  claims: Claims,
  marks: readonly string[] = [],
): Principal | Unmapped {
  const at = rules.findIndex(({ when }) => when.every((condition) => holds(condition, claims)));
  const rule = rules[at];
  if (rule === undefined) return { reason: "no rule matches its claims" };
  const tenant = tenantOf(rule, claims);
  if (tenant === undefined) return { reason: `rule ${at + 1}: the claim for the tenant is missing or not one` };
  const role = roleOf(rule, claims);
  if (role === undefined) return { reason: `rule ${at + 1}: the claim for the role is missing or not in the table` };
  const scopes = scopesOf(rule, claims);
  const mark = marks[at];
  return principalOf({
    id: tokenPrincipalId(issuer, subject),
    kind: "token",
    tenant,
    role,
    ...(scopes === undefined ? {} : { scopes }),
    reach: reachOf(rule),
    ...(rule.limits === undefined ? {} : { limits: rule.limits as Principal["limits"] }),
    ...(mark === undefined ? {} : { ruledBy: mark }),
  });
}

/**
 * `tok_` and 128 bits of SHA-256 over issuer and subject: the same for every token of a subject, and no way back to a
 * name that may be an e-mail address.
 */
export function tokenPrincipalId(issuer: string, subject: string): string {
  return `tok_${hash("sha256", stringifyJson([issuer, subject]), "hex").slice(0, 32)}`;
}

function reachOf({ models, adapters, tools, priority }: Rule): Reach {
  return {
    ...(models === undefined ? {} : { models }),
    ...(adapters === undefined ? {} : { adapters }),
    ...(tools === undefined ? {} : { tools }),
    ...(priority === undefined ? {} : { priority }),
  };
}

function claimAt(claims: Claims, path: ClaimPath): JsonValue | undefined {
  let value: JsonValue | undefined = claims as JsonValue;
  for (const name of typeof path === "string" ? [path] : path) {
    if (value === null || typeof value !== "object" || Array.isArray(value) || !Object.hasOwn(value, name))
      return undefined;
    value = value[name];
  }
  return value;
}

function holds(condition: Condition, claims: Claims): boolean {
  const value = claimAt(claims, condition.claim);
  const { equals, in: list, matches, contains, exists } = condition;
  if (exists !== undefined) return exists === (value !== undefined);
  if (value === undefined) return false;
  if (equals !== undefined) return value === equals;
  if (list !== undefined) return list.some((each) => each === value);
  if (contains !== undefined) return membersOf(value).some((each) => each === contains);
  return typeof value === "string" && matchesAny(typeof matches === "string" ? [matches] : matches, value);
}

/** Of a list its entries, of a text its words: OAuth writes `scope` as one text. */
function membersOf(value: JsonValue): readonly JsonValue[] {
  if (Array.isArray(value)) return value;
  return typeof value === "string" ? value.split(" ") : [];
}

function tenantOf({ tenant }: Rule, claims: Claims): string | undefined {
  if (typeof tenant === "string") return tenant;
  const value = claimAt(claims, tenant.claim);
  const name = typeof value === "string" && value !== "" ? tenant.prefix + value : "";
  return TENANT.test(name) ? name : undefined;
}

function roleOf({ role }: Rule, claims: Claims): Role | undefined {
  if (typeof role === "string") return role;
  const value = claimAt(claims, role.claim);
  if (value === undefined) return undefined;
  const named = Array.isArray(value) ? value : [value];
  // In the table's order, so that the operator and not the issuer says which of several roles counts.
  return Object.entries(role.table).find(([name]) => named.includes(name))?.[1];
}

function scopesOf({ scopes }: Rule, claims: Claims): readonly Scope[] | undefined {
  if (scopes === undefined || Array.isArray(scopes)) return scopes;
  const { claim, prefix } = scopes as { claim: ClaimPath; prefix: string };
  const words = membersOf(claimAt(claims, claim) ?? []);
  return SCOPES.filter((scope) => words.includes(prefix + scope));
}
