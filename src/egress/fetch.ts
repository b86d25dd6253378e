/**
 * The way out: one HTTP request, its redirects followed here, every hop judged before a socket is opened.
 *
 * Invariants: no hop leaves the policy; the bearer token goes to its own origin and is dropped for good once a
 * redirect leads elsewhere; each request is one record; proxy variables of the environment have no say (the agent is ours, not the
 * process-wide one); a body that dries up or drips ends with a timeout. Content encodings are not asked for, so
 * that bytes on the wire are bytes of the file.
 * Callers: egress only (hub.ts). Hosts here are named by the operator; where their names lead is judged all the same.
 */
import { Agent, errors } from "undici";
import { type ConnectOptions, judgedConnector } from "./_judged-connect.ts";
import type { AddressClass } from "./addresses.ts";
import { decided, type EgressObserver, type FetchTrace } from "./decision.ts";
import { type ExchangeBody, type ExchangeResponse, exchange } from "./exchange.ts";
import { admittedUrl, EgressError, type EgressPolicy } from "./policy.ts";

/** Milliseconds, except `minBytesPerSecond`. */
export interface EgressTimeouts {
  readonly connectMs: number;
  readonly headersMs: number;
  /** Longest wait for bytes of the body; a body slower than `minBytesPerSecond` uses it up bit by bit. */
  readonly bodyIdleMs: number;
  readonly minBytesPerSecond: number;
}

export const DEFAULT_TIMEOUTS: EgressTimeouts = {
  connectMs: 10_000,
  headersMs: 30_000,
  bodyIdleMs: 30_000,
  minBytesPerSecond: 1024,
};

export interface OutboundRequest {
  readonly method?: "GET" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal?: AbortSignal;
}

export interface OutboundResponse {
  readonly status: number;
  /** Lower-case name → first value. */
  readonly headers: ReadonlyMap<string, string>;
  /** To be read to its end or left by `close`. @throws EgressError network | timeout | aborted while read */
  readonly body: AsyncIterable<Uint8Array>;
  /** Gives up the rest of the body; harmless after its end. */
  close(): void;
}

const PUBLIC: readonly AddressClass[] = ["public"];
const NEAR: readonly AddressClass[] = ["public", "private", "own", "loopback"];
const MAX_REDIRECTS = 5;
const NOBODY: EgressObserver = { begin: () => () => {}, record: () => {} };
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

export class Egress {
  private readonly policy: EgressPolicy;
  private readonly timeouts: EgressTimeouts;
  private readonly agent: Agent;
  private readonly observer: EgressObserver;

  /** @param lookup of names, in place of the system's */
  constructor(
    policy: EgressPolicy,
    timeouts: Partial<EgressTimeouts> = {},
    observer: EgressObserver = NOBODY,
    lookup?: ConnectOptions["lookup"],
  ) {
    this.policy = policy;
    this.observer = observer;
    this.timeouts = { ...DEFAULT_TIMEOUTS, ...timeouts };
    this.agent = new Agent({
      connect: judgedConnector({
        allowed: policy.near ? NEAR : PUBLIC,
        refusedNetworks: policy.refusedNetworks,
        connectMs: this.timeouts.connectMs,
        ...(lookup === undefined ? {} : { lookup }),
      }),
      headersTimeout: this.timeouts.headersMs,
      // Waiting for the body is bounded in `patient`, which also sees a drip.
      bodyTimeout: 0,
    });
  }

  /** Ends idle connections. Responses still being read fail. */
  async close(): Promise<void> {
    await this.agent.destroy();
  }

  /** The record is of the request and the answer's head: the body has a reader of its own. @throws EgressError */
  fetch(address: string, outbound: OutboundRequest = {}): Promise<OutboundResponse> {
    return decided({ kind: "hub" }, this.observer, (trace) => this.follow(address, outbound, trace));
  }

  private async follow(address: string, outbound: OutboundRequest, trace: FetchTrace): Promise<OutboundResponse> {
    let url = admittedUrl(address, undefined, this.policy);
    let trusted = true;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      trace.host = url.host;
      trace.hops = hop;
      trusted &&= url.origin === this.policy.bearer?.origin;
      const response = await this.send(url, outbound, trusted);
      const location = response.headers["location"];
      if (!REDIRECTS.has(response.status) || typeof location !== "string")
        return this.present(response, outbound.signal);
      response.body.close();
      // The one method with a body here is POST to an API, which has no reason to redirect it.
      if (outbound.body !== undefined) throw new EgressError("redirects", `${url.host} redirects a POST`);
      url = admittedUrl(location, url, this.policy);
    }
    throw new EgressError("redirects", `${url.host} redirects more than ${MAX_REDIRECTS} times`);
  }

  private async send(url: URL, outbound: OutboundRequest, trusted: boolean): Promise<ExchangeResponse> {
    const { bearer } = this.policy;
    const { method = "GET", body = null, signal } = outbound;
    const headers: Record<string, string> = {
      "user-agent": "castellan",
      "accept-encoding": "identity",
      ...outbound.headers,
      ...(trusted && bearer !== undefined ? { authorization: `Bearer ${bearer.token.expose()}` } : {}),
    };
    try {
      return await exchange(this.agent, url, { method, headers, body, signal });
    } catch (error) {
      throw translate(error, url.host, signal);
    }
  }

  private present({ status, headers: raw, body }: ExchangeResponse, signal: AbortSignal | undefined): OutboundResponse {
    const headers = new Map<string, string>();
    for (const [name, value] of Object.entries(raw)) {
      const first = Array.isArray(value) ? value[0] : value;
      if (first !== undefined) headers.set(name.toLowerCase(), first);
    }
    const encoding = headers.get("content-encoding") ?? "identity";
    if (encoding !== "identity") {
      body.close();
      throw new EgressError(
        "protocol",
        `the answer came with content-encoding ${encoding.slice(0, 40)}, which was not asked for`,
      );
    }
    return { status, headers, body: patient(body, this.timeouts, signal), close: () => body.close() };
  }
}

/** Reads a body whole. @throws EgressError too_large when it has more than `limit` bytes */
export async function readAll(response: OutboundResponse, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body) {
    size += chunk.byteLength;
    if (size > limit) throw new EgressError("too_large", `the answer is larger than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/**
 * The body under a budget of patience: it starts at `bodyIdleMs`, waiting spends it, bytes earn it back at
 * `minBytesPerSecond`. Silence ends it after `bodyIdleMs`, a drip soon after, a slow but honest line never.
 * Time that the reader takes for itself (a slow disk) is not counted.
 */
async function* patient(
  body: ExchangeBody,
  timeouts: EgressTimeouts,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let patienceMs = timeouts.bodyIdleMs;
  try {
    for (;;) {
      const begin = performance.now();
      const chunk = await body.next(patienceMs);
      if (chunk === undefined) return;
      if (chunk === "late") throw new EgressError("timeout", "the server sends too slowly, or has stopped sending");
      patienceMs -= performance.now() - begin;
      patienceMs += (chunk.byteLength / timeouts.minBytesPerSecond) * 1000;
      patienceMs = Math.min(patienceMs, timeouts.bodyIdleMs);
      yield chunk;
    }
  } catch (error) {
    throw translate(error, "the server", signal);
  } finally {
    body.close();
  }
}

const TIMEOUTS = new Set(["UND_ERR_CONNECT_TIMEOUT", "UND_ERR_HEADERS_TIMEOUT"]);

function translate(error: unknown, host: string, signal: AbortSignal | undefined): EgressError {
  if (error instanceof EgressError) return error;
  if (signal?.aborted === true) return new EgressError("aborted", "the download was stopped", error);
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (TIMEOUTS.has(code)) return new EgressError("timeout", `${host} did not answer in time`, error);
  if (error instanceof errors.HTTPParserError) return new EgressError("protocol", `${host} does not speak HTTP`, error);
  return new EgressError("network", `the connection to ${host} failed${code === "" ? "" : ` (${code})`}`, error);
}
