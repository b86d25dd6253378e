/**
 * To what kinds of addresses a call to an upstream may go (Wall: T121). Pure, and loads no client.
 *
 * Callers: place.ts for what is written as an address, names.ts for what a name leads to, dial.ts for where it arrived.
 */
import type { AddressClass } from "#egress/addresses.ts";

export interface Reach {
  readonly secure: boolean;
  /** Plain HTTP to public addresses, too. */
  readonly plainAnywhere: boolean;
}

const NEAR: readonly AddressClass[] = ["loopback", "own", "private"];

export function mayDial(kind: AddressClass, { secure, plainAnywhere }: Reach): boolean {
  return NEAR.includes(kind) || (kind === "public" && (secure || plainAnywhere));
}
