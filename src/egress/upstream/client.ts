/**
 * HTTP/1.1 to one upstream server, over undici's dispatch: nothing in between, as this is the gateway's hot path.
 *
 * Invariants: no redirect is followed, nothing is tried twice, no proxy variable counts; one request at a time on a
 * connection, each with its exact length and never chunked; Host and the key are ours; what was not answered in whole
 * takes its connection along; what has begun under credentials ends under them. Wall: T120. Callers: serving/upstreams.
 */
import { Pool } from "undici";
import type { UpstreamRequest } from "#core/relay.ts";
import { type UpstreamCredentials, upstreamConnector } from "./dial.ts";
import { Exchange, type SendOptions, type UpstreamReply } from "./exchange.ts";
import { checkedRequest } from "./heads.ts";

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
const MAX_HEAD_BYTES = 16 * 1024;

const NOBODY: UpstreamCredentials = {};

export class UpstreamClient {
  readonly #options: UpstreamClientOptions;
  #shown: UpstreamCredentials;
  #authorization: readonly string[];
  #pool: Pool;
  /** Of earlier credentials: they end what they have. */
  readonly #retired = new Map<Pool, Promise<void>>();
  #closed = false;

  constructor(options: UpstreamClientOptions) {
    this.#options = options;
    this.#shown = options.credentials?.() ?? NOBODY;
    this.#authorization = authorizationOf(this.#shown);
    this.#pool = openPool(options, this.#shown);
  }

  /**
   * Resolves with the head. Whoever has it pipes the source or cancels it.
   * @throws UpstreamFault; the signal's reason, where that is a Fault
   */
  send(request: UpstreamRequest, options: SendOptions): Promise<UpstreamReply> {
    checkedRequest(request);
    const exchange = new Exchange(options);
    if (exchange.over) return exchange.reply;
    this.#follow();
    const { body, length } = framed(request.body);
    const headers = ["accept-encoding", "identity", ...request.headers, ...this.#authorization];
    if (length !== undefined) headers.push("content-length", String(length));
    const { method, target: path } = request;
    try {
      this.#pool.dispatch({ method, path, headers, body, bodyTimeout: options.timeouts.idleMs }, exchange);
    } catch (error) {
      exchange.refused(error);
    }
    return exchange.reply;
  }

  #follow(): void {
    const shown = this.#options.credentials?.() ?? NOBODY;
    if (shown === this.#shown || this.#closed) return;
    const before = this.#shown;
    this.#shown = shown;
    this.#authorization = authorizationOf(shown);
    if (shown.tls === before.tls) return;
    const pool = this.#pool;
    this.#pool = openPool(this.#options, shown);
    this.#retired.set(
      pool,
      pool.close().finally(() => this.#retired.delete(pool)),
    );
  }

  /** When all that is under way has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#pool.close(), ...this.#retired.values()]);
  }

  /** At once: what is under way fails. */
  async destroy(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#pool, ...this.#retired.keys()].map((pool) => pool.destroy()));
  }
}

function authorizationOf({ key }: UpstreamCredentials): readonly string[] {
  return key === undefined ? [] : ["authorization", `Bearer ${key.expose()}`];
}

function openPool(options: UpstreamClientOptions, { tls }: UpstreamCredentials): Pool {
  const { origin, socketPath, address, plainAnywhere = false, connections, connectMs } = options;
  return new Pool(origin, {
    connections,
    pipelining: 1,
    allowH2: false,
    maxHeaderSize: MAX_HEAD_BYTES,
    // Ours stand in the exchange: they count waiting and connecting, too.
    headersTimeout: 0,
    connect: upstreamConnector({
      secure: origin.startsWith("https:"),
      plainAnywhere,
      connectMs,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(address === undefined ? {} : { address }),
      ...(tls === undefined ? {} : { tls }),
    }),
  });
}

interface Framed {
  readonly body: Buffer | null;
  /** Where undici does not see it by itself. */
  readonly length?: number;
}

function framed(pieces: readonly Uint8Array[]): Framed {
  const [first] = pieces;
  if (first === undefined) return { body: null };
  if (pieces.length === 1) return { body: Buffer.from(first.buffer, first.byteOffset, first.byteLength) };
  const length = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  if (length <= JOINED_BYTES) return { body: Buffer.concat(pieces, length) };
  // undici takes what can be iterated; its types do not say so.
  return { body: pieces as unknown as Buffer, length };
}
