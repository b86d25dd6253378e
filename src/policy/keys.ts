/**
 * API keys: how they look, how they are kept, how a presented one is found.
 *
 * Invariants: a key is kept as HMAC-SHA256(pepper, key) and never as itself; a lookup computes one digest and
 * compares it with every known one in constant time, so its duration says neither which key nor how near (Wall: T01).
 *
 * Minted form: `cst_` + 40 base62 characters (238 bits) + 6 base62 characters of the CRC-32 of what stands before.
 * The checksum is for secret scanners and mistyped keys; it proves nothing.
 */
import { createHmac, createSecretKey, type KeyObject, randomInt, timingSafeEqual } from "node:crypto";
import { crc32 } from "node:zlib";
import { Secret } from "#base/secret.ts";
import type { Principal, Role } from "#core/principal.ts";
import { principalOf } from "./roles.ts";

export const KEY_PREFIX = "cst_";
const RANDOM_CHARACTERS = 40;
const CHECKSUM_CHARACTERS = 6;
const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** What a header can carry and nobody can misread: visible ASCII, no spaces. */
const KEY_TEXT = /^[\x21-\x7e]+$/;
/** Characters of the longest key that is read. */
export const MAX_KEY_LENGTH = 4096;

/** 32 bytes; a state directory has its own, so that a stolen key file alone cannot be tried against. */
export type Pepper = Uint8Array;

export interface KnownKey {
  readonly id: string;
  /** HMAC-SHA256(pepper, key): 32 bytes. */
  readonly digest: Uint8Array;
  readonly tenant: string;
  readonly role: Role;
}

export function mintKey(): Secret {
  let key = KEY_PREFIX;
  for (let i = 0; i < RANDOM_CHARACTERS; i++) key += BASE62[randomInt(BASE62.length)];
  return new Secret(key + checksum(key));
}

function checksum(text: string): string {
  let rest = crc32(text);
  let out = "";
  for (let i = 0; i < CHECKSUM_CHARACTERS; i++) {
    out = BASE62.charAt(rest % BASE62.length) + out;
    rest = Math.floor(rest / BASE62.length);
  }
  return out;
}

/**
 * Whether an operator's key can be used at all.
 * @returns what is wrong with it, as a sentence that does not contain it; undefined: nothing
 */
export function keyProblem(key: Secret): string | undefined {
  const text = key.expose();
  if (text === "") return "a key is empty";
  if (text.length > MAX_KEY_LENGTH) return `a key is longer than ${MAX_KEY_LENGTH} characters`;
  if (!KEY_TEXT.test(text)) return "a key has a character that is not visible ASCII (or a space)";
  if (text.startsWith(KEY_PREFIX) && !checksumHolds(text)) {
    return `a key begins with ${KEY_PREFIX} but its checksum is wrong: probably mistyped or cut`;
  }
  return undefined;
}

function checksumHolds(text: string): boolean {
  const body = text.slice(0, -CHECKSUM_CHARACTERS);
  return (
    text.length === KEY_PREFIX.length + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS &&
    checksum(body) === text.slice(-CHECKSUM_CHARACTERS)
  );
}

export function keyDigest(pepper: Pepper | KeyObject, key: string): Buffer {
  return createHmac("sha256", pepper).update(key, "utf8").digest();
}

/**
 * The key that an operator gave, as it is kept. `index` counts from 1 and makes the id.
 * @throws Error a key that cannot be used; the message names its place, not its text
 */
export function operatorKey(pepper: Pepper, key: Secret, index: number, role: Role): KnownKey {
  const problem = keyProblem(key);
  if (problem !== undefined) throw new Error(`API key ${index}: ${problem}`);
  return { id: `key_${index}`, digest: keyDigest(pepper, key.expose()), tenant: "default", role };
}

/** Every key that may call. Immutable. */
export class KeySet {
  /** As a KeyObject: importing raw bytes anew costs several times the digest itself. */
  readonly #pepper: KeyObject;
  readonly #keys: readonly { readonly digest: Uint8Array; readonly principal: Principal }[];

  constructor(pepper: Pepper, keys: readonly KnownKey[]) {
    this.#pepper = createSecretKey(pepper);
    this.#keys = keys.map(({ id, digest, tenant, role }) => ({
      digest,
      principal: principalOf({ id, tenant, role }),
    }));
  }

  get size(): number {
    return this.#keys.length;
  }

  /** Whose key this is. No early exit: all digests are compared whatever was found. */
  find(token: string): Principal | undefined {
    const digest = keyDigest(this.#pepper, token);
    let found: Principal | undefined;
    for (const known of this.#keys) {
      if (timingSafeEqual(known.digest, digest)) found = known.principal;
    }
    return found;
  }
}
