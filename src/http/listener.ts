/**
 * A door: one HTTP/1.1 server on a TCP address or a Unix socket, with TLS or without, strict and bounded, which hands
 * requests on one at a time per connection.
 *
 * Invariants: Node's parser stays strict; every wait has an end; a second request on a connection starts when the
 * first is answered, so a connection never holds more than one call; a connection ends with its age, with its
 * client's certificate, and when the authority behind that is trusted no more; the only answers given here are those
 * of `_raw.ts`. Callers: http/server.ts.
 */
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from "node:http";
import type { Server as TlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { Answer } from "./_answer.ts";
import { awaitingContinue } from "./_body.ts";
import { Connections, type Line, type Lines, openLine } from "./_connections.ts";
import { PlainConnections, type PlainHandling } from "./_plain-connection.ts";
import { answerRaw, rawStatusOf, writeRaw } from "./_raw.ts";
import { Request } from "./_request.ts";
import { clearStaleSocket, listenPrivately } from "./_unix-socket.ts";
import { asksForChannel, responseTo } from "./_upgrade.ts";
import type { Counters } from "./counters.ts";
import type { HttpOptions } from "./options.ts";
import type { TlsSource } from "./tls.ts";

/** Not imported: that reads all that the module exports, and so loads Node's own fetch client with it (20 ms). */
const { createServer } = process.getBuiltinModule("node:http");

/** `port` 0: any free one; `reusePort`: beside other processes of this user. A Unix socket is made with `mode`, which is 0600 unless said. */
export type Address =
  | { readonly host: string; readonly port: number; readonly reusePort?: boolean }
  | { readonly path: string; readonly mode?: 0o600 | 0o660 };

export type Handle = (req: IncomingMessage, res: ServerResponse) => void;

/** What a listener does with its requests. */
export interface Handling {
  readonly handle: Handle;
  /** Whether a target is a channel's: elsewhere the wish for an upgrade means nothing. */
  readonly channels: (target: string) => boolean;
  /** Requests that need no more of HTTP than any has; absent: node:http reads all of them. */
  readonly plain?: PlainHandling<unknown>;
}

export interface Listener {
  /** Where it listens now. */
  readonly address: Address;
  /** Drops idle connections; busy ones close with their answer. */
  closeIdle(): void;
  /** Takes no new connection, and cuts those there are. */
  close(): Promise<void>;
}

/** @throws Error the address cannot be had (in use, not ours, no such host); `code` as Node gives it */
export async function openListener(
  address: Address,
  handling: Handling,
  options: HttpOptions,
  counters: Counters,
  tls?: TlsSource,
): Promise<Listener> {
  if ("path" in address) await clearStaleSocket(address.path);
  const connections = new Connections(options, counters);
  const lines: Lines = new Map();
  const begin = (socket: Socket): void => openLine(lines, socket, options);
  const strict = serverOptions(options, handling);
  const { server, stop, first } =
    tls === undefined
      ? { server: createServer(strict), stop: () => {}, first: begin }
      : (await import("./_tls-server.ts")).createTls(tls, strict, options, { lines, connections, begin });
  // Over TLS a connection is read by what decrypts it; and node:http counts requests on a connection, where they are bounded.
  const plain =
    tls === undefined && handling.plain !== undefined && options.maxRequestsPerSocket === 0
      ? new PlainConnections(options, handling.plain, checkEvery(options))
      : undefined;
  limit(server, connections, options, (socket, accept) => {
    first(socket);
    const line = lines.get(socket);
    if (plain === undefined || line === undefined || !plain.take(socket, line, accept)) accept();
  });
  serveRequests(server, lines, handling.handle, options);
  await bind(server, address);
  return {
    address: "path" in address ? address : { host: address.host, port: (server.address() as AddressInfo).port },
    closeIdle: () => {
      server.closeIdleConnections();
      plain?.closeIdle();
    },
    close: () =>
      new Promise((resolve) => {
        stop();
        plain?.close();
        server.close(() => resolve());
        server.closeAllConnections();
        // Those in the middle of a handshake, too.
        connections.destroyAll();
      }),
  };
}

function serverOptions(options: HttpOptions, { channels }: Handling): ServerOptions {
  return {
    IncomingMessage: Request,
    ServerResponse: Answer,
    insecureHTTPParser: false,
    maxHeaderSize: options.maxHeaderBytes,
    headersTimeout: options.headersTimeoutMs,
    // The corridor has the real limit for a body; this one stands behind it, for what never reaches the corridor.
    requestTimeout: options.headersTimeoutMs + 2 * options.bodyTimeoutMs,
    keepAliveTimeout: options.keepAliveTimeoutMs,
    connectionsCheckingInterval: checkEvery(options),
    // Checked below, where the answer has our shape.
    requireHostHeader: false,
    shouldUpgradeCallback: (req) => CHOOSES_UPGRADES && asksForChannel(req) && channels(req.url ?? ""),
  };
}

/** How often it is looked which connections are late. Milliseconds. */
function checkEvery({ headersTimeoutMs }: HttpOptions): number {
  return Math.max(100, Math.min(1000, Math.floor(headersTimeoutMs / 4)));
}

/** Since then Node asks (`shouldUpgradeCallback`); before, a listener takes the upgrades of all paths. */
const CHOOSES_UPGRADES = atLeast(24, 9);

function atLeast(major: number, minor: number): boolean {
  const [ours = 0, second = 0] = process.versions.node.split(".").map(Number);
  return ours > major || (ours === major && second >= minor);
}

/**
 * Who is over a bound is turned away before Node's own listener makes anything for them.
 * @param begin with a connection that was let in, and how node:http gets it
 */
function limit(
  server: Server | TlsServer,
  connections: Connections,
  options: HttpOptions,
  begin: (socket: Socket, accept: () => void) => void,
): void {
  // Node drops what is above its own limit silently, an Authorization header perhaps; we count and refuse.
  server.maxHeadersCount = 0;
  server.maxRequestsPerSocket = options.maxRequestsPerSocket;
  server.maxConnections = options.maxConnections;
  const accept = server.listeners("connection") as ((socket: Socket) => void)[];
  server.removeAllListeners("connection");
  server.on("connection", (socket: Socket) => {
    if (!connections.admit(socket)) return void socket.destroy();
    begin(socket, () => {
      for (const listener of accept) listener.call(server, socket);
    });
  });
}

function serveRequests(server: Server | TlsServer, lines: Lines, handle: Handle, options: HttpOptions): void {
  const receive: Handle = (req, res) => enqueue(lines, req, res, handle, options);
  const receiveExpecting: Handle = (req, res) => {
    awaitingContinue.add(req);
    receive(req, res);
  };
  server.on("request", receive);
  server.on("checkContinue", receiveExpecting);
  server.on("checkExpectation", receive);
  if (CHOOSES_UPGRADES)
    server.on("upgrade", (req: IncomingMessage, socket: Duplex, head: Buffer) => {
      // Behind a request that is not answered: nobody who means well, and two would write to the connection.
      if (lines.get(req.socket)?.current !== undefined) socket.destroy();
      else receive(req, responseTo(req, socket, head));
    });
  server.on("connect", (_req: IncomingMessage, socket: Duplex) => writeRaw(socket, 400));
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => answerBroken(lines, error, socket));
}

/** One call at a time: a later request waits until the earlier one's answer is out. */
function enqueue(lines: Lines, req: IncomingMessage, res: ServerResponse, handle: Handle, options: HttpOptions): void {
  const { socket } = req;
  const line = lines.get(socket);
  if (line === undefined || line.waiting.length >= options.maxPipelined) {
    socket.destroy();
    return;
  }
  line.next ??= () => startNext(line, socket, handle, options);
  if (line.current === undefined) start(line, req, res, handle, options);
  else line.waiting.push([req, res]);
}

function startNext(line: Line, socket: Socket, handle: Handle, options: HttpOptions): void {
  line.current = undefined;
  if (socket.destroyed) line.waiting.length = 0;
  const next = line.waiting.shift();
  if (next !== undefined) start(line, next[0], next[1], handle, options);
}

function start(line: Line, req: IncomingMessage, res: ServerResponse, handle: Handle, options: HttpOptions): void {
  line.current = res;
  if (line.retired) {
    line.waiting.length = 0;
    req.socket.destroy();
    return;
  }
  // The answer says so and closes, so that a client of good will connects anew.
  // A certificate is good in its last millisecond, here as where it is judged (policy/certificates.ts).
  if (performance.now() >= line.agesAt || (line.expiresAt !== Number.POSITIVE_INFINITY && Date.now() > line.expiresAt))
    res.shouldKeepAlive = false;
  if (line.next !== undefined) res.on("close", line.next);
  const problem = headProblem(req, options);
  if (problem === undefined) handle(req, res);
  else answerRaw(res, problem);
}

function headProblem(req: IncomingMessage, options: HttpOptions): 400 | 431 | undefined {
  const { rawHeaders } = req;
  if (rawHeaders.length / 2 > options.maxHeaders) return 431;
  let hosts = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] as string;
    if (name.length === 4 && name.toLowerCase() === "host") hosts++;
  }
  // RFC 9112, 3.2: exactly one from HTTP/1.1 on; never two.
  return hosts > 1 || (hosts === 0 && req.httpVersion === "1.1") ? 400 : undefined;
}

function answerBroken(lines: Lines, error: NodeJS.ErrnoException, socket: Duplex): void {
  const line = lines.get(socket);
  // No line: a handshake that failed, which nobody can be told about in HTTP.
  const speechless = line === undefined || error.code === "ECONNRESET" || error.code?.startsWith("ERR_SSL") === true;
  // An answer that is under way would be corrupted by ours; one that only waits for its body is replaced.
  if (speechless || !socket.writable || line.current?.headersSent === true) socket.destroy();
  else writeRaw(socket, rawStatusOf(error.code));
}

async function bind(server: Server | TlsServer, address: Address): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => {
      server.off("error", reject);
      resolve();
    });
    if ("path" in address) listenPrivately(server, address.path, address.mode ?? 0o600);
    else server.listen({ host: address.host, port: address.port, reusePort: address.reusePort ?? false });
  });
}
