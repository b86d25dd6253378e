/**
 * A small server around the corridor for tests: a plain dialect, a few routes, one key, and raw sockets.
 */
import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { connect as connectTls } from "node:tls";
import { z } from "zod";
import type { Log } from "#base/log.ts";
import { Secret } from "#base/secret.ts";
import { sseData } from "#base/sse.ts";
import type { Dialect } from "#core/dialect.ts";
import type { FaultKind } from "#core/fault.ts";
import { key, open } from "#http/access.ts";
import type { HttpOptions } from "#http/options.ts";
import type { CallRecord } from "#http/pipeline.ts";
import type { Relay } from "#http/relay.ts";
import { json } from "#http/reply.ts";
import { type AnyRoute, type Call, defineRoute } from "#http/route.ts";
import { createHttp, type Http } from "#http/server.ts";
import type { TlsMaterial, TlsSource } from "#http/tls.ts";
import type { Gate } from "#policy/gate.ts";
import { plainGate } from "#policy/gate.ts";
import { createIdentify } from "#policy/identify.ts";
import { KeySet, operatorKey } from "#policy/keys.ts";
import { authority, type Issued } from "#test/fixtures/certificates.ts";

export const KEY = "test-key";
export const AUTH = `Authorization: Bearer ${KEY}`;

const STATUS: Record<FaultKind, number> = {
  invalid_json: 400,
  invalid_request: 400,
  unsupported_media_type: 400,
  payload_too_large: 413,
  unauthenticated: 401,
  forbidden: 403,
  route_not_found: 404,
  method_not_allowed: 405,
  model_not_found: 404,
  response_not_found: 404,
  file_not_found: 404,
  file_elsewhere: 409,
  batch_not_found: 404,
  key_not_found: 404,
  request_timeout: 408,
  rate_limited: 429,
  overloaded: 503,
  draining: 503,
  engine_unavailable: 503,
  policy_unavailable: 503,
  engine_failed: 500,
  not_implemented: 501,
  upstream_unavailable: 503,
  upstream_failed: 502,
  upstream_timeout: 504,
  cancelled: 499,
  internal: 500,
};

export function plainDialect(name: string): Dialect {
  const body = (kind: FaultKind, message: string, param: string | undefined) => ({
    error: { kind, message, param: param ?? null },
  });
  return {
    name,
    // As every dialect must: a bug's answer names the request, so that the log can be searched for it.
    fault: ({ kind, message, param }, id) => ({
      status: STATUS[kind],
      body: body(kind, kind === "internal" ? `${message} ${id}` : message, param),
    }),
    streamFault: ({ kind, message, param }) => sseData(JSON.stringify(body(kind, message, param))) + sseData("[DONE]"),
  };
}

/** Handlers under test go in here by route. */
export interface Services {
  readonly handled: string[];
  chat: (
    call: Pick<
      Call<Services, ReturnType<typeof key<"inference">>, { messages: unknown[] }, undefined>,
      "body" | "signal" | "requestId"
    >,
  ) => ReturnType<AnyRoute<Services>["handler"]>;
}

const openai = plainDialect("openai");
const route = defineRoute<Services>();
const reply = [{ status: 200, contentType: "application/json", doc: "" }] as const;
const rest = { reply, audit: "none", doc: "" } as const;

export const ROUTES: readonly AnyRoute<Services>[] = [
  route({
    ...rest,
    method: "POST",
    path: "/v1/chat",
    dialect: openai,
    access: key("inference"),
    plane: "public",
    limits: { bodyBytes: 100_000, timeoutMs: 10_000 },
    body: z.object({
      messages: z.array(
        z.union([z.string(), z.object({ role: z.enum(["user", "system"]), content: z.string().min(1) })]),
      ),
      n: z.int().optional(),
    }),
    handler: ({ body, signal, requestId, services }) => {
      services.handled.push("chat");
      return services.chat({ body, signal, requestId });
    },
  }),
  route({
    ...rest,
    method: "POST",
    path: "/v1/messages",
    dialect: plainDialect("anthropic"),
    access: key("inference"),
    plane: "public",
    limits: { bodyBytes: 1000, timeoutMs: 10_000 },
    body: z.looseObject({}),
    handler: ({ caller, services }) => {
      services.handled.push("messages");
      return json({ id: caller.principal.id });
    },
  }),
  route({
    ...rest,
    method: "GET",
    path: "/v1/models",
    dialect: openai,
    access: key("models:read"),
    plane: "both",
    limits: { timeoutMs: 10_000 },
    query: z.object({ limit: z.coerce.number().int().max(10).optional() }),
    handler: ({ query, services }) => {
      services.handled.push("models");
      return json(query);
    },
  }),
  route({
    ...rest,
    method: "DELETE",
    path: "/v1/models",
    dialect: openai,
    access: key("ops"),
    plane: "ops",
    limits: { timeoutMs: 10_000 },
    handler: ({ services }) => {
      services.handled.push("delete");
      return { kind: "empty", status: 204 };
    },
  }),
  route({
    ...rest,
    method: "POST",
    path: "/ops/pause",
    dialect: openai,
    access: key("ops"),
    plane: "ops",
    limits: { timeoutMs: 10_000 },
    handler: ({ services }) => {
      services.handled.push("pause");
      return json({});
    },
  }),
  route({
    ...rest,
    method: "GET",
    path: "/health",
    dialect: openai,
    access: open("liveness probes have no key"),
    plane: "both",
    limits: { timeoutMs: 10_000 },
    handler: ({ services }) => {
      services.handled.push("health");
      return { kind: "empty" };
    },
  }),
];

export interface Rig {
  readonly http: Http;
  readonly services: Services;
  readonly records: CallRecord[];
  readonly logged: { level: string; message: string; fields: Readonly<Record<string, unknown>> }[];
  readonly port: number;
}

export interface RigOptions {
  readonly options?: Partial<HttpOptions>;
  readonly chat?: Services["chat"];
  readonly role?: Parameters<typeof operatorKey>[3];
  /** Another view of the routes, to look inside. */
  readonly routes?: readonly AnyRoute<Services>[];
  readonly tls?: TlsSource;
  /** Of what happens outside of any route. */
  readonly dialect?: Dialect;
  /** Around who is known by the key. */
  readonly gate?: (gate: Gate) => Gate;
  readonly relay?: Relay<Services>;
}

let everywhere: Promise<TlsSource> | undefined;
/** Ports behind which TLS is spoken, so that `dial` does. */
const encrypted = new Set<number>();

/** From now on every rig of this process speaks TLS, and `dial` with it. */
export function overTls(): void {
  everywhere = authority().then(async (ca) => tlsSource(await ca.issue()));
}

export function speaksTls(): boolean {
  return everywhere !== undefined;
}

export function materialOf({ cert, key }: Issued, more: Partial<TlsMaterial> = {}): TlsMaterial {
  return { key: new Secret(key), chain: cert, clientAuthorities: [], revocationLists: [], ...more };
}

/** Material that a test can change. */
export function tlsSource(
  issued: Issued,
  clients: TlsSource["clients"] = "none",
  more: Partial<TlsMaterial> = {},
): TlsSource & { change(material: TlsMaterial): void } {
  let present = materialOf(issued, more);
  const followers = new Set<() => void>();
  return {
    clients,
    material: () => present,
    onChange: (run) => {
      followers.add(run);
      return () => followers.delete(run);
    },
    change: (material) => {
      present = material;
      for (const run of followers) run();
    },
  };
}

/** A server on a free loopback port; closed when the test ends. */
export async function rig(
  t: TestContext,
  {
    options = {},
    chat,
    role = "admin",
    routes = ROUTES,
    tls,
    dialect = openai,
    gate = (inner) => inner,
    relay,
  }: RigOptions = {},
): Promise<Rig> {
  const source = tls ?? (await everywhere);
  const pepper = randomBytes(32);
  const identify = createIdentify(
    new KeySet(pepper, [{ ...operatorKey(pepper, new Secret(KEY), 1, role), id: "key_1" }]),
  );
  const services: Services = { handled: [], chat: chat ?? (({ body }) => json(body)) };
  const records: CallRecord[] = [];
  const logged: Rig["logged"] = [];
  const log: Log = (level, message, fields = {}) => void logged.push({ level, message, fields });
  const http = await createHttp({
    routes,
    services,
    gate: gate(plainGate(identify)),
    dialect,
    options,
    observer: (record) => void records.push(record),
    log,
    ...(relay === undefined ? {} : { relay }),
  });
  t.after(() => http.close(0));
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 }, source);
  if (!("port" in address)) throw new Error("not a TCP address");
  if (source !== undefined) encrypted.add(address.port);
  return { http, services, records, logged, port: address.port };
}

/** Waits for a condition, at most `rounds` turns of a few milliseconds. */
export async function until(condition: () => boolean, what: string, rounds = 2000): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`did not come: ${what}`);
}

const wires = new WeakMap<Socket, Socket>();

/** @param secure whether it speaks TLS; a rig's port is known */
export function dial(port: number, secure = encrypted.has(port)): Socket {
  const wire = connect({ host: "127.0.0.1", port });
  wire.on("error", () => {});
  if (!secure) return wire;
  const socket = connectTls({ socket: wire, rejectUnauthorized: false });
  socket.on("error", () => {});
  wires.set(socket, wire);
  return socket;
}

/** Ends the connection with a reset instead of a farewell. */
export function reset(socket: Socket): void {
  (wires.get(socket) ?? socket).resetAndDestroy();
  socket.destroy();
}

/** Until the socket is closed; a reset is one way to it. */
export function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => (socket.closed ? resolve() : socket.once("close", () => resolve())));
}

/** Sends bytes, gives everything that came until the server closed. */
export async function exchange(port: number, ...pieces: (string | Buffer)[]): Promise<string> {
  const socket = dial(port);
  let answer = "";
  socket.setEncoding("latin1").on("data", (text: string) => {
    answer += text;
  });
  for (const piece of pieces) socket.write(piece);
  await closed(socket);
  return answer;
}

/** `METHOD target` with headers and an optional body, and `Connection: close`. */
export function message(start: string, headers: readonly string[] = [], body = ""): string {
  const length = body === "" ? [] : ["Content-Type: application/json", `Content-Length: ${Buffer.byteLength(body)}`];
  return [`${start} HTTP/1.1`, "Host: x", "Connection: close", ...length, ...headers, "", body].join("\r\n");
}

export function statusOf(answer: string): number {
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1] ?? 0);
}

export function statusesOf(answer: string): number[] {
  return [...answer.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
}
