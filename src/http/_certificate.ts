/**
 * A client's certificate as policy sees it, read once a connection. Only a verified one is looked at.
 */
import type { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { PeerCertificate } from "#policy/peer.ts";

const KNOWN = new WeakMap<TLSSocket, PeerCertificate>();
/** Longer chains are not verified by OpenSSL either. */
const LONGEST_CHAIN = 16;

/** Undefined: none was given, none was asked for, or it did not verify. */
export function certificateOf(socket: Socket): PeerCertificate | undefined {
  if (!isVerified(socket)) return undefined;
  const known = KNOWN.get(socket);
  if (known !== undefined) return known;
  const [own, ...above] = chainOf(socket);
  if (own === undefined) return undefined;
  const certificate = describe(own, above);
  KNOWN.set(socket, certificate);
  return certificate;
}

/** Asked of the socket, so that a server without TLS does not load it. */
function isVerified(socket: Socket): socket is TLSSocket {
  return "authorized" in socket && socket.authorized === true;
}

/** What the client sent, its own first. */
export function chainOf(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = [];
  let next = socket.getPeerX509Certificate();
  while (next !== undefined && chain.length < LONGEST_CHAIN) {
    chain.push(next);
    next = next.issuerCertificate;
  }
  return chain;
}

function describe(own: X509Certificate, above: readonly X509Certificate[]): PeerCertificate {
  const chain = [own, ...above];
  return {
    fingerprint: own.fingerprint256.replaceAll(":", "").toLowerCase(),
    subject: subjectOf(own),
    uris: urisOf(own),
    // No longer valid than what it hangs on.
    notBefore: Math.max(...chain.map(({ validFrom }) => Date.parse(validFrom))),
    notAfter: Math.min(...chain.map(({ validTo }) => Date.parse(validTo))),
  };
}

/**
 * OpenSSL prints a line a name, least specific first, with the escapes of RFC 2253 (which RFC 4514 reads); ` + ` stands
 * between the parts of one name, as a plus sign within a value is escaped.
 */
function subjectOf({ subject }: X509Certificate): string {
  return (subject ?? "")
    .split("\n")
    .reverse()
    .map((line) => line.replaceAll(" + ", "+"))
    .join(",");
}

/** Node escapes commas and quotes within a name, so that this split is sound. */
function urisOf({ subjectAltName }: X509Certificate): string[] {
  return (subjectAltName ?? "")
    .split(", ")
    .filter((name) => name.startsWith("URI:"))
    .map((name) => name.slice("URI:".length));
}
