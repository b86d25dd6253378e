/**
 * HTTP/1.1 to one upstream server, on sockets: nothing in between, as this is the gateway's hot path.
 *
 * Invariants: no redirect is followed, nothing is tried twice, no proxy variable counts; one request at a time on a
 * connection, each with its exact length and never chunked; Host and the key are ours; what was not answered in whole
 * takes its connection along. Who waits for a connection is served in turn. Wall: T120. Callers: serving/upstreams.
 */
import type { Secret } from "#base/secret.ts";
import type { UpstreamRequest } from "#core/relay.ts";
import { Connection, type ConnectionOwner } from "./_connection.ts";
import { type Dial, type UpstreamTls, upstreamDial } from "./dial.ts";
import { Exchange, type SendOptions, type UpstreamReply } from "./exchange.ts";
import { checkedRequest } from "./heads.ts";

export interface UpstreamClientOptions {
  /** `http://host:port` or `https://host:port`; for a Unix socket what goes into Host. */
  readonly origin: string;
  readonly socketPath?: string;
  /** An address of the origin's host, where somebody has looked it up already. */
  readonly address?: string;
  readonly tls?: UpstreamTls;
  /** Sent as a bearer token. */
  readonly key?: Secret;
  /** Plain HTTP to public addresses, too. */
  readonly plainAnywhere?: boolean;
  /** Open at once, and so requests at once. */
  readonly connections: number;
  readonly connectMs: number;
}

/** Below it copying a body together costs less than writing its pieces one by one. */
const JOINED_BYTES = 64 * 1024;
/** How often connections are looked at that nobody uses. */
const SWEEP_MS = 1000;
/** Methods whose requests tell a length even where there is no body. */
const WITH_BODY: ReadonlySet<string> = new Set(["POST"]);

export class UpstreamClient {
  readonly #dial: Dial;
  readonly #most: number;
  /** What each request says of itself. */
  readonly #host: string;
  readonly #authorization: string;
  /** In turn. */
  readonly #waiting = new Map<Exchange, UpstreamRequest>();
  readonly #open = new Set<Connection>();
  /** The one that was used last is the last. */
  #free: Connection[] = [];
  #dialling = 0;
  #sweep: NodeJS.Timeout | undefined;
  #closed: PromiseWithResolvers<void> | undefined;

  constructor(options: UpstreamClientOptions) {
    const { origin, socketPath, address, tls, key, plainAnywhere = false, connections, connectMs } = options;
    this.#authorization = key === undefined ? "" : `authorization: Bearer ${key.expose()}\r\n`;
    this.#host = new URL(origin).host;
    this.#most = connections;
    this.#dial = upstreamDial({
      origin,
      secure: origin.startsWith("https:"),
      plainAnywhere,
      connectMs,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(address === undefined ? {} : { address }),
      ...(tls === undefined ? {} : { tls }),
    });
  }

  /**
   * Resolves with the head. Whoever has it pipes the source or cancels it.
   * @throws UpstreamFault; the signal's reason, where that is a Fault
   */
  send(request: UpstreamRequest, options: SendOptions): Promise<UpstreamReply> {
    checkedRequest(request);
    const exchange = new Exchange(options);
    if (exchange.over) return exchange.reply;
    if (this.#closed !== undefined) exchange.failed(new Error("the client is closed"));
    else if (!this.#carried(exchange, request)) {
      this.#waiting.set(exchange, request);
      exchange.left = () => this.#waiting.delete(exchange);
      this.#connect();
    }
    return exchange.reply;
  }

  /** When all that is under way has ended. */
  async close(): Promise<void> {
    this.#closed ??= Promise.withResolvers();
    this.#settle();
    await this.#closed.promise;
  }

  /** At once: what is under way fails. */
  async destroy(): Promise<void> {
    this.#closed ??= Promise.withResolvers();
    for (const exchange of this.#waiting.keys()) exchange.failed(new Error("the client is closed"));
    for (const connection of this.#open) connection.destroy(new Error("the client is closed"));
    this.#settle();
    await this.#closed.promise;
  }

  readonly #owner: ConnectionOwner = {
    free: (connection) => {
      this.#free.push(connection);
      this.#serve();
    },
    gone: (connection) => {
      this.#open.delete(connection);
      const at = this.#free.indexOf(connection);
      if (at >= 0) this.#free.splice(at, 1);
      this.#connect();
      this.#settle();
    },
  };

  /** Whoever has waited longest goes first. */
  #serve(): void {
    for (const [exchange, request] of this.#waiting) if (!this.#carried(exchange, request)) break;
    if (this.#free.length > 0) this.#sweep ??= setTimeout(this.#tidy, SWEEP_MS).unref();
    this.#settle();
  }

  /** @returns false: there is no connection for it now */
  #carried(exchange: Exchange, request: UpstreamRequest): boolean {
    for (let free = this.#free.pop(); free !== undefined; free = this.#free.pop()) {
      if (free.usable) {
        this.#waiting.delete(exchange);
        exchange.left = undefined;
        free.carry(exchange, this.#written(request));
        return true;
      }
      free.destroy();
    }
    return false;
  }

  /** One for each that waits, up to the limit. */
  #connect(): void {
    while (this.#dialling < this.#waiting.size && this.#dialling + this.#open.size < this.#most) {
      this.#dialling++;
      const connection = new Connection(this.#owner);
      this.#dial(connection.onread, (error, socket) => {
        this.#dialling--;
        if (socket !== undefined && this.#abandoned) socket.destroy();
        else if (socket !== undefined) {
          this.#open.add(connection);
          connection.open(socket);
          this.#owner.free(connection);
        } else this.#undialled(error);
        this.#settle();
      });
    }
  }

  /** Each connection was made for one that waits. */
  #undialled(error: Error | undefined): void {
    const [first] = this.#waiting.keys();
    first?.failed(error);
    this.#connect();
  }

  /** Nobody will use a connection any more. */
  get #abandoned(): boolean {
    return this.#closed !== undefined && this.#waiting.size === 0;
  }

  readonly #tidy = (): void => {
    this.#sweep = undefined;
    const unused = this.#free;
    this.#free = unused.filter((connection) => connection.usable);
    for (const connection of unused) if (!connection.usable) connection.destroy();
    if (this.#free.length > 0) this.#sweep = setTimeout(this.#tidy, SWEEP_MS).unref();
  };

  /** Behind `close`, when the last is over. */
  #settle(): void {
    if (!this.#abandoned) return;
    for (const connection of this.#free.splice(0)) connection.destroy();
    if (this.#open.size > 0) return;
    clearTimeout(this.#sweep);
    this.#closed?.resolve();
  }

  #written({ method, target, headers, body }: UpstreamRequest): readonly Uint8Array[] {
    const length = body.reduce((sum, piece) => sum + piece.byteLength, 0);
    let head = `${method} ${target} HTTP/1.1\r\nhost: ${this.#host}\r\nconnection: keep-alive\r\naccept-encoding: identity\r\n`;
    for (let at = 0; at < headers.length; at += 2) head += `${headers[at]}: ${headers[at + 1]}\r\n`;
    head += this.#authorization;
    head += length > 0 || WITH_BODY.has(method) ? `content-length: ${length}\r\n\r\n` : "\r\n";
    if (length > JOINED_BYTES) return [Buffer.from(head, "latin1"), ...body.filter(({ byteLength }) => byteLength > 0)];
    const joined = Buffer.allocUnsafe(head.length + length);
    let at = joined.write(head, "latin1");
    for (const piece of body) {
      joined.set(piece, at);
      at += piece.byteLength;
    }
    return [joined];
  }
}
