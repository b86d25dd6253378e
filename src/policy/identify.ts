/**
 * From a request's headers and connection to who calls. No clock, no I/O of its own; sees headers only, never a body.
 *
 * Invariants: one credential, read one way, or nobody. Whatever two readers might take differently (a second header,
 * a second space, another scheme) is unauthenticated, with one message for all causes. A credential goes to one prover,
 * by its shape; no other is asked after it. Whatever proved it, the principal's networks hold (Wall: T41). A client certificate counts where no header names a caller: behind a
 * gateway the certificate is the gateway's, the header the caller's.
 */
import { headerValues } from "#base/headers.ts";
import type { Principal } from "#core/principal.ts";
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
  readonly keys: (key: string) => Found;
  readonly tokens?: TokenProver;
  readonly certificates?: (certificate: PeerCertificate) => Found;
}

export interface TokenProver {
  /** Characters of the longest token that is read. */
  readonly maxLength: number;
  readonly verify: (token: string) => Found;
}

// RFC 9110, 11.6.2 would allow several spaces; RFC 6750 clients send one.
const BEARER = /^bearer ([\x21-\x7e]+)$/i;
const BARE = /^[\x21-\x7e]+$/;
const SCHEME_LENGTH = "bearer ".length;
/** Three parts, the first of which can be base64url of a JSON object (`{"`, `{ `): how a signed token looks. */
const TOKEN = /^ey[^.]*\.[^.]*\.[^.]*$/;

export function looksLikeToken(credential: string): boolean {
  return !credential.startsWith(KEY_PREFIX) && TOKEN.test(credential);
}

export function identifyBy({ keys, tokens, certificates }: Provers): Identify {
  // Asked each time: the operator may change it while the server runs.
  const longest = (): number => SCHEME_LENGTH + Math.max(MAX_KEY_LENGTH, tokens?.maxLength ?? 0);
  const byCredential = (credential: string): Found => {
    if (tokens !== undefined && looksLikeToken(credential))
      return credential.length > tokens.maxLength ? undefined : tokens.verify(credential);
    return credential.length > MAX_KEY_LENGTH ? undefined : keys(credential);
  };
  return (rawHeaders, dialect, peer) => {
    const credential = presented(rawHeaders, dialect, longest());
    if (credential === "none" && certificates !== undefined && peer.certificate !== undefined)
      return known(certificates(peer.certificate), peer);
    if (typeof credential === "string") throw unauthenticated(REASONS[credential]);
    return known(byCredential(credential.text), peer);
  };
}

const REASONS = { none: "no credential", unclear: "a credential that can be read in more than one way" } as const;

export function createIdentify(keys: KeySet): Identify {
  return identifyBy({ keys: (key) => keys.find(key) });
}

function known(found: Found, peer: Peer): Principal | Promise<Principal> {
  if (found instanceof Promise) return found.then((principal) => known(principal, peer));
  if (found === undefined) throw unauthenticated("an unknown credential");
  const { networks } = found.reach;
  if (networks !== undefined && !inNetworks(networks, peer.address))
    throw unauthenticated(`${found.id} may not be used from ${peer.address ?? "an unknown address"}`);
  return found;
}

/** "none": no header claims to be a credential. "unclear": one does and is not read. */
function presented(
  rawHeaders: readonly string[],
  dialect: string,
  longest: number,
): { readonly text: string } | "none" | "unclear" {
  const bearers = headerValues(rawHeaders, "authorization");
  const bare = dialect === "anthropic" ? headerValues(rawHeaders, "x-api-key") : [];
  if (bearers.length + bare.length === 0) return "none";
  if (bearers.length + bare.length > 1) return "unclear";
  const value = bearers[0] ?? bare[0] ?? "";
  if (value.length > longest) return "unclear";
  const text = bearers.length === 1 ? BEARER.exec(value)?.[1] : BARE.exec(value)?.[0];
  return text === undefined ? "unclear" : { text };
}
