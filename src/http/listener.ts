/**
 * A door: one HTTP/1.1 server on a TCP address or a Unix socket, strict and bounded, which hands requests on one at
 * a time per connection.
 *
 * Invariants: Node's parser stays strict; every wait has an end; a second request on a connection starts when the
 * first is answered, so a connection never holds more than one call; the only answers given here are those of
 * `_raw.ts`. Callers: http/server.ts.
 */
import { lstatSync, rmSync } from "node:fs";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { awaitingContinue } from "./_body.ts";
import { answerRaw, rawStatusOf, writeRaw } from "./_raw.ts";
import type { Counters } from "./counters.ts";
import type { HttpOptions } from "./options.ts";

/** Not imported: that reads all that the module exports, and so loads Node's own fetch client with it (20 ms). */
const { createServer } = process.getBuiltinModule("node:http");

/** `port` 0: any free one. A Unix socket is made with `mode`, which is 0600 unless said. */
export type Address =
  | { readonly host: string; readonly port: number }
  | { readonly path: string; readonly mode?: 0o600 | 0o660 };

export type Handle = (req: IncomingMessage, res: ServerResponse) => void;

export interface Listener {
  /** Where it listens now. */
  readonly address: Address;
  /** Drops idle connections; busy ones close with their answer. */
  closeIdle(): void;
  /** Takes no new connection, and cuts those there are. */
  close(): Promise<void>;
}

/** What we know of a connection. */
interface Line {
  readonly waiting: (readonly [IncomingMessage, ServerResponse])[];
  current: ServerResponse | undefined;
}

/** @throws Error the address cannot be had (in use, not ours, no such host); `code` as Node gives it */
export async function openListener(
  address: Address,
  handle: Handle,
  options: HttpOptions,
  counters: Counters,
): Promise<Listener> {
  if ("path" in address) await clearStaleSocket(address.path);
  const server = createStrictServer(handle, options, counters);
  await bind(server, address);
  return {
    address: "path" in address ? address : { host: address.host, port: (server.address() as AddressInfo).port },
    closeIdle: () => server.closeIdleConnections(),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function createStrictServer(handle: Handle, options: HttpOptions, counters: Counters): Server {
  const server = createServer({
    insecureHTTPParser: false,
    maxHeaderSize: options.maxHeaderBytes,
    headersTimeout: options.headersTimeoutMs,
    // The corridor has the real limit for a body; this one stands behind it, for what never reaches the corridor.
    requestTimeout: options.headersTimeoutMs + 2 * options.bodyTimeoutMs,
    keepAliveTimeout: options.keepAliveTimeoutMs,
    connectionsCheckingInterval: Math.max(100, Math.min(1000, Math.floor(options.headersTimeoutMs / 4))),
    // Checked below, where the answer has our shape.
    requireHostHeader: false,
  });
  // Node drops what is above its own limit silently, an Authorization header perhaps; we count and refuse.
  server.maxHeadersCount = 0;
  server.maxRequestsPerSocket = options.maxRequestsPerSocket;
  server.maxConnections = options.maxConnections;
  const lines = new WeakMap<Duplex, Line>();
  const receive: Handle = (req, res) => enqueue(lines, req, res, handle, options);
  const receiveExpecting: Handle = (req, res) => {
    awaitingContinue.add(req);
    receive(req, res);
  };
  server.on("request", receive);
  server.on("checkContinue", receiveExpecting);
  server.on("checkExpectation", receive);
  server.on("connect", (_req, socket) => writeRaw(socket, 400));
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => answerBroken(lines, error, socket));
  server.on("connection", (socket) => track(lines, socket, counters));
  return server;
}

function track(lines: WeakMap<Duplex, Line>, socket: Socket, counters: Counters): void {
  lines.set(socket, { waiting: [], current: undefined });
  counters.sockets++;
  socket.on("close", () => {
    counters.sockets--;
  });
}

/** One call at a time: a later request waits until the earlier one's answer is out. */
function enqueue(
  lines: WeakMap<Duplex, Line>,
  req: IncomingMessage,
  res: ServerResponse,
  handle: Handle,
  options: HttpOptions,
): void {
  const line = lines.get(req.socket);
  if (line === undefined || line.waiting.length >= options.maxPipelined) {
    req.socket.destroy();
    return;
  }
  line.waiting.push([req, res]);
  if (line.current === undefined) startNext(line, handle, options);
}

function startNext(line: Line, handle: Handle, options: HttpOptions): void {
  const next = line.waiting.shift();
  line.current = next?.[1];
  if (next === undefined) return;
  const [req, res] = next;
  res.once("close", () => {
    if (req.socket.destroyed) line.waiting.length = 0;
    startNext(line, handle, options);
  });
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

function answerBroken(lines: WeakMap<Duplex, Line>, error: NodeJS.ErrnoException, socket: Duplex): void {
  const line = lines.get(socket);
  // An answer that is under way would be corrupted by ours; one that only waits for its body is replaced.
  if (!socket.writable || error.code === "ECONNRESET" || line?.current?.headersSent === true) socket.destroy();
  else writeRaw(socket, rawStatusOf(error.code));
}

async function bind(server: Server, address: Address): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => {
      server.off("error", reject);
      resolve();
    });
    if ("path" in address) listenPrivately(server, address.path, address.mode ?? 0o600);
    else server.listen({ host: address.host, port: address.port });
  });
}

/** The socket has its mode from its first moment on: a chmod afterwards would leave a gap. */
function listenPrivately(server: Server, path: string, mode: number): void {
  const before = process.umask(0o777 & ~mode);
  try {
    server.listen({ path });
  } finally {
    process.umask(before);
  }
}

/** A socket left over by a dead server is removed; anything else in its place is not ours to remove. */
async function clearStaleSocket(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) throw new Error(`${path} exists and is not a socket`);
  if (await answers(path)) throw new Error(`another server listens on ${path}`);
  rmSync(path, { force: true });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") resolve(false);
      else reject(error);
    });
  });
}
