/**
 * One request to a place that has to be proven harmless first: the URL, then every address that its name has, then the
 * connection itself, and again for each redirect where any is allowed.
 *
 * Invariants (Wall: T44): the rules of docs/egress.md, in their order, for every hop: a name is resolved once; every
 * address that it has is judged, and one bad address refuses all; the socket goes to an address that was judged, and is
 * asked where it arrived before a byte is sent; no proxy variable counts, no connection is kept; TLS is verified whatever
 * the environment says; the answer has an end in time and bytes, and no content encoding, so that its bytes are counted
 * as they are. No header is sent that a place could be told apart by, or that holds a secret: a hop takes nothing along.
 * Errors are for the operator's log: none of their text, nor of the answer's, goes to a client.
 * Callers: policy/tokens, media/, and app for files that a command line names.
 */
import { judgedAddresses } from "./_addresses-of.ts";
import { dial, isNotThere, type Outbound, readBounded, send } from "./_dial.ts";
import type { FetchTrace } from "./decision.ts";
import { guardedUrl, type Target, type UrlRules } from "./guarded-url.ts";
import { EgressError } from "./policy.ts";

export interface GuardOptions {
  /** The only hosts, as a URL prints them (`host`, `host:port`). */
  readonly hosts: readonly string[];
  /** Besides them, on `ports`: names, and with a leading dot what is below them. */
  readonly domains?: readonly string[];
  readonly ports?: readonly number[];
  /** Private addresses and inside names too. */
  readonly privateNetworks?: boolean;
  /** Loopback too, and then plain http to it. */
  readonly loopback?: boolean;
  /** Plain http to public places, too. */
  readonly plainPublic?: boolean;
  /** CIDR blocks that are refused besides all that is: prefixes of NAT64, public addresses of an own network. */
  readonly refusedNetworks?: readonly string[];
  /** Hops after the first; 0 unless said. */
  readonly redirects?: number;
  /** PEM; the only authorities that count, in place of the system's. */
  readonly ca?: string;
  /** From the first name asked to the last byte, milliseconds. */
  readonly deadlineMs: number;
  /** Longest silence of a connection, milliseconds; the deadline unless said. */
  readonly idleMs?: number;
  readonly signal?: AbortSignal;
  readonly maxBytes: number;
  readonly maxUrlLength?: number;
  readonly accept: string;
  /** Is told what happened, for the record of the decision. */
  readonly trace?: FetchTrace;
  /** `address:port` of name servers in place of the system's. For tests. */
  readonly nameServers?: readonly string[];
  /** All addresses of a name. For tests. */
  readonly resolve?: (name: string, signal: AbortSignal) => Promise<readonly string[]>;
}

export interface GuardedAnswer {
  readonly status: number;
  /** Content-Type as it was sent. */
  readonly type: string | undefined;
  readonly body: Buffer;
}

/** Addresses of one name that are tried one after the other. */
const MAX_TRIES = 3;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** @throws EgressError */
export async function guardedGet(text: string, options: GuardOptions): Promise<GuardedAnswer> {
  const chunks: Buffer[] = [];
  const { status, type } = await guardedExchange(text, options, { method: "GET" }, (chunk) => void chunks.push(chunk));
  return { status, type, body: Buffer.concat(chunks) };
}

/** The answer's body goes to `sink`, chunk by chunk, whatever its status. @throws EgressError, and what the sink throws */
export async function guardedExchange(
  text: string,
  options: GuardOptions,
  outbound: Outbound,
  sink: (chunk: Buffer) => void | Promise<void>,
): Promise<Omit<GuardedAnswer, "body">> {
  const deadline = AbortSignal.timeout(options.deadlineMs);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  let target = judgedUrl(text, options);
  for (let hop = 0; ; hop++) {
    const answer = await asked(target, options, outbound, signal, sink);
    if (answer.next === undefined) return answer;
    if (hop >= (options.redirects ?? 0) || outbound.method !== "GET")
      throw new EgressError("redirects", `${target.url.host} answers with a redirect`, undefined, 7);
    target = redirected(target, answer.next, options);
    if (options.trace !== undefined) options.trace.hops++;
  }
}

/** Rules 1 to 3, which ask nobody. @throws EgressError */
export function judgedUrl(text: string, options: GuardOptions): Target {
  const target = guardedUrl(text, rulesOf(options));
  if (options.trace !== undefined) options.trace.host = target.url.host;
  return target;
}

function rulesOf({ privateNetworks = false, loopback = false, ...options }: GuardOptions): UrlRules {
  return {
    hosts: options.hosts,
    ...(options.domains === undefined ? {} : { domains: options.domains }),
    ...(options.ports === undefined ? {} : { ports: options.ports }),
    ...(options.maxUrlLength === undefined ? {} : { maxLength: options.maxUrlLength }),
    localNames: privateNetworks || loopback,
    plainLoopback: loopback,
    plainPublic: options.plainPublic === true,
  };
}

/** Rule 7: a Location is a whole URL or begins at the root, and is judged as if it had been asked for. */
function redirected({ url }: Target, location: string, options: GuardOptions): Target {
  const target = judgedUrl(/^\/(?!\/)/.test(location) ? url.origin + location : location, options);
  if (url.protocol === "https:" && target.url.protocol !== "https:")
    throw new EgressError("forbidden", `${url.host} redirects from https to http`, undefined, 7);
  return target;
}

interface Hop extends Omit<GuardedAnswer, "body"> {
  /** Where it sends us; its body was not read. */
  readonly next?: string;
}

/** Rules 4 to 6, and 8. */
async function asked(
  target: Target,
  options: GuardOptions,
  outbound: Outbound,
  signal: AbortSignal,
  sink: (chunk: Buffer) => void | Promise<void>,
): Promise<Hop> {
  try {
    const addresses = await judgedAddresses(target, options, signal);
    if (options.trace !== undefined) options.trace.addresses = addresses;
    return await firstReached(addresses, (address) => exchange(target, address, options, outbound, signal, sink));
  } catch (error) {
    throw translate(error, target.url.host, signal, options.signal);
  }
}

async function firstReached(addresses: readonly string[], ask: (address: string) => Promise<Hop>): Promise<Hop> {
  let last: unknown;
  for (const address of addresses.slice(0, MAX_TRIES)) {
    try {
      return await ask(address);
    } catch (error) {
      if (!isNotThere(error)) throw error;
      last = error;
    }
  }
  throw last;
}

async function exchange(
  target: Target,
  address: string,
  options: GuardOptions,
  outbound: Outbound,
  signal: AbortSignal,
  sink: (chunk: Buffer) => void | Promise<void>,
): Promise<Hop> {
  const { url } = target;
  const socket = dial(target, address, { ca: options.ca, idleMs: options.idleMs ?? options.deadlineMs });
  try {
    const response = await send(url, socket, options.accept, outbound, signal);
    const status = response.statusCode ?? 0;
    const { location, "content-type": type } = response.headers;
    if (status >= 300 && status < 400) {
      if (REDIRECTS.has(status) && location !== undefined) return { status, type, next: location };
      throw new EgressError("redirects", `${url.host} answers with a redirect`, undefined, 7);
    }
    for await (const chunk of readBounded(response, url.host, options.maxBytes)) {
      if (options.trace !== undefined) options.trace.bytes += chunk.length;
      await sink(chunk);
    }
    return { status, type };
  } catch (error) {
    // A reader is told that the socket ended; the socket knows why.
    throw socket.errored instanceof EgressError ? socket.errored : error;
  } finally {
    socket.destroy();
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function translate(error: unknown, host: string, signal: AbortSignal, callers: AbortSignal | undefined): unknown {
  if (error instanceof EgressError) return error;
  if (callers?.aborted === true) return new EgressError("aborted", `the request to ${host} was stopped`, error);
  if (signal.aborted) return new EgressError("timeout", `${host} did not answer in time`, error, 8);
  const code = codeOf(error);
  if (code.startsWith("HPE_")) return new EgressError("protocol", `${host} does not speak HTTP (${code})`, error, 8);
  return new EgressError("network", `the connection to ${host} failed${code === "" ? "" : ` (${code})`}`, error);
}
