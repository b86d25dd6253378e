/**
 * Who may look after whose keys, and what of a key lies beyond what a caller may hand out.
 *
 * Invariants: a principal of the operator's tenant administers every tenant, any other one its own alone (Wall: T83);
 * but for administrators of the operator's tenant nobody makes, wakes, ends or gets the secret of a key that may more
 * than they do, but for what the role service has, or makes, wakes or gets the secret of one that may use more or lasts
 * longer (Wall: T84). Pure. Callers: serving/admin-*.ts, before any change.
 */
import { type Budget, LIMIT_DOCS, type LimitFigure, type Limits } from "#core/limits.ts";
import { matchesAny } from "#core/name-patterns.ts";
import { OPERATOR_TENANT, type Principal, type Reach, ROLES, type Role, type Scope } from "#core/principal.ts";
import { CAP_ROWS, type CapName, capsFor, type RequestCaps } from "#core/request-caps.ts";
import { canonicalAddress, inNetworks } from "./networks.ts";

export function administers({ tenant }: Pick<Principal, "tenant">, of: string): boolean {
  return tenant === OPERATOR_TENANT || tenant === of;
}

/**
 * What of an answer about several tenants a caller sees.
 * @param wanted the tenant that it asked for
 * @returns the filter that holds; undefined: there is nothing for it to see
 */
export function withinTenants(
  caller: Pick<Principal, "tenant">,
  wanted: string | undefined,
): { readonly tenant?: string } | undefined {
  if (wanted !== undefined) return administers(caller, wanted) ? { tenant: wanted } : undefined;
  return caller.tenant === OPERATOR_TENANT ? {} : { tenant: caller.tenant };
}

/** What a key may. */
export interface KeyRights {
  readonly role: Role;
  /** Absent: the role's. */
  readonly scopes?: readonly Scope[];
  readonly reach: Reach;
  readonly caps: Partial<RequestCaps>;
  readonly limits: Limits;
  /** Unix milliseconds; absent: it does not end. */
  readonly expiresAt?: number;
}

type Caller = Pick<Principal, "tenant" | "scopes" | "reach" | "caps" | "limits" | "until">;

/**
 * For whoever makes a key, wakes it or gets its secret.
 * @param server its caps, where a principal has none of its own
 * @returns which part of the key lies beyond the caller, as a sentence; undefined: none
 */
export function excessOf(caller: Caller, key: KeyRights, server: RequestCaps): string | undefined {
  return reachExcess(caller, key, server) ?? (isHeld(caller) ? limitExcess(caller, key) : undefined);
}

/** For whoever ends a key, which gives nobody more to use. */
export function reachExcess(caller: Caller, key: KeyRights, server: RequestCaps): string | undefined {
  if (!isHeld(caller)) return undefined;
  return (
    scopeExcess(caller, key) ??
    priorityExcess(caller, key) ??
    capExcess(caller, key, server) ??
    namesExcess("models", caller, key) ??
    namesExcess("adapters", caller, key) ??
    namesExcess("tools", caller, key) ??
    networkExcess(caller, key)
  );
}

const SERVICE: ReadonlySet<Scope> = new Set(ROLES.service);

function scopeExcess(caller: Caller, { role, scopes = ROLES[role] }: KeyRights): string | undefined {
  const beyond = scopes.find((scope) => !caller.scopes.has(scope) && !SERVICE.has(scope));
  return beyond === undefined ? undefined : `scopes: ${beyond} is not yours to give`;
}

/** An administrator of one tenant is held: operations and caps are the whole server's. */
function isHeld({ scopes, tenant }: Caller): boolean {
  return !scopes.has("admin") || tenant !== OPERATOR_TENANT;
}

/** Each of the caller's own limits is one of the key's too, and the key ends with the caller's at the latest. */
function limitExcess(caller: Caller, { limits, expiresAt = Infinity }: KeyRights): string | undefined {
  const own = caller.limits;
  for (const name of Object.keys(LIMIT_DOCS) as LimitFigure[]) {
    const most = own[name];
    if (most !== undefined && !((limits[name] ?? Infinity) <= most))
      return `limits: ${wordOf(name)} has to be given, and is at most ${most}`;
  }
  const budget = own.budgets?.find((most) => !limits.budgets?.some((given) => isWithin(given, most)));
  if (budget !== undefined)
    return `limits: a budget in ${budget.unit} a ${budget.period} has to be given, and is at most ${budget.amount}`;
  if (caller.until === undefined || expiresAt <= caller.until) return undefined;
  return `expires_at: has to be given, and is ${new Date(caller.until).toISOString()} at the latest, when yours ends`;
}

function isWithin(given: Budget, most: Budget): boolean {
  return given.period === most.period && given.unit === most.unit && given.amount <= most.amount;
}

/** As the routes write it. */
function wordOf(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Lower runs first; who says nothing has 0. */
function priorityExcess(caller: Caller, { reach }: KeyRights): string | undefined {
  const most = caller.reach.priority ?? 0;
  return (reach.priority ?? 0) >= most ? undefined : `priority: yours is ${most}, and lower is more urgent`;
}

function capExcess(caller: Caller, { caps }: KeyRights, server: RequestCaps): string | undefined {
  const [own, given] = [capsFor(server, caller.caps), capsFor(server, caps)];
  for (const name of Object.keys(CAP_ROWS) as CapName[]) {
    const most = Math.min(sizeOf(name, server), sizeOf(name, own));
    if (sizeOf(name, given) > most) return `caps: ${name} is at most ${most}`;
  }
  return undefined;
}

/** -1 lifts the cap on logprobs. */
function sizeOf(name: CapName, caps: RequestCaps): number {
  return name === "logprobs" && caps[name] === -1 ? Infinity : caps[name];
}

const WILDCARD = /[*?]/;

function namesExcess(part: "models" | "adapters" | "tools", caller: Caller, { reach }: KeyRights): string | undefined {
  const own = caller.reach[part];
  if (own === undefined) return undefined;
  const wanted = reach[part];
  if (wanted === undefined) return `${part}: you have some only, so the key has to name its own`;
  const beyond = wanted.find((name) => !own.includes(name) && (WILDCARD.test(name) || !matchesAny(own, name)));
  return beyond === undefined ? undefined : `${part}: ${quoted(beyond)} is not within yours`;
}

function networkExcess(caller: Caller, { reach: { networks } }: KeyRights): string | undefined {
  const own = caller.reach.networks;
  if (own === undefined) return undefined;
  if (networks === undefined) return "networks: you have some only, so the key has to name its own";
  const beyond = networks.find(
    (network) => !own.includes(network) && (canonicalAddress(network) === undefined || !inNetworks(own, network)),
  );
  return beyond === undefined ? undefined : `networks: ${quoted(beyond)} is neither one of yours nor an address in one`;
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}
