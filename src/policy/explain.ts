/**
 * What the corridor would say to a request, and by which rule, without sending it.
 *
 * Pure. The decisions are those of identify.ts, authorize.ts and core/name-patterns.ts, in the corridor's order; a test
 * compares each with what a server answers. What only a request can show (its body, limits that are used up, an engine
 * that is away) is no part of it. Callers: the command line, the operations listener, policy/file/cases.ts.
 */
import { Fault } from "#core/fault.ts";
import { UNMETERED } from "#core/metering.ts";
import { mayUse } from "#core/name-patterns.ts";
import { fit, shapeOf } from "#core/path-shapes.ts";
import { type Named, type NamePatterns, OPERATOR_TENANT, type Principal, ROLES, type Scope } from "#core/principal.ts";
import { authorize, requireOperator } from "./authorize.ts";
import type { TenantRules } from "./file/tenants.ts";
import { inNetworks } from "./networks.ts";

export type Listener = "public" | "ops";

/** What of a declared route decides. */
export interface RouteFacts {
  readonly method: string;
  readonly path: string;
  readonly plane: Listener | "both";
  readonly access:
    | { readonly kind: "open" }
    | { readonly kind: "key"; readonly scope: Scope; readonly operator?: true };
  /** The setting that it waits for and that is off. */
  readonly offBy?: string;
}

export interface Question {
  readonly method: string;
  /** As sent, without the query. */
  readonly path: string;
  readonly listener: Listener;
  /** Absent: networks are told and not judged. */
  readonly address?: string;
  /** Served names that the request is about. */
  readonly model?: string;
  readonly adapter?: string;
  readonly tool?: string;
}

/** Who asks, before tenants and networks are looked at. */
export type Asker =
  | { readonly kind: "nobody" }
  /** A credential that opens nothing. `status` 403: a token that is good and that no rule maps. */
  | { readonly kind: "refused"; readonly status: 401 | 403; readonly says: string; readonly principal?: Principal }
  | { readonly kind: "known"; readonly principal: Principal; readonly says: string };

export const RULES = [
  "credential",
  "networks",
  "tenant",
  "route",
  "scope",
  "operator",
  "model",
  "adapter",
  "tool",
] as const;
export type RuleName = (typeof RULES)[number];

export interface Step {
  readonly rule: RuleName;
  readonly holds: boolean;
  /** For people: a sentence without its subject. */
  readonly says: string;
}

export interface Verdict {
  readonly allowed: boolean;
  /** What the caller is told; 200: let in. */
  readonly status: 200 | 401 | 403 | 404 | 405;
  /** The rule that decides: the first that does not hold, else the last that was asked. */
  readonly decidedBy: RuleName;
  /** What that rule says. */
  readonly because: string;
  /** In the corridor's order, those after the deciding one too. */
  readonly steps: readonly Step[];
}

type Judged = Step & { readonly status: Verdict["status"] };

export function explain(
  question: Question,
  asker: Asker,
  routes: readonly RouteFacts[],
  tenants: TenantRules,
): Verdict {
  const place = findRoute(question, routes);
  if (place.route?.access.kind === "open") return verdictOf([{ ...place.step, status: 200 }]);
  const who = whoSteps(question, asker, tenants);
  const what = place.route === undefined ? [] : whatSteps(question, place.route, principalIn(asker, tenants));
  return verdictOf([...who, { ...place.step, status: place.status }, ...what]);
}

function verdictOf(steps: readonly Judged[]): Verdict {
  const decides = steps.find(({ holds }) => !holds) ?? steps.at(-1);
  if (decides === undefined) throw new Error("nothing was asked");
  return {
    allowed: decides.holds,
    status: decides.holds ? 200 : decides.status,
    decidedBy: decides.rule,
    because: decides.says,
    steps: steps.map(({ rule, holds, says }) => ({ rule, holds, says })),
  };
}

interface Place {
  /** Undefined: no route answers there. */
  readonly route: RouteFacts | undefined;
  readonly step: Step;
  readonly status: 200 | 404 | 405;
}

function findRoute({ method, path, listener }: Question, routes: readonly RouteFacts[]): Place {
  const name = `${method} ${path}`;
  const missing = (says: string, status: 404 | 405 = 404): Place => ({
    route: undefined,
    step: { rule: "route", holds: false, says },
    status,
  });
  const there = routes.filter((route) => isOf(path, route.path));
  const here = there.filter(({ plane, offBy }) => (plane === listener || plane === "both") && offBy === undefined);
  const route = here.find((each) => each.method === method);
  if (route !== undefined) {
    const open = route.access.kind === "open" ? ", and answers anybody" : "";
    return {
      route,
      step: { rule: "route", holds: true, says: `${name} is on the ${listener} listener${open}` },
      status: 200,
    };
  }
  if (here.length > 0) return missing(`${path} takes ${here.map((each) => each.method).join(", ")} only`, 405);
  const off = there.find(({ offBy }) => offBy !== undefined);
  if (off !== undefined) return missing(`${name} is not switched on: ${off.offBy}`);
  if (there.length > 0) return missing(`${path} is on the ${there[0]?.plane} listener, not on the ${listener} one`);
  return missing(`no route has the path ${path}`);
}

/** A path as it would be sent, or the declared one itself, which stands for all of its paths. */
export function isOf(path: string, declared: string): boolean {
  if (path === declared) return true;
  const shape = shapeOf(declared);
  return shape !== undefined && fit(shape, path) !== undefined;
}

function whoSteps({ address }: Question, asker: Asker, tenants: TenantRules): Judged[] {
  if (asker.kind === "nobody")
    return [{ rule: "credential", holds: false, says: "no credential is shown", status: 401 }];
  if (asker.kind === "refused") return [{ rule: "credential", holds: false, says: asker.says, status: asker.status }];
  const { principal, says } = asker;
  return [
    { rule: "credential", holds: true, says, status: 200 },
    { ...networkStep(principal.reach.networks, address), status: 401 },
    { ...tenantStep(principal, tenants), status: 401 },
  ];
}

function networkStep(networks: readonly string[] | undefined, address: string | undefined): Step {
  if (networks === undefined) return { rule: "networks", holds: true, says: "may come from anywhere" };
  const listed = listOf(networks);
  if (address === undefined)
    return { rule: "networks", holds: true, says: `may come from ${listed} only; no address was named to judge` };
  const holds = inNetworks(networks, address);
  return { rule: "networks", holds, says: `${address} is ${holds ? "" : "not "}in ${listed}` };
}

function tenantStep({ tenant }: Principal, tenants: TenantRules): Step {
  const { named, rule } = tenants.find(tenant);
  if (rule === undefined) return { rule: "tenant", holds: true, says: `nothing is said of the tenant ${tenant}` };
  const by = named ? `the rule of the tenant ${tenant}` : `the rule "*", as the tenant ${tenant} is not named,`;
  return rule.disabled === true
    ? { rule: "tenant", holds: false, says: `${by} disables it` }
    : { rule: "tenant", holds: true, says: `${by} lets it in` };
}

/** With its tenant's lists. Undefined: there is nobody to judge further. */
function principalIn(asker: Asker, tenants: TenantRules): Principal | undefined {
  if (asker.kind !== "known") return undefined;
  try {
    return tenants.apply(asker.principal);
  } catch (error) {
    if (error instanceof Fault) return asker.principal;
    throw error;
  }
}

function whatSteps(question: Question, { access }: RouteFacts, principal: Principal | undefined): Judged[] {
  if (principal === undefined || access.kind === "open") return [];
  const names = (["model", "adapter", "tool"] as const).flatMap((rule): Judged[] => {
    const name = question[rule];
    return name === undefined ? [] : [{ ...nameStep(rule, name, principal), status: 404 }];
  });
  const operator = access.operator === true ? [{ ...operatorStep(principal), status: 403 as const }] : [];
  return [{ ...scopeStep(principal, access.scope), status: 403 }, ...operator, ...names];
}

function operatorStep(principal: Principal): Step {
  const holds = passes(() => requireOperator(principal));
  const says = holds
    ? "is the operator's"
    : `is not the operator's (${OPERATOR_TENANT}), and this concerns every tenant`;
  return { rule: "operator", holds, says: `the tenant ${principal.tenant} ${says}` };
}

function scopeStep(principal: Principal, scope: Scope): Step {
  const { role, scopes } = principal;
  const holds = passes(() => authorize(principal, scope, UNMETERED));
  const narrowed = scopes.size < ROLES[role].length && (ROLES[role] as readonly Scope[]).includes(scope);
  if (!holds && narrowed)
    return {
      rule: "scope",
      holds,
      says: `the role ${role} has the scope ${scope}, and this caller is narrowed to less`,
    };
  return { rule: "scope", holds, says: `the role ${role} ${holds ? "has" : "lacks"} the scope ${scope}` };
}

const LISTS = { model: "models", adapter: "adapters", tool: "tools" } as const satisfies Record<string, Named>;

function nameStep(rule: keyof typeof LISTS, name: string, principal: Principal): Step {
  const what = LISTS[rule];
  if (mayUse(principal, what, name)) return { rule, holds: true, says: `${name} is among ${among(principal, what)}` };
  const own = mayUse({ reach: principal.reach }, what, name);
  const [whose, list] = own ? ["the tenant's", principal.within?.[what]] : ["the caller's", principal.reach[what]];
  return { rule, holds: false, says: `${name} is not among ${whose} ${what}: ${listOf(list ?? [])}` };
}

function among({ reach, within }: Principal, what: Named): string {
  const parts = [
    ...(reach[what] === undefined ? [] : [`the caller's ${what} (${listOf(reach[what])})`]),
    ...(within?.[what] === undefined ? [] : [`its tenant's (${listOf(within[what])})`]),
  ];
  return parts.length === 0 ? `${what}, all of which the caller may use` : parts.join(" and ");
}

function listOf(patterns: NamePatterns): string {
  return patterns.length === 0 ? "none" : patterns.join(", ");
}

function passes(decide: () => unknown): boolean {
  try {
    decide();
    return true;
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}
