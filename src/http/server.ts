/**
 * The HTTP server as the rest of the program sees it: routes and services in, listeners and counters out.
 *
 * Fastify is the router and the kernel under `inject`; one instance a plane. Each request leaves it in its first
 * hook, for the corridor, before Fastify would look at a body; one to a declared path without parameters, letter by
 * letter, does not come to it. Callers: app.
 */
import fastify, {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type InjectOptions,
  type LightMyRequestResponse,
} from "fastify";
import { type Log, silentLog } from "#base/log.ts";
import { OpenCalls } from "#base/open-calls.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault } from "#core/fault.ts";
import { SEGMENT_LENGTH } from "#core/path-shapes.ts";
import { directClient, type FindClient } from "#policy/client-address.ts";
import type { Gate } from "#policy/gate.ts";
import type { PlainHandling } from "./_plain-connection.ts";
import { Counters, type CountersSnapshot } from "./counters.ts";
import { type Address, type Handle, type Handling, type Listener, openListener } from "./listener.ts";
import { DEFAULT_HTTP_OPTIONS, type HttpOptions } from "./options.ts";
import { type Corridor, type Observer, walk } from "./pipeline.ts";
import { type Matched, match, matchLiterally, type RouteTable, registerRoutes } from "./registrar.ts";
import type { Relay } from "./relay.ts";
import type { AnyRoute, ListenerPlane, SpokenBy } from "./route.ts";
import type { TlsSource } from "./tls.ts";

export interface HttpSettings<S> {
  readonly routes: readonly AnyRoute<S>[];
  readonly services: S;
  readonly gate: Gate;
  /** Where callers come from when proxies stand in between; absent: no header is believed. */
  readonly client?: FindClient;
  /** Prints what happens outside of any route. */
  readonly dialect: Dialect;
  /** The same, of requests with this header. */
  readonly orBy?: SpokenBy;
  readonly options?: Partial<HttpOptions>;
  /** Called once a call, when it is over. */
  readonly observer?: Observer;
  readonly log?: Log;
  /** Answers calls by passing them on. */
  readonly relay?: Relay<S>;
}

export interface Http {
  /** A request without a socket, for tests. */
  inject(plane: ListenerPlane, request: InjectOptions): Promise<LightMyRequestResponse>;
  /** Opens a door to a plane; any number of them. @throws Error the address cannot be had */
  listen(plane: ListenerPlane, address: Address, tls?: TlsSource): Promise<Address>;
  /** From now on new calls with a key get `draining`; open routes go on, so that /health can say so. */
  beginDrain(): void;
  isDraining(): boolean;
  /**
   * Drains, waits up to `graceMs` for calls on their way, ends what is left with `draining`, closes every door.
   * Idempotent: later calls wait for the first.
   */
  close(graceMs: number): Promise<void>;
  counters(): CountersSnapshot;
}

/** How long calls have for their last words once they are told to end. */
const LAST_WORDS_MS = 1000;

/** @throws Error a route that a server may not run with (registrar.ts) */
export async function createHttp<S>(settings: HttpSettings<S>): Promise<Http> {
  const corridor = createCorridor(settings);
  const planes = {
    public: await createPlane(corridor, settings.routes, "public"),
    ops: await createPlane(corridor, settings.routes, "ops"),
  };
  const listeners: Listener[] = [];
  const beginDrain = (): void => {
    corridor.draining = true;
    for (const listener of listeners) listener.closeIdle();
  };
  let closed: Promise<void> | undefined;
  const close = async (graceMs: number): Promise<void> => {
    beginDrain();
    await idle(corridor, graceMs);
    for (const exchange of corridor.open.all()) exchange.abort(new Fault("draining", "The server is shutting down."));
    await idle(corridor, LAST_WORDS_MS);
    await Promise.all(listeners.map((listener) => listener.close()));
    await Promise.all([planes.public.app.close(), planes.ops.app.close()]);
  };
  return {
    inject: (plane, request) => planes[plane].app.inject(request),
    listen: async (plane, address, tls) => {
      const listener = await openListener(address, planes[plane], corridor.options, corridor.counters, tls);
      listeners.push(listener);
      return listener.address;
    },
    beginDrain,
    isDraining: () => corridor.draining,
    close: (graceMs) => {
      closed ??= close(graceMs);
      return closed;
    },
    counters: () => corridor.counters.snapshot(),
  };
}

function createCorridor<S>({
  services,
  gate,
  client = directClient,
  dialect,
  orBy,
  options,
  observer,
  log,
  routes,
  relay,
}: HttpSettings<S>): Corridor<S> {
  return {
    services,
    gate,
    client,
    dialect,
    orBy,
    options: { ...DEFAULT_HTTP_OPTIONS, ...options },
    counters: new Counters(),
    log: log ?? silentLog,
    observer: observer ?? (() => {}),
    open: new OpenCalls(),
    whenIdle: undefined,
    draining: false,
    admitted: 0,
    relay,
    relayed: relay === undefined ? new Set() : relayedBy(relay, routes),
  };
}

/** @throws Error it wants an open route */
function relayedBy<S>(relay: Relay<S>, routes: readonly AnyRoute<S>[]): ReadonlySet<AnyRoute<S>> {
  const wanted = routes.filter((route) => relay.wants(route));
  const open = wanted.find(({ access }) => access.kind === "open");
  if (open !== undefined) throw new Error(`${open.path} is open, and nothing that is open is passed on`);
  return new Set(wanted);
}

async function createPlane<S>(
  corridor: Corridor<S>,
  routes: readonly AnyRoute<S>[],
  plane: ListenerPlane,
): Promise<Handling & { readonly app: FastifyInstance }> {
  let table: RouteTable<S> = { paths: new Map(), shapes: [], literal: new Map() };
  const enter = (request: FastifyRequest, reply: FastifyReply): void => {
    reply.hijack();
    const { raw } = request;
    void walk(corridor, plane, match(table, request.routeOptions.config, raw.url ?? ""), raw, reply.raw);
  };
  const app = fastify({
    logger: false,
    // The corridor makes the ids.
    requestIdHeader: false,
    genReqId: () => "",
    exposeHeadRoutes: false,
    return503OnClosing: false,
    // A target that the router cannot decode is an unknown path like any other.
    frameworkErrors: (_error, request, reply) => enter(request, reply),
    routerOptions: {
      caseSensitive: true,
      ignoreTrailingSlash: false,
      ignoreDuplicateSlashes: false,
      maxParamLength: SEGMENT_LENGTH,
      // decodeQuery does it, with its own checks.
      querystringParser: () => ({}),
    },
  });
  // Takes the request over and never calls on: nothing of Fastify comes after.
  app.addHook("onRequest", (request, reply, _done) => enter(request, reply));
  app.setNotFoundHandler(() => {});
  table = registerRoutes(app, routes, plane);
  await app.ready();
  const handle: Handle = (req, res) => {
    const matched = matchLiterally(table, req.method, req.url ?? "");
    if (matched === undefined) app.routing(req, res);
    else void walk(corridor, plane, matched, req, res);
  };
  const channels = (target: string): boolean => {
    const matched = matchLiterally(table, "GET", target);
    return matched?.kind === "route" && matched.route.channel === true && corridor.relayed.has(matched.route);
  };
  const plain: PlainHandling<Matched<S>> = {
    find: (method, target) => plainly(matchLiterally(table, method, target)),
    handle: (matched, req, res) => walk(corridor, plane, matched, req, res),
  };
  return { app, handle, channels, plain };
}

/** Of routes that need a body's bytes and nothing of node:http: no stream of a form, no connection of a channel. */
function plainly<S>(matched: Matched<S> | undefined): Matched<S> | undefined {
  if (matched?.kind !== "route") return undefined;
  const { form, channel } = matched.route;
  return form === undefined && channel !== true ? matched : undefined;
}

/** Until no call is open, or the time is over. */
async function idle<S>(corridor: Corridor<S>, milliseconds: number): Promise<void> {
  if (corridor.open.size === 0) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    corridor.whenIdle = () => {
      clearTimeout(timer);
      resolve();
    };
  });
  corridor.whenIdle = undefined;
}
