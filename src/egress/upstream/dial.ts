/**
 * The connection to an upstream: TLS verified whatever the environment says, and a look at where it arrived.
 *
 * Invariants (Wall: T121): plain HTTP goes to this machine or a private network only, unless the operator said otherwise;
 * nothing goes to link-local addresses, metadata services, multicast or addresses that stand for others, however a name
 * is resolved. Callers: client.ts.
 */
import { isIP, type OnReadOpts, type Socket } from "node:net";
import type { ConnectionOptions } from "node:tls";
import type { Secret } from "#base/secret.ts";
import { addressClass } from "#egress/addresses.ts";
import { connectTo } from "./_connect.ts";
import { mayDial } from "./reach.ts";

export interface UpstreamTls {
  /** PEM: the only authorities that count, in place of the system's. */
  readonly ca?: string;
  /** PEM: what this side shows of itself. */
  readonly certificate?: string;
  readonly key?: Secret;
  /** The name that the upstream's certificate has to have, in place of the address's. */
  readonly serverName?: string;
}

/** What this side shows of itself, and whom it takes for the upstream; another object when any of it is another. */
export interface UpstreamCredentials {
  /** Sent as a bearer token. */
  readonly key?: Secret;
  readonly tls?: UpstreamTls;
}

export interface DialOptions {
  readonly origin: string;
  readonly secure: boolean;
  readonly socketPath?: string;
  /** Where to connect to, in place of what the origin's name leads to. */
  readonly address?: string;
  readonly tls?: UpstreamTls;
  /** Plain HTTP to public addresses, too. */
  readonly plainAnywhere: boolean;
  readonly connectMs: number;
}

/** Makes connections to one place, one a call. @param onread where what they receive is read to; undefined: as streams are */
export type Dial = (
  onread: OnReadOpts | undefined,
  done: (error: Error | undefined, socket: Socket | undefined) => void,
) => void;

export function upstreamDial(options: DialOptions): Dial {
  const { address, socketPath, secure, origin } = options;
  const { hostname, port } = new URL(origin);
  const name = hostname.replace(/^\[|\]$/g, "");
  let session: Buffer | undefined;
  const place = {
    host: address ?? name,
    port: Number(port) || (secure ? 443 : 80),
    socketPath,
    timeoutMs: options.connectMs,
  };
  return (onread, done) => {
    const tls = secure ? { ...tlsOf(options, name), session } : undefined;
    connectTo({ ...place, tls }, onread, (error, socket) => {
      if (socket === undefined) return done(error, undefined);
      const problem = socketPath === undefined ? misled(socket, options) : undefined;
      if (problem === undefined) {
        socket.on("session", (next: Buffer) => {
          session = next;
        });
        return done(undefined, socket);
      }
      socket.destroy();
      done(problem, undefined);
    });
  };
}

function tlsOf({ tls = {} }: DialOptions, name: string): ConnectionOptions {
  const servername = tls.serverName ?? (isIP(name) === 0 ? name : undefined);
  return {
    // Said here, so that NODE_TLS_REJECT_UNAUTHORIZED has no say.
    rejectUnauthorized: true,
    minVersion: "TLSv1.2",
    ...(servername === undefined ? {} : { servername }),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.certificate === undefined ? {} : { cert: tls.certificate }),
    ...(tls.key === undefined ? {} : { key: tls.key.expose() }),
  };
}

function misled({ remoteAddress }: Socket, options: DialOptions): Error | undefined {
  const kind = addressClass(remoteAddress ?? "");
  if (mayDial(kind, options)) return undefined;
  return new Error(`the upstream's name leads to an address that is ${kind}`);
}
