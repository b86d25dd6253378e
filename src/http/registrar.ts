/**
 * The one way for a route into the server. At boot it refuses what `defineRoute` did not make, what is declared
 * twice, what does not say who may call it (Wall: T03) and what would let others answer under weaker terms than they
 * have (Wall: T95).
 */
import type { FastifyInstance } from "fastify";
import { fit, isSegment, type PathParams, type PathShape, shapeOf } from "#core/path-shapes.ts";
import { SCOPES } from "#core/principal.ts";
import { type AnyRoute, isRoute, type ListenerPlane, type Spoken } from "./route.ts";

/**
 * A request's place among the routes. Paths are compared as bytes: no decoding, no case folding, no dot segments. A
 * declared `{name}` stands for one segment of a strict alphabet, in which nothing could be encoded.
 */
export type Matched<S> =
  | { readonly kind: "route"; readonly route: AnyRoute<S>; readonly params: PathParams }
  | { readonly kind: "other-method"; readonly allow: string; readonly spoken: Spoken }
  | { readonly kind: "unknown" };

export interface RouteTable<S> {
  /** By declared path. */
  readonly paths: ReadonlyMap<string, readonly AnyRoute<S>[]>;
  readonly shapes: readonly PathShape[];
  /** Routes whose paths have no parameter, by path and method. */
  readonly literal: ReadonlyMap<string, ReadonlyMap<string, Matched<S>>>;
}

const NO_PARAMS: PathParams = {};
const PATH = /^(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$/;
/** @throws Error the declaration is not one that a server may run with */
export function checkRoutes<S>(routes: readonly AnyRoute<S>[]): void {
  const seen = new Set<string>();
  for (const route of routes) {
    if (typeof route !== "object" || route === null || !isRoute(route))
      throw new Error("a route did not come from defineRoute()");
    const name = `${route.method} ${route.path}`;
    const problem = seen.has(name) ? "is declared twice" : routeProblem(route);
    if (problem !== undefined) throw new Error(`route ${name} ${problem}`);
    seen.add(name);
  }
  requireDisjoint([...new Set(routes.map(({ path }) => path))]);
}

/** @throws Error a target would be of two declared paths */
function requireDisjoint(paths: readonly string[]): void {
  for (const path of paths.filter((one) => shapeOf(one) !== undefined)) {
    const other = paths.find((one) => one !== path && meet(path.split("/"), one.split("/")));
    if (other !== undefined) throw new Error(`the paths ${path} and ${other} meet`);
  }
}

function meet(a: readonly string[], b: readonly string[]): boolean {
  const isParameter = (segment: string | undefined): boolean => segment?.startsWith("{") ?? false;
  const takes = (one: string | undefined, two: string): boolean =>
    isParameter(one) && (isParameter(two) || isSegment(two));
  return (
    a.length === b.length &&
    b.every((segment, i) => segment === a[i] || takes(a[i], segment) || takes(segment, a[i] ?? ""))
  );
}

function routeProblem<S>(route: AnyRoute<S>): string | undefined {
  const { method, path, access, plane, limits, body, form, channel } = route;
  if (!PATH.test(path) && shapeOf(path) === undefined) return "has a path that is not literal";
  if (access?.kind === "key" ? !SCOPES.includes(access.scope) : access?.kind !== "open")
    return "does not say who may call it";
  if (access.kind === "open" && access.reason.trim() === "") return "is open and gives no reason";
  if (!["public", "ops", "both"].includes(plane)) return "names no plane";
  if (!(limits.timeoutMs > 0)) return "has no time limit";
  if (body !== undefined && form !== undefined) return "takes a body or a form, not both";
  if ((body !== undefined || form !== undefined) !== (limits.bodyBytes !== undefined && limits.bodyBytes > 0))
    return "needs both a body schema (or a form) and limits.bodyBytes, or neither";
  if (channel && (method !== "GET" || access.kind !== "key" || limits.bodyBytes !== undefined))
    return "is a channel, and not a GET with a key and no body";
  const weaker = route.forwardsTo?.find((target) => !asStrict(route, target));
  return weaker === undefined ? undefined : `forwards to ${weaker.path}, whose terms are not its own`;
}

/** Whether what holds before the body is read is no less than what the target wants. */
function asStrict<S>(route: AnyRoute<S>, target: AnyRoute<S>): boolean {
  return (
    isRoute(target) &&
    target.body !== undefined &&
    PATH.test(target.path) &&
    target.forwardsTo === undefined &&
    target.form === undefined &&
    target.access.kind === "key" &&
    route.access.kind === "key" &&
    (["method", "dialect", "plane", "switchedBy", "audit"] as const).every((term) => route[term] === target[term]) &&
    route.query === undefined &&
    target.query === undefined &&
    (route.limits.bodyBytes ?? 0) <= (target.limits.bodyBytes ?? 0) &&
    route.limits.timeoutMs <= target.limits.timeoutMs
  );
}

/** The finding for a target that is a declared path, letter by letter; undefined: the router has to look. */
export function matchLiterally<S>(
  { literal }: RouteTable<S>,
  method: string | undefined,
  target: string,
): Matched<S> | undefined {
  const end = target.indexOf("?");
  return literal.get(end < 0 ? target : target.slice(0, end))?.get(method ?? "");
}

/** Puts the plane's routes into the router, which takes no others from then on. */
export function registerRoutes<S>(
  app: FastifyInstance,
  routes: readonly AnyRoute<S>[],
  plane: ListenerPlane,
): RouteTable<S> {
  checkRoutes(routes);
  app.addHook("onRoute", ({ config, method, url }) => {
    const route = routeOf(config);
    if (route === undefined) throw new Error(`${String(method)} ${url} did not come from defineRoute()`);
  });
  const paths = new Map<string, AnyRoute<S>[]>();
  for (const route of routes) {
    if (route.plane !== plane && route.plane !== "both") continue;
    paths.set(route.path, [...(paths.get(route.path) ?? []), route]);
    const url = route.path.replace(/\{(.*)\}/, ":$1");
    // The corridor takes the request over in a hook that runs first; the router's handler is never reached.
    app.route({ method: route.method, url, config: { castellan: route }, handler: unreachable });
  }
  const literal = [...paths].filter(([path]) => shapeOf(path) === undefined);
  return {
    paths,
    shapes: [...paths.keys()].map(shapeOf).filter((shape) => shape !== undefined),
    literal: new Map(literal.map(([path, found]) => [path, byMethod(found)])),
  };
}

function byMethod<S>(routes: readonly AnyRoute<S>[]): ReadonlyMap<string, Matched<S>> {
  return new Map(routes.map((route) => [route.method, { kind: "route", route, params: NO_PARAMS }]));
}

function unreachable(): never {
  throw new Error("the corridor did not take the request over");
}

function routeOf(config: unknown): AnyRoute<unknown> | undefined {
  const value = (config as { castellan?: unknown } | undefined)?.castellan;
  return typeof value === "object" && value !== null && isRoute(value) ? (value as AnyRoute<unknown>) : undefined;
}

/**
 * @param config the router's finding; it decodes and normalises, so it is believed only where the target's own
 *   bytes are the route's path
 * @param target the request target as it came
 */
export function match<S>(table: RouteTable<S>, config: unknown, target: string): Matched<S> {
  const end = target.indexOf("?");
  const path = end < 0 ? target : target.slice(0, end);
  const { declared, params } = placeOf(table, path);
  const route = routeOf(config) as AnyRoute<S> | undefined;
  if (route !== undefined && route.path === declared) return { kind: "route", route, params };
  const others = table.paths.get(declared);
  const first = others?.[0];
  if (others === undefined || first === undefined) return { kind: "unknown" };
  return { kind: "other-method", allow: others.map((other) => other.method).join(", "), spoken: first };
}

/** The declared path that a path is of; the path itself where there is none with a parameter. */
function placeOf<S>({ paths, shapes }: RouteTable<S>, path: string): { declared: string; params: PathParams } {
  // What stands in a target is no declaration, however it is spelled.
  if (path.includes("{")) return { declared: "", params: NO_PARAMS };
  if (paths.has(path)) return { declared: path, params: NO_PARAMS };
  for (const shape of shapes) {
    const params = fit(shape, path);
    if (params !== undefined) return { declared: shape.declared, params };
  }
  return { declared: path, params: NO_PARAMS };
}
