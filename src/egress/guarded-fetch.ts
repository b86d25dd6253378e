/**
 * One GET to a place that has to be proven harmless first: the URL, then every address that its name has, then the
 * connection itself.
 *
 * Invariants (Wall: T44): a name is resolved once; every address that it has is judged, and one bad address refuses
 * all; the socket goes to an address that was judged, and is asked where it arrived before a byte is sent; no redirect
 * is followed, no proxy variable counts, no connection is kept; TLS is verified whatever the environment says; the
 * answer has an end in time and bytes, and no content encoding, so that its bytes are counted as they are.
 * Errors are for the operator's log: none of their text, nor of the answer's, goes to a client.
 * Callers: policy/tokens, through what app hands to it.
 */
import { lookup, Resolver } from "node:dns/promises";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { connect as tlsConnect } from "node:tls";
import { type AddressClass, addressClass, sameAddress } from "./addresses.ts";
import { guardedUrl, type Target, type UrlRules } from "./guarded-url.ts";
import { EgressError } from "./policy.ts";

export interface GuardOptions {
  /** The only hosts, as a URL prints them (`host`, `host:port`). */
  readonly hosts: readonly string[];
  /** Private addresses and inside names too. */
  readonly privateNetworks?: boolean;
  /** Loopback too, and then plain http to it. */
  readonly loopback?: boolean;
  /** PEM; the only authorities that count, in place of the system's. */
  readonly ca?: string;
  /** From the first name asked to the last byte, milliseconds. */
  readonly deadlineMs: number;
  readonly maxBytes: number;
  readonly accept: string;
  /** `address:port` of name servers in place of the system's. For tests. */
  readonly nameServers?: readonly string[];
  /** All addresses of a name. For tests. */
  readonly resolve?: (name: string, signal: AbortSignal) => Promise<readonly string[]>;
}

export interface GuardedAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/** Addresses of one name that are tried one after the other. */
const MAX_TRIES = 3;
/** More addresses than any honest name has. */
const MAX_ADDRESSES = 32;
const MAX_HEADER_BYTES = 16 * 1024;
const NOT_THERE = new Set(["ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "ETIMEDOUT"]);

/** @throws EgressError */
export async function guardedGet(text: string, options: GuardOptions): Promise<GuardedAnswer> {
  const target = guardedUrl(text, rulesOf(options));
  const signal = AbortSignal.timeout(options.deadlineMs);
  try {
    const addresses = await judged(target, options, signal);
    return await firstReached(target, addresses, options, signal);
  } catch (error) {
    throw translate(error, target.url.host, signal);
  }
}

function rulesOf({ hosts, privateNetworks = false, loopback = false }: GuardOptions): UrlRules {
  return { hosts, localNames: privateNetworks || loopback, plainLoopback: loopback };
}

/** Where the name leads, once none of it leads elsewhere. */
async function judged(target: Target, options: GuardOptions, signal: AbortSignal): Promise<readonly string[]> {
  const resolve = options.resolve ?? resolverOf(options);
  const addresses = target.isAddress ? [target.hostname] : await before(signal, resolve(target.hostname, signal));
  const { host } = target.url;
  if (addresses.length === 0) throw new EgressError("network", `${host} has no address`);
  if (addresses.length > MAX_ADDRESSES) throw forbidden(`${host} has more than ${MAX_ADDRESSES} addresses`);
  const allowed = allowedClasses(target, options);
  for (const address of addresses) {
    const kind = addressClass(address);
    if (!allowed.includes(kind)) throw forbidden(`${host} leads to an address that is ${kind}`);
  }
  return addresses;
}

function allowedClasses({ url }: Target, { privateNetworks, loopback }: GuardOptions): readonly AddressClass[] {
  if (url.protocol === "http:") return ["loopback"];
  return [
    "public",
    ...(privateNetworks ? (["private", "own"] as const) : []),
    ...(loopback ? (["loopback"] as const) : []),
  ];
}

function resolverOf({ privateNetworks, loopback, nameServers }: GuardOptions): NonNullable<GuardOptions["resolve"]> {
  if (privateNetworks || loopback) return systemAddresses;
  return (name, signal) => dnsAddresses(name, signal, nameServers);
}

/** A and AAAA from the name servers. A family that is not there, or whose server is away, leaves the other. */
async function dnsAddresses(
  name: string,
  signal: AbortSignal,
  servers: readonly string[] | undefined,
): Promise<readonly string[]> {
  const resolver = new Resolver({ timeout: 2000, tries: 2 });
  if (servers !== undefined) resolver.setServers(servers);
  const stop = (): void => resolver.cancel();
  signal.addEventListener("abort", stop, { once: true });
  try {
    const [v4, v6] = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    return [...(v4.status === "fulfilled" ? v4.value : []), ...(v6.status === "fulfilled" ? v6.value : [])];
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** As the system knows it: names inside a network stand in its hosts file and search domains. */
async function systemAddresses(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true, order: "ipv4first" })).map(({ address }) => address);
}

async function firstReached(
  target: Target,
  addresses: readonly string[],
  options: GuardOptions,
  signal: AbortSignal,
): Promise<GuardedAnswer> {
  let last: unknown;
  for (const address of addresses.slice(0, MAX_TRIES)) {
    try {
      return await get(target, address, options, signal);
    } catch (error) {
      if (!NOT_THERE.has(codeOf(error))) throw error;
      last = error;
    }
  }
  throw last;
}

async function get(
  target: Target,
  address: string,
  options: GuardOptions,
  signal: AbortSignal,
): Promise<GuardedAnswer> {
  const { url } = target;
  const socket = dial(target, address, options.ca);
  try {
    const response = await send(url, socket, options.accept, signal);
    const status = response.statusCode ?? 0;
    if (status >= 300 && status < 400) throw new EgressError("redirects", `${url.host} answers with a redirect`);
    return { status, body: await bounded(response, url.host, options.maxBytes) };
  } finally {
    socket.destroy();
  }
}

/** A socket of its own to exactly this address; it dies where it arrives elsewhere. */
function dial({ url, hostname, isAddress }: Target, address: string, ca: string | undefined): Socket {
  const secure = url.protocol === "https:";
  const port = Number(url.port === "" ? (secure ? 443 : 80) : url.port);
  // An address in place of a name: nothing is looked up again, and only one family is tried.
  const place = { host: address, port, autoSelectFamily: false };
  const socket = secure
    ? tlsConnect({
        ...place,
        servername: isAddress ? "" : hostname,
        // Said here, so that NODE_TLS_REJECT_UNAUTHORIZED has no say.
        rejectUnauthorized: true,
        minVersion: "TLSv1.2",
        ALPNProtocols: ["http/1.1"],
        ...(ca === undefined ? {} : { ca }),
      })
    : connect(place);
  // A socket that fails after its exchange is over has nobody else to tell.
  socket.on("error", () => {});
  // Registered before the client's own listeners, so before anything is written.
  socket.once("connect", () => {
    const arrived = socket.remoteAddress;
    if (arrived === undefined || !sameAddress(arrived, address))
      socket.destroy(forbidden(`the connection to ${url.host} arrived at another address`));
  });
  return socket;
}

function send(url: URL, socket: Socket, accept: string, signal: AbortSignal): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const request = httpRequest({
    // With a connection of its own it asks no agent, so no proxy variable either.
    createConnection: () => socket,
    method: "GET",
    host: url.hostname,
    path: url.pathname + url.search,
    headers: { host: url.host, accept, "accept-encoding": "identity", "user-agent": "castellan", connection: "close" },
    maxHeaderSize: MAX_HEADER_BYTES,
    signal,
  });
  request.once("response", resolve);
  // Stays: an abort after the answer began is told here as well.
  request.on("error", reject);
  request.once("upgrade", () => reject(new EgressError("protocol", `${url.host} wants another protocol`)));
  request.end();
  return promise;
}

async function bounded(response: IncomingMessage, host: string, limit: number): Promise<Buffer> {
  const encoding = response.headers["content-encoding"] ?? "identity";
  if (encoding !== "identity") throw new EgressError("protocol", `${host} encodes its answer, which was not asked for`);
  const large = new EgressError("too_large", `the answer of ${host} is larger than ${limit} bytes`);
  if (Number(response.headers["content-length"] ?? 0) > limit) throw large;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw large;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/** What cannot be cancelled is left behind at the deadline. */
function before<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const stop = (): void => late.reject(new DOMException("late", "TimeoutError"));
  signal.addEventListener("abort", stop, { once: true });
  return Promise.race([work, late.promise]).finally(() => signal.removeEventListener("abort", stop));
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function translate(error: unknown, host: string, signal: AbortSignal): EgressError {
  if (error instanceof EgressError) return error;
  if (signal.aborted) return new EgressError("timeout", `${host} did not answer in time`, error);
  const code = codeOf(error);
  if (code.startsWith("HPE_")) return new EgressError("protocol", `${host} does not speak HTTP (${code})`, error);
  return new EgressError("network", `the connection to ${host} failed${code === "" ? "" : ` (${code})`}`, error);
}

function forbidden(message: string): EgressError {
  return new EgressError("forbidden", message);
}
