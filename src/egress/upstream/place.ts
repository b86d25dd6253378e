/**
 * Where upstreams are, as an operator writes it. Pure.
 *
 * `http://host:port`, `https://host:port`, `unix:/path`; `dns+http://name:port` and `dns+https://name:port` for all
 * addresses of a name (a headless service); `dns+srv://_service._proto.name` and `dns+srvs://…` (TLS) for SRV records.
 * Invariant: what passes is a scheme, a host and a port in their plain form; plain HTTP to an address that is public is
 * refused here, to a name that leads to one where the connection arrives (dial.ts). Callers: app.
 */
import { isIP } from "node:net";
import { addressClass } from "#egress/addresses.ts";
import { mayDial } from "./reach.ts";

export type UpstreamPlace =
  | { readonly kind: "fixed"; readonly secure: boolean; readonly origin: string }
  | { readonly kind: "unix"; readonly socketPath: string }
  | { readonly kind: "addresses"; readonly secure: boolean; readonly name: string; readonly port: number }
  | { readonly kind: "srv"; readonly secure: boolean; readonly name: string };

/** The message is for the operator, and begins where "URL …" would. */
export class UpstreamPlaceError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "UpstreamPlaceError";
  }
}

const SHAPE = /^(https?|dns\+https?|dns\+srvs?):\/\/([^/?#@\\\s]+)\/?$/;
const NAME =
  /^(?=.{1,253}$)(?:_?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\._?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*\.?$/;
const MAX_SOCKET_PATH = 100;

/** @throws UpstreamPlaceError */
export function upstreamPlace(text: string, plainAnywhere: boolean): UpstreamPlace {
  if (text.startsWith("unix:")) return unixPlace(text.slice("unix:".length));
  const [, scheme = "", authority = ""] = SHAPE.exec(text) ?? [];
  if (scheme === "")
    throw new UpstreamPlaceError(
      "is not http(s)://host:port, unix:/path, dns+http(s)://name:port or dns+srv(s)://name; without a path: give the server's root, not /v1",
    );
  const secure = scheme.endsWith("s");
  if (scheme.startsWith("dns+srv")) return { kind: "srv", secure, name: named(authority) };
  const url = URL.parse(`${secure ? "https" : "http"}://${authority}`);
  // A default port is left out by the parser.
  const plain = authority.replace(secure ? /:443$/ : /:80$/, "");
  if (url === null || url.host !== plain) throw new UpstreamPlaceError("has a host that is not in its plain form");
  if (scheme.startsWith("dns+")) {
    const port = Number(/:(\d{1,5})$/.exec(authority)?.[1] ?? (secure ? 443 : 80));
    return { kind: "addresses", secure, name: named(url.hostname), port };
  }
  const address = url.hostname.replace(/^\[|\]$/g, "");
  if (isIP(address) !== 0) judge(address, secure, plainAnywhere);
  return { kind: "fixed", secure, origin: url.origin };
}

function unixPlace(path: string): UpstreamPlace {
  const socketPath = path.replace(/^\/\//, "");
  if (!socketPath.startsWith("/") || socketPath.length > MAX_SOCKET_PATH)
    throw new UpstreamPlaceError(`names no socket by an absolute path of at most ${MAX_SOCKET_PATH} characters`);
  return { kind: "unix", socketPath };
}

function named(name: string): string {
  if (!NAME.test(name) || isIP(name) !== 0) throw new UpstreamPlaceError("has no name that can be looked up");
  return name;
}

function judge(address: string, secure: boolean, plainAnywhere: boolean): void {
  const kind = addressClass(address);
  if (mayDial(kind, { secure, plainAnywhere })) return;
  if (kind === "public")
    throw new UpstreamPlaceError("is plain http to a public address: use https, or --upstream-plain-anywhere");
  throw new UpstreamPlaceError(`leads to an address that is ${kind}, where no upstream is`);
}
