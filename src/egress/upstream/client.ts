/**
 * HTTP/1.1 to one upstream server, on sockets: nothing in between, as this is the gateway's hot path.
 *
 * Invariants: no redirect is followed, nothing is tried twice, no proxy variable counts; one request at a time on a
 * connection, each with its exact length and never chunked; Host and the key are ours; what was not answered in whole
 * takes its connection along; what has begun under credentials ends under them. Wall: T120. Callers: serving/upstreams.
 */
import type { Channel } from "#base/channel.ts";
import type { UpstreamRequest } from "#core/relay.ts";
import { Connections } from "./_connections.ts";
import type { UpstreamChannelOptions } from "./channel.ts";
import { type Dial, type UpstreamCredentials, upstreamDial } from "./dial.ts";
import { type Asker, Exchange, type Outgoing, type SendOptions, type UpstreamReply } from "./exchange.ts";
import { checkedHeaders, checkedTarget } from "./heads.ts";

export interface UpstreamClientOptions {
  /** `http://host:port` or `https://host:port`; for a Unix socket what goes into Host. */
  readonly origin: string;
  readonly socketPath?: string;
  /** An address of the origin's host, where somebody has looked it up already. */
  readonly address?: string;
  /** Asked before each request. Where TLS is another, requests from then on go on connections of their own. */
  readonly credentials?: () => UpstreamCredentials;
  /** Plain HTTP to public addresses, too. */
  readonly plainAnywhere?: boolean;
  /** Open at once, and so requests at once. */
  readonly connections: number;
  readonly connectMs: number;
}

/** Below it copying a body together costs less than writing its pieces one by one. */
const JOINED_BYTES = 64 * 1024;
/** Methods whose requests tell a length even where there is no body. */
const WITH_BODY: ReadonlySet<string> = new Set(["POST"]);
/** Beginnings of heads that are kept made: a server is asked for few places. */
const MOST_STARTS = 64;

const NOBODY: UpstreamCredentials = {};

export class UpstreamClient {
  readonly #options: UpstreamClientOptions;
  /** Of each request. */
  readonly #host: string;
  /** Line of its head. */
  #authorization: string;
  #shown: UpstreamCredentials;
  /** By method and target, which have been judged: what a head begins with. */
  readonly #starts = new Map<string, string>();
  #connections: Connections;
  /** Of earlier credentials: they end what they have. */
  readonly #retired = new Map<Connections, Promise<void>>();
  #closed = false;

  constructor(options: UpstreamClientOptions) {
    this.#options = options;
    this.#host = new URL(options.origin).host;
    this.#shown = options.credentials?.() ?? NOBODY;
    this.#authorization = authorizationOf(this.#shown);
    this.#connections = openConnections(options, this.#shown);
  }

  /**
   * Resolves with the head. Whoever has it pipes the source or cancels it.
   * @throws UpstreamFault; the signal's reason, where that is a Fault
   */
  send(request: UpstreamRequest, options: SendOptions): Promise<UpstreamReply> {
    const { promise, resolve, reject } = Promise.withResolvers<UpstreamReply>();
    this.ask(request, {
      ...options,
      headed: ({ status, headers, retryAfterMs }, source) => resolve({ status, headers, retryAfterMs, source }),
      failed: reject,
    });
    return promise;
  }

  /** As `send`, and tells who asks without a promise: at once, where it can be told at once. */
  ask(request: UpstreamRequest, asker: Asker): void {
    const start = this.#start(request);
    checkedHeaders(request.headers);
    this.#follow();
    const exchange = new Exchange(new Written(request, start, this.#authorization), asker);
    if (!exchange.over) this.#connections.carry(exchange);
  }

  #start({ method, target }: UpstreamRequest): string {
    const line = `${method} ${target}`;
    const known = this.#starts.get(line);
    if (known !== undefined) return known;
    checkedTarget(method, target);
    const start = `${line} HTTP/1.1\r\nhost: ${this.#host}\r\nconnection: keep-alive\r\naccept-encoding: identity\r\n`;
    if (this.#starts.size >= MOST_STARTS) this.#starts.clear();
    this.#starts.set(line, start);
    return start;
  }

  /** A WebSocket. What it costs and when it ends is the caller's: `close` does not wait for it. @throws as openUpstreamChannel */
  async channel(options: UpstreamChannelOptions): Promise<Channel> {
    const { openUpstreamChannel } = await import("./channel.ts");
    this.#follow();
    const { key } = this.#shown;
    const headers =
      key === undefined ? options.headers : [...options.headers, "authorization", `Bearer ${key.expose()}`];
    return openUpstreamChannel(dialOf(this.#options, this.#shown), this.#host, { ...options, headers });
  }

  #follow(): void {
    const shown = this.#options.credentials?.() ?? NOBODY;
    if (shown === this.#shown || this.#closed) return;
    const before = this.#shown;
    this.#shown = shown;
    this.#authorization = authorizationOf(shown);
    if (shown.tls === before.tls) return;
    const connections = this.#connections;
    this.#connections = openConnections(this.#options, shown);
    this.#retired.set(
      connections,
      connections.close().finally(() => this.#retired.delete(connections)),
    );
  }

  /** When all that is under way has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#connections.close(), ...this.#retired.values()]);
  }

  /** At once: what is under way fails. */
  async destroy(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#connections, ...this.#retired.keys()].map((connections) => connections.destroy()));
  }
}

function openConnections(options: UpstreamClientOptions, credentials: UpstreamCredentials): Connections {
  return new Connections(dialOf(options, credentials), options.connections);
}

function dialOf(options: UpstreamClientOptions, { tls }: UpstreamCredentials): Dial {
  const { origin, socketPath, address, plainAnywhere = false, connectMs } = options;
  return upstreamDial({
    origin,
    secure: origin.startsWith("https:"),
    plainAnywhere,
    connectMs,
    ...(socketPath === undefined ? {} : { socketPath }),
    ...(address === undefined ? {} : { address }),
    ...(tls === undefined ? {} : { tls }),
  });
}

function authorizationOf({ key }: UpstreamCredentials): string {
  return key === undefined ? "" : `authorization: Bearer ${key.expose()}\r\n`;
}

/** A request's bytes. */
class Written implements Outgoing {
  readonly #request: UpstreamRequest;
  readonly #start: string;
  readonly #authorization: string;

  /** @param start and @param authorization: lines of its head */
  constructor(request: UpstreamRequest, start: string, authorization: string) {
    this.#request = request;
    this.#start = start;
    this.#authorization = authorization;
  }

  bytes(): Uint8Array | readonly Uint8Array[] {
    const { method, headers, body } = this.#request;
    let length = 0;
    for (const piece of body) length += piece.byteLength;
    let lines = "";
    for (let at = 0; at < headers.length; at += 2) lines += `${headers[at]}: ${headers[at + 1]}\r\n`;
    lines += this.#authorization;
    lines += length > 0 || WITH_BODY.has(method) ? `content-length: ${length}\r\n\r\n` : "\r\n";
    if (length > JOINED_BYTES)
      return [Buffer.from(this.#start + lines, "latin1"), ...body.filter(({ byteLength }) => byteLength > 0)];
    const joined = Buffer.allocUnsafe(this.#start.length + lines.length + length);
    let at = joined.write(this.#start, "latin1");
    at += joined.write(lines, at, "latin1");
    for (const piece of body) {
      joined.set(piece, at);
      at += piece.byteLength;
    }
    return joined;
  }
}
