/**
 * From a request's headers to who calls. Pure: no clock, no I/O; sees headers only, never a body.
 *
 * Invariant: one credential, read one way, or nobody. Whatever two readers might take differently (a second header,
 * a second space, another scheme) is unauthenticated, with one message for all causes.
 */
import { headerValues } from "#base/headers.ts";
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { type KeySet, MAX_KEY_LENGTH } from "./keys.ts";
import type { Peer } from "./peer.ts";

/**
 * @param rawHeaders name and value in turn, as they came
 * @param dialect name of the route's dialect: `x-api-key` counts on "anthropic" routes only
 * @throws Fault unauthenticated
 */
export type Identify = (rawHeaders: readonly string[], dialect: string, peer: Peer) => Principal | Promise<Principal>;

// RFC 9110, 11.6.2 would allow several spaces; RFC 6750 clients send one.
const BEARER = /^bearer ([\x21-\x7e]+)$/i;
const BARE = /^[\x21-\x7e]+$/;
const LONGEST = MAX_KEY_LENGTH + "bearer ".length;

export function createIdentify(keys: KeySet): Identify {
  return (rawHeaders, dialect) => {
    const token = presented(rawHeaders, dialect);
    const principal = token === undefined ? undefined : keys.find(token);
    if (principal === undefined) throw new Fault("unauthenticated", "Unauthorized");
    return principal;
  };
}

function presented(rawHeaders: readonly string[], dialect: string): string | undefined {
  const bearers = headerValues(rawHeaders, "authorization");
  const bare = dialect === "anthropic" ? headerValues(rawHeaders, "x-api-key") : [];
  if (bearers.length + bare.length !== 1) return undefined;
  const value = bearers[0] ?? bare[0] ?? "";
  if (value.length > LONGEST) return undefined;
  if (bearers.length === 1) return BEARER.exec(value)?.[1];
  return BARE.test(value) ? value : undefined;
}
