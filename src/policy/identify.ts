/**
 * From a request's headers and connection to who calls. No clock, no I/O of its own; sees headers only, never a body.
 *
 * Invariants: one credential, read one way, or nobody. Whatever two readers might take differently (a second header,
 * a second space, another scheme) is unauthenticated, with one message for all causes. A credential goes to one prover,
 * by its shape; no other is asked after it. Whatever proved it, the principal's networks hold (Wall: T41). A client certificate counts where no header names a caller: behind a
 * gateway the certificate is the gateway's, the header the caller's.
 */
import { FoundInHeaders } from "#base/headers.ts";
import type { Principal } from "#core/principal.ts";
import type { KeptName } from "./_digest-cache.ts";
import { KEY_PREFIX, type KeySet, MAX_KEY_LENGTH, unauthenticated } from "./keys.ts";
import { inNetworks } from "./networks.ts";
import type { Peer, PeerCertificate } from "./peer.ts";

/**
 * @param rawHeaders name and value in turn, as they came
 * @param dialect name of the request's dialect: `x-api-key` counts in "anthropic" only
 * @throws Fault unauthenticated
 */
export type Identify = (rawHeaders: readonly string[], dialect: string, peer: Peer) => Principal | Promise<Principal>;

type Found = Principal | undefined | Promise<Principal | undefined>;

/** What can prove who calls. Undefined: it cannot be; a prover may throw Fault unauthenticated to say more in the log. */
export interface Provers {
  readonly keys: (key: string, kept?: KeptName) => Found;
  readonly tokens?: TokenProver;
  readonly certificates?: (certificate: PeerCertificate) => Found;
}

export interface TokenProver {
  /** Characters of the longest token that is read. */
  readonly maxLength: number;
  readonly verify: (token: string) => Found;
}

// RFC 9110, 11.6.2 would allow several spaces; RFC 6750 clients send one.
const SCHEME = "bearer ";
const BARE = /^[\x21-\x7e]+$/;
/** Three parts, the first of which can be base64url of a JSON object (`{"`, `{ `): how a signed token looks. */
const TOKEN = /^ey[^.]*\.[^.]*\.[^.]*$/;

export function looksLikeToken(credential: string): boolean {
  return !credential.startsWith(KEY_PREFIX) && TOKEN.test(credential);
}

export function identifyBy({ keys, tokens, certificates }: Provers): Identify {
  const said = new FoundInHeaders<Said>();
  // Asked each time: the operator may change it while the server runs.
  const longest = (): number => SCHEME.length + Math.max(MAX_KEY_LENGTH, tokens?.maxLength ?? 0);
  const byCredential = (credential: string, kept?: KeptName): Found => {
    if (tokens !== undefined && looksLikeToken(credential))
      return credential.length > tokens.maxLength ? undefined : tokens.verify(credential);
    return credential.length > MAX_KEY_LENGTH ? undefined : keys(credential, kept);
  };
  return (rawHeaders, dialect, peer) => {
    const before = said.of(rawHeaders);
    // Whom it names is asked anew: only that it is well said, and what it is called here, stays.
    if (before?.dialect === dialect && SCHEME.length + before.credential.length <= longest())
      return known(byCredential(before.credential, before), peer);
    const credential = presented(rawHeaders, dialect, longest());
    if (typeof credential === "string") {
      const now: Said = { dialect, credential, name: undefined };
      said.keep(rawHeaders, now);
      return known(byCredential(credential, now), peer);
    }
    if (credential === NONE && certificates !== undefined && peer.certificate !== undefined)
      return known(certificates(peer.certificate), peer);
    throw unauthenticated(credential.reason);
  };
}

/** The one credential of headers that a connection says again and again. */
interface Said extends KeptName {
  readonly dialect: string;
  readonly credential: string;
}

/** No header claims to be a credential. */
const NONE = { reason: "no credential" };
/** One does and is not read. */
const UNCLEAR = { reason: "a credential that can be read in more than one way" };

export function createIdentify(keys: KeySet): Identify {
  return identifyBy({ keys: (key, kept) => keys.find(key, kept) });
}

function known(found: Found, peer: Peer): Principal | Promise<Principal> {
  if (found instanceof Promise) return found.then((principal) => known(principal, peer));
  if (found === undefined) throw unauthenticated("an unknown credential");
  const { networks } = found.reach;
  if (networks !== undefined && !inNetworks(networks, peer.address))
    throw unauthenticated(`${found.id} may not be used from ${peer.address ?? "an unknown address"}`);
  return found;
}

/** @returns the text of the one credential, or why there is none */
function presented(
  rawHeaders: readonly string[],
  dialect: string,
  longest: number,
): string | typeof NONE | typeof UNCLEAR {
  let value: string | undefined;
  let text: string | undefined;
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const bearer = isNamed(rawHeaders[at] as string, "authorization");
    if (!bearer && !(dialect === "anthropic" && isNamed(rawHeaders[at] as string, "x-api-key"))) continue;
    if (value !== undefined) return UNCLEAR;
    value = rawHeaders[at + 1] as string;
    text = bearer ? afterScheme(value) : value;
  }
  if (value === undefined) return NONE;
  return text === undefined || value.length > longest || !BARE.test(text) ? UNCLEAR : text;
}

function isNamed(candidate: string, name: string): boolean {
  return candidate.length === name.length && candidate.toLowerCase() === name;
}

function afterScheme(value: string): string | undefined {
  return value.slice(0, SCHEME.length).toLowerCase() === SCHEME ? value.slice(SCHEME.length) : undefined;
}
