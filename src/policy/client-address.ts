/**
 * Who is at the far end when proxies stand in between. Pure.
 *
 * Invariants: a header counts only as far as trusted proxies wrote it, read from the right; the first hop that is not
 * trusted is the client, whatever stands left of it; without a rule no header counts (Wall: T42). What cannot be read, or
 * is told in two ways that differ, is nobody's address, so that a key that is bound to networks is refused.
 */
import { headerValues } from "#base/headers.ts";
import { canonicalAddress, inNetworks, networkProblem } from "./networks.ts";
import type { Peer } from "./peer.ts";

/** Stands for the connections of a Unix socket in a list of trusted proxies. */
const UNIX = "unix";

/** From a connection and the request's headers to whom policy takes for the other end. */
export type FindClient = (peer: Peer, rawHeaders: readonly string[]) => Peer;

/** No proxy is trusted. */
export const directClient: FindClient = (peer) => peer;

/** @param proxies CIDR blocks, or `unix`. @returns what is wrong with one of them, or the rule */
export function trustProxies(proxies: readonly string[]): FindClient | { readonly problem: string } {
  if (proxies.length === 0) return directClient;
  const networks = proxies.filter((text) => text !== UNIX);
  const problem = networks.map(networkProblem).find((text) => text !== undefined);
  if (problem !== undefined) return { problem };
  const unix = proxies.includes(UNIX);
  return (peer, rawHeaders) => {
    const trusted = peer.address === undefined ? unix : inNetworks(networks, peer.address);
    if (!trusted) return peer;
    const hops = hopsOf(rawHeaders);
    if (hops === undefined) return peer;
    const { address: _, ...rest } = peer;
    return { ...rest, address: farthest(hops, networks) };
  };
}

/** @returns hops from client to proxy; undefined: no header tells any; one unreadable hop where two headers differ */
function hopsOf(rawHeaders: readonly string[]): readonly (string | undefined)[] | undefined {
  const plain = headerValues(rawHeaders, "x-forwarded-for");
  const standard = headerValues(rawHeaders, "forwarded");
  if (plain.length === 0 && standard.length === 0) return undefined;
  const byPlain = plain.flatMap((value) => value.split(",")).map((hop) => addressOf(hop.trim()));
  if (standard.length === 0) return byPlain;
  const byStandard = standard.flatMap((value) => elements(value)).map(forOf);
  if (plain.length === 0) return byStandard;
  const same = byPlain.length === byStandard.length && byPlain.every((hop, i) => hop === byStandard[i]);
  return same ? byPlain : [undefined];
}

function farthest(hops: readonly (string | undefined)[], networks: readonly string[]): string | undefined {
  for (let i = hops.length - 1; i > 0; i--) {
    const hop = hops[i];
    if (hop === undefined || !inNetworks(networks, hop)) return hop;
  }
  return hops[0];
}

const WITH_PORT = /^\[([^\]]+)\](?::[0-9]{1,5})?$|^([0-9.]+):[0-9]{1,5}$/;

/** `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`; names, `unknown` and `_hidden` are no addresses. */
function addressOf(hop: string): string | undefined {
  const match = WITH_PORT.exec(hop);
  return canonicalAddress(match?.[1] ?? match?.[2] ?? hop);
}

/** Of a `Forwarded` header (RFC 7239), split at commas outside of quotes. */
function elements(value: string): string[] {
  const found: string[] = [];
  let start = 0;
  let quoted = false;
  for (let i = 0; i < value.length; i++) {
    const c = value[i];
    if (c === "\\" && quoted) i++;
    else if (c === '"') quoted = !quoted;
    else if (c === "," && !quoted) {
      found.push(value.slice(start, i));
      start = i + 1;
    }
  }
  // A quote without its end: nobody knows where an element stops.
  return quoted ? [""] : [...found, value.slice(start)];
}

const FOR = /(?:^|;)\s*for=(?:"([^"\\]*)"|([^;"\s]*))\s*(?=;|$)/gi;

function forOf(element: string): string | undefined {
  const found = [...element.matchAll(FOR)];
  const [only] = found;
  return found.length === 1 && only !== undefined ? addressOf(only[1] ?? only[2] ?? "") : undefined;
}
