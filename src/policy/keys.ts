/**
 * API keys: how they look, how they are kept, how a presented one is found.
 *
 * Invariants: a key is kept as HMAC-SHA256(pepper, key) and never as itself; a look-up computes that digest and probes one
 * table by it, or finds its row by another digest of the whole key (_digest-cache.ts), so its duration says neither which
 * key nor how near, whatever their number (Wall: T01). Whatever is wrong with a key the caller reads the same; the log learns
 * what.
 *
 * Minted form: `cst_` + 40 base62 characters (238 bits) + 6 base62 characters of the CRC-32 of what stands before.
 * The checksum is for secret scanners and mistyped keys; it proves nothing.
 */
import { createHmac, createSecretKey, type KeyObject, randomInt } from "node:crypto";
import { crc32 } from "node:zlib";
import { Recent } from "#base/recent.ts";
import { Secret } from "#base/secret.ts";
import { Fault } from "#core/fault.ts";
import { OPERATOR_TENANT, type Principal, type Role } from "#core/principal.ts";
import { DigestCache, type KeptName } from "./_digest-cache.ts";
import { type KeyState, KeyTable } from "./_key-table.ts";
import { type PrincipalSpec, principalOf } from "./roles.ts";

export const KEY_PREFIX = "cst_";
const RANDOM_CHARACTERS = 40;
const CHECKSUM_CHARACTERS = 6;
export const ID_PREFIX = "key_";
const ID_CHARACTERS = 16;
const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const KEY_LENGTH = KEY_PREFIX.length + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS;

/** What a header can carry and nobody can misread: visible ASCII, no spaces. */
const KEY_TEXT = /^[\x21-\x7e]+$/;
/** Characters of the longest key that is read. */
export const MAX_KEY_LENGTH = 4096;

/** 32 bytes; a state directory has its own, so that a stolen key file alone cannot be tried against. */
export type Pepper = Uint8Array;

/** What a key opens, and when. */
export interface KnownKey extends Omit<PrincipalSpec, "kind"> {
  /** HMAC-SHA256(pepper, key): 32 bytes. */
  readonly digest: Uint8Array;
}

/** A key whose rights are made already: many keys share one `profile`. */
export interface KeyEntry {
  readonly id: string;
  readonly digest: Uint8Array;
  readonly profile: Profile;
  /** Unix milliseconds. */
  readonly notBefore?: number;
  readonly expiresAt?: number;
  readonly state?: KeyState;
  /** The store keeps it, and when it was last used. */
  readonly stored?: boolean;
}

/** A principal but for its id and end. */
export type Profile = Omit<Principal, "id" | "until">;

export function mintKey(): Secret {
  const key = KEY_PREFIX + randomText(RANDOM_CHARACTERS);
  return new Secret(key + checksum(key));
}

/** An id for a new key: random, and no part of the key. */
export function mintKeyId(): string {
  return ID_PREFIX + randomText(ID_CHARACTERS);
}

function randomText(length: number): string {
  let text = "";
  for (let i = 0; i < length; i++) text += BASE62[randomInt(BASE62.length)];
  return text;
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
  if (isMistyped(text)) {
    return `a key begins with ${KEY_PREFIX} but its checksum is wrong: probably mistyped or cut`;
  }
  return undefined;
}

/** It has our prefix and cannot be a key of ours. Needs no look-up, and says nothing about any key that exists. */
function isMistyped(text: string): boolean {
  if (!text.startsWith(KEY_PREFIX)) return false;
  const body = text.slice(0, -CHECKSUM_CHARACTERS);
  return text.length !== KEY_LENGTH || checksum(body) !== text.slice(-CHECKSUM_CHARACTERS);
}

export function keyDigest(pepper: Pepper | KeyObject, key: string): Buffer {
  return createHmac("sha256", pepper).update(key, "utf8").digest();
}

/**
 * The key that an operator gave, as it is kept. `index` counts from 1, for the message.
 * @throws Error a key that cannot be used; the message names its place, not its text
 */
export function operatorKey(pepper: Pepper, key: Secret, index: number, role: Role): KnownKey {
  const problem = keyProblem(key);
  if (problem !== undefined) throw new Error(`API key ${index}: ${problem}`);
  const text = key.expose();
  // The same key has the same id at every start, and the id does not help to find the key.
  const id =
    ID_PREFIX + createHmac("sha256", pepper).update("castellan key id\0").update(text).digest("hex").slice(0, 16);
  return { id, digest: keyDigest(pepper, text), tenant: OPERATOR_TENANT, role };
}

/** Principals that are kept made. */
const MADE = 16_384;

/** Every key that may call. */
export class KeySet {
  /** As a KeyObject: importing raw bytes anew costs several times the digest itself. */
  readonly #pepper: KeyObject;
  readonly #now: () => number;
  readonly #table = new KeyTable<Profile>();
  readonly #made = new Recent<number, Principal>(MADE);
  readonly #digests = new DigestCache();
  #used = new Map<string, number>();

  constructor(pepper: Pepper, keys: readonly KnownKey[] = [], now: () => number = Date.now) {
    this.#pepper = createSecretKey(pepper);
    this.#now = now;
    for (const known of keys) this.put({ id: known.id, digest: known.digest, profile: principalOf(known) });
  }

  /** Ways to open a key, those that no longer do among them. */
  get size(): number {
    return this.#table.size;
  }

  get bytes(): number {
    return this.#table.bytes;
  }

  /** Adds a key, or changes what is known of the same digest. */
  put({ id, digest, profile, notBefore = 0, expiresAt = Infinity, state = "live", stored = false }: KeyEntry): void {
    this.#made.delete(this.#table.put(digest, { id, profile, notBefore, expiresAt, state, stored }));
  }

  reserve(keys: number): void {
    this.#table.reserve(keys);
  }

  /** Whose key this is. @param kept of the same key. @throws Fault unauthenticated, with the reason for the log */
  find(token: string, kept?: KeptName): Principal {
    const row = this.#rowOf(token, kept);
    const now = this.#now();
    const problem = this.#problem(row, now);
    if (problem !== undefined) throw unauthenticated(`${this.#table.id(row)} ${problem}`);
    const principal = this.#made.get(row) ?? this.#make(row);
    if (this.#table.noteUse(row, now)) this.#used.set(principal.id, now);
    return principal;
  }

  #rowOf(token: string, kept: KeptName | undefined): number {
    const name = this.#digests.nameOf(token, kept);
    const known = this.#digests.rowOf(name);
    if (known !== undefined) return known;
    if (isMistyped(token)) throw unauthenticated("a mistyped key: its checksum is wrong");
    const row = this.#table.find(keyDigest(this.#pepper, token));
    if (row < 0) throw unauthenticated("an unknown key");
    this.#digests.keep(name, row);
    return row;
  }

  /** Which stored keys were used since the last call, and when. */
  takeUsed(): ReadonlyMap<string, number> {
    const used = this.#used;
    this.#used = new Map();
    return used;
  }

  #problem(row: number, now: number): string | undefined {
    const state = this.#table.state(row);
    if (state !== "live") return `is ${state}`;
    const times = this.#table.times(row, now);
    if (times === "now") return undefined;
    return times === "early" ? "is not valid yet" : "has expired, or was rotated away";
  }

  #make(row: number): Principal {
    const until = this.#table.expiresAt(row);
    const end = until === Infinity ? {} : { until };
    const principal = Object.freeze({ ...this.#table.profile(row), id: this.#table.id(row), ...end });
    this.#made.set(row, principal);
    return principal;
  }
}

/** The 401, the same for every cause. */
export function unauthenticated(detail: string): Fault {
  return new Fault("unauthenticated", "Unauthorized", { detail });
}
