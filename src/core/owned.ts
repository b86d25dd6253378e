/**
 * Names of things that belong to a tenant. Two tenants may give the same name to two things; what is kept under the
 * key never meets. Callers: whatever keeps something that a client can name.
 *
 * Wall: T47. A name that a client chose is no key by itself.
 */

/** A NUL cannot stand in a tenant's name, nor in an id of ours. */
export function ownedKey(tenant: string, name: string): string {
  return `${tenant}\0${name}`;
}
