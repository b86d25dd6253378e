/**
 * A route is one value: everything that the server, the docs and the tests need to know about it.
 *
 * From it come the router entry, limits, validation, OpenAPI, the docs page, metric labels, the audit class and
 * the 401 matrix. Nothing else registers a route (http/registrar.ts refuses what did not come from here).
 */
import type { ZodType } from "zod";
import type { Dialect } from "#core/dialect.ts";
import type { Access, CallerOf } from "./access.ts";
import type { Reply } from "./reply.ts";

export type Method = "GET" | "POST" | "DELETE" | "PUT";

/** `public`: inference. `ops`: the operations listener only; 404 on the public one. `both`: on each. */
export type Plane = "public" | "ops" | "both";

/** What a listener serves: its own plane, and the routes declared for both. */
export type ListenerPlane = "public" | "ops";

/** What an operator switches on: app/switches.ts says by which settings. */
export const ROUTE_SWITCHES = [
  "allowRuntimeLoraUpdating",
  "serverDevMode",
  "enableSleepMode",
  "enableFaultTolerance",
  "enableTokenizerInfoEndpoint",
  "weightRoots",
  "profileDir",
] as const;
export type RouteSwitch = (typeof ROUTE_SWITCHES)[number];

/** What an operator may open to the public listener. */
export const PUBLIC_SWITCHES = ["publicLoraRoutes"] as const;
export type PublicSwitch = (typeof PUBLIC_SWITCHES)[number];

export interface RouteLimits {
  /** Bytes of the body at most; the server's setting may lower it. Absent: the route reads no body. */
  readonly bodyBytes?: number;
  /** Until the answer is complete. */
  readonly timeoutMs: number;
}

/** What a form (multipart/form-data) may hold: so many fields, so long, and one file of `limits.bodyBytes` at most. */
export interface FormLimits {
  readonly fields: number;
  readonly fieldBytes: number;
  /** Which cap lowers the file's size: the one of speech, or (absent) the one of uploads. */
  readonly file?: "audio";
}

export type Fields = ReadonlyMap<string, string>;

export interface FormFile {
  /** Name of the field. */
  readonly field: string;
  /** As the client named it: text for people, never part of a path. */
  readonly name: string;
  /** Bytes that it has at the least, by the length that the request announced; 0: it announced none. */
  readonly atLeast: number;
  /** Ends with a Fault where the form does. */
  readonly content: AsyncIterable<Uint8Array>;
}

/** Takes the form's file while it comes; resolves when it has it. What it throws ends the call. */
export type TakeFile = (file: FormFile) => Promise<void>;

/** What an answer may look like, for OpenAPI and for the tests that replay replies against it. */
export interface ReplyDeclaration {
  readonly status: number;
  readonly contentType: "application/json" | "application/octet-stream" | "text/event-stream" | "text/plain" | null;
  readonly schema?: ZodType;
  readonly doc: string;
}

/** `{name}` of a declared path; never: it has none. */
type ParamName<P extends string> = P extends `${string}{${infer N}}${string}` ? N : never;

/** `dialect` prints the failures of requests with the header, and says which credentials count in them. */
export interface SpokenBy {
  /** Lower case. */
  readonly header: string;
  readonly dialect: Dialect;
}

/** In which words failures are printed. */
export interface Spoken {
  readonly dialect: Dialect;
  readonly orBy?: SpokenBy | undefined;
}

/** What a handler gets. */
export interface Call<S, A extends Access, B, Q, P extends string = `/${string}`> {
  readonly caller: CallerOf<A>;
  readonly body: B;
  readonly query: Q;
  /** Reads the form of a route that declares one; once. @throws Fault */
  readonly form: (take: TakeFile) => Promise<Fields>;
  /** The segment that stands for the `{name}` of the path: 1 to 128 letters, digits, `_` and `-`, as they came. */
  readonly params: Readonly<Record<ParamName<P>, string>>;
  /** The listener that it came in by. */
  readonly plane: ListenerPlane;
  /** The route's own, or the other that the request speaks (`orBy`). */
  readonly dialect: Dialect;
  /** Made by the server, or the client's X-Request-Id for tracing; never keys shared state. */
  readonly requestId: string;
  /** Aborted when the client goes away, the time is over or the server ends. */
  readonly signal: AbortSignal;
  readonly services: S;
}

/**
 * Another route answers, under its own declaration: the corridor authorizes by it, holds the body against its schema,
 * and only then calls its handler.
 */
export interface Forward<S> {
  readonly kind: "forward";
  readonly to: AnyRoute<S>;
  /** As it came, but for its schema: JSON. */
  readonly body: unknown;
}

export interface RouteSpec<S, A extends Access, B, Q, P extends `/${string}` = `/${string}`> {
  readonly method: Method;
  /** Literal, but for one segment that may be `{name}` (registrar.ts). */
  readonly path: P;
  readonly dialect: Dialect;
  /** A path that two protocols share: what comes with this header is of the other one. */
  readonly orBy?: SpokenBy;
  readonly access: A;
  readonly plane: Plane;
  /** What has to be switched on for the route to exist. Absent: it always does. */
  readonly switchedBy?: RouteSwitch;
  /** What has to be switched on for a route of the operations listener to be on the public one, too. Absent: it never is. */
  readonly publicBy?: PublicSwitch;
  readonly limits: RouteLimits;
  /** Absent: the route takes no body. */
  readonly body?: ZodType<B>;
  /** The body is a form; `limits.bodyBytes` bounds its file. Instead of `body`. */
  readonly form?: FormLimits;
  /** A WebSocket (GET): `limits.timeoutMs` is its longest session. Here only where another server answers it. */
  readonly channel?: true;
  readonly query?: ZodType<Q>;
  /** Parameters of the query that may stand there several times; the schema gets an array of them. */
  readonly repeats?: readonly string[];
  readonly reply: readonly ReplyDeclaration[];
  /** What the audit log keeps of a call. */
  readonly audit: "none" | "metadata";
  readonly doc: string;
  /** The routes that may answer in its place; none of them lies behind a wall that this one has not. */
  readonly forwardsTo?: readonly AnyRoute<S>[];
  readonly handler: (call: Call<S, A, B, Q, P>) => Promise<Reply> | Reply | Forward<S>;
}

const made = new WeakSet<object>();

/** A declared route with its types forgotten: what registrars, docs and tests iterate over. */
export type AnyRoute<S> = RouteSpec<S, Access, unknown, unknown>;

/**
 * Declares a route. Curried over the services type so that the other types are inferred:
 * `const route = defineRoute<Services>(); export const health = route({ … });`
 */
export function defineRoute<S>() {
  return <const P extends `/${string}`, A extends Access, B = undefined, Q = undefined>(
    spec: RouteSpec<S, A, B, Q, P>,
  ): AnyRoute<S> => {
    const value = Object.freeze({ ...spec }) as unknown as AnyRoute<S>;
    made.add(value);
    return value;
  };
}

/** The same route on both listeners. @throws Error its declaration does not allow for that */
export function onBothListeners<S>(route: AnyRoute<S>): AnyRoute<S> {
  if (route.publicBy === undefined || !isRoute(route)) throw new Error(`${route.path} is for its own listener only`);
  const value = Object.freeze({ ...route, plane: "both" as const });
  made.add(value);
  return value;
}

/** Whether the value came from `defineRoute`: the registrar's check. */
export function isRoute(value: object): boolean {
  return made.has(value);
}
