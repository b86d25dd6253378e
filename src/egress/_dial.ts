/**
 * One connection to one address, and one exchange on it (rules 5, 6 and 8 of docs/egress.md). Judges no address.
 * Used by guarded-fetch.ts.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import type { Readable } from "node:stream";
import { connect as tlsConnect } from "node:tls";
import { sameAddress } from "./addresses.ts";
import { portOf, type Target } from "./guarded-url.ts";
import { EgressError } from "./policy.ts";

export type Outbound =
  | { readonly method: "GET" }
  /** `body`: made anew for each address that is tried. */
  | { readonly method: "PUT"; readonly type: string; readonly bytes: number; readonly body: () => Readable };

const MAX_HEADER_BYTES = 16 * 1024;
/** Answers of status 1xx before the answer. */
const MAX_INFORMATION = 8;
const NOT_THERE: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENETUNREACH",
  "EHOSTUNREACH",
  "EADDRNOTAVAIL",
  "ETIMEDOUT",
]);

/** Whether nobody was met, so that another address may be tried. */
export function isNotThere(error: unknown): boolean {
  return error instanceof Error && "code" in error && NOT_THERE.has(String(error.code));
}

export interface DialOptions {
  /** PEM; in place of the system's authorities. */
  readonly ca: string | undefined;
  readonly idleMs: number;
}

/** A socket of its own to exactly this address; it dies where it arrives elsewhere. */
export function dial({ url, hostname, isAddress }: Target, address: string, { ca, idleMs }: DialOptions): Socket {
  // An address in place of a name: nothing is looked up again, and only one family is tried.
  const place = { host: address, port: portOf(url), autoSelectFamily: false };
  const socket =
    url.protocol === "https:"
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
      socket.destroy(
        new EgressError("forbidden", `the connection to ${url.host} arrived at another address`, undefined, 6),
      );
  });
  socket.setTimeout(idleMs, () =>
    socket.destroy(new EgressError("timeout", `${url.host} says nothing for too long`, undefined, 8)),
  );
  return socket;
}

/** @returns the answer's head, its body unread. @throws EgressError | what the client throws */
export function send(
  url: URL,
  socket: Socket,
  accept: string,
  outbound: Outbound,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const request = httpRequest({
    // With a connection of its own it asks no agent, so no proxy variable either.
    createConnection: () => socket,
    method: outbound.method,
    host: url.hostname,
    path: url.pathname + url.search,
    headers: headersOf(url, accept, outbound),
    maxHeaderSize: MAX_HEADER_BYTES,
    // Said here, as NODE_OPTIONS may say otherwise.
    insecureHTTPParser: false,
    signal,
  });
  request.once("response", resolve);
  // Stays: an abort after the answer began is told here as well.
  request.on("error", reject);
  request.once("upgrade", () => reject(protocol(`${url.host} wants another protocol`)));
  let information = 0;
  request.on("information", () => {
    if (++information > MAX_INFORMATION) socket.destroy(protocol(`${url.host} gives no answer but 1xx`));
  });
  if (outbound.method === "GET") request.end();
  else outbound.body().once("error", reject).pipe(request);
  return promise;
}

function headersOf(url: URL, accept: string, outbound: Outbound): Record<string, string> {
  return {
    host: url.host,
    accept,
    "accept-encoding": "identity",
    "user-agent": "castellan",
    ...(outbound.method === "GET" ? {} : { "content-type": outbound.type, "content-length": String(outbound.bytes) }),
    connection: "close",
  };
}

/** The body's bytes, which are those on the wire. @throws EgressError too_large | protocol */
export async function* readBounded(response: IncomingMessage, host: string, limit: number): AsyncGenerator<Buffer> {
  const encoding = response.headers["content-encoding"] ?? "identity";
  if (encoding !== "identity") throw protocol(`${host} encodes its answer, which was not asked for`);
  const large = new EgressError("too_large", `the answer of ${host} is larger than ${limit} bytes`, undefined, 8);
  if (Number(response.headers["content-length"] ?? 0) > limit) throw large;
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw large;
    yield chunk;
  }
}

function protocol(message: string): EgressError {
  return new EgressError("protocol", message, undefined, 8);
}
