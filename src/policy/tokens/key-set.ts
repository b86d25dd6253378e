/**
 * The keys of one issuer that may verify: a JWK set (RFC 7517) or a shared secret, judged once when it is loaded.
 *
 * Invariants (Wall: T45): a key verifies with the algorithms of its own kind and curve that the issuer's configuration
 * lists, and with its `alg` alone if it has one, so that no public key is ever a secret; a symmetric key or a private one
 * is never taken from a set; a `kid` that stands twice names nobody; weak keys (short RSA, even or tiny exponents, the
 * ROCA fingerprint) are dropped. What is dropped is said, the rest is used.
 * Callers: key-source.ts, verify.ts.
 */
import { hash } from "node:crypto";
import { type CryptoKey, importJWK, type JWK } from "jose";
import { z } from "zod";
import { stringifyJson } from "#base/json.ts";
import { hasRocaFingerprint } from "./roca.ts";
import type { Algorithm } from "./schema.ts";

export interface TokenKey {
  readonly kid: string | undefined;
  /** Of what the key is, not of what it is called. */
  readonly thumbprint: string;
  readonly algorithms: ReadonlyMap<string, CryptoKey | Uint8Array>;
}

const Text = z.string().max(16_384);
const Member = z.looseObject({
  kty: z.enum(["RSA", "EC", "OKP"]),
  kid: Text.min(1).max(256).optional(),
  use: z.literal("sig").optional(),
  key_ops: z.array(Text).max(16).optional(),
  alg: Text.optional(),
  crv: Text.optional(),
  n: Text.optional(),
  e: Text.optional(),
  x: Text.optional(),
  y: Text.optional(),
  d: z.never().optional(),
  k: z.never().optional(),
});
type Member = z.output<typeof Member>;
const MAX_KEYS = 64;
const Document = z.looseObject({ keys: z.array(z.unknown()).max(MAX_KEYS) });

const OF_RSA = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
/** kty, and curve where there is one → its algorithms. */
const OF_KIND: Readonly<Record<string, readonly string[]>> = {
  RSA: OF_RSA,
  "EC P-256": ["ES256"],
  "EC P-384": ["ES384"],
  "EC P-521": ["ES512"],
  "OKP Ed25519": ["EdDSA", "Ed25519"],
};
const RSA_BITS = { min: 2048, max: 8192 };

/** Immutable. */
export class TokenKeys {
  /** Why keys were left out, for the log. */
  readonly dropped: readonly string[];
  readonly #keys: readonly TokenKey[];
  readonly #thumbprints: ReadonlySet<string>;

  constructor(keys: readonly TokenKey[], dropped: readonly string[] = []) {
    this.#keys = keys;
    this.#thumbprints = new Set(keys.map(({ thumbprint }) => thumbprint));
    this.dropped = dropped;
  }

  get size(): number {
    return this.#keys.length;
  }

  has(thumbprint: string): boolean {
    return this.#thumbprints.has(thumbprint);
  }

  /**
   * The one key that a token can mean: by its `kid`, else among the keys that have none; without `kid`, among all.
   * @returns undefined: none, or not a single one
   */
  find(alg: string, kid: string | undefined): TokenKey | undefined {
    const fit = this.#keys.filter((key) => key.algorithms.has(alg));
    const named = kid === undefined ? fit : fit.filter((key) => key.kid === kid);
    const meant = named.length === 0 ? fit.filter((key) => key.kid === undefined) : named;
    return meant.length === 1 ? meant[0] : undefined;
  }
}

/** A shared secret, for exactly these algorithms. */
export function secretKeys(secret: Uint8Array, algorithms: readonly Algorithm[]): TokenKeys {
  const thumbprint = hash("sha256", secret, "base64url");
  return new TokenKeys([{ kid: undefined, thumbprint, algorithms: new Map(algorithms.map((alg) => [alg, secret])) }]);
}

/**
 * @param document parsed JSON
 * @throws Error what is not a key set; the message is for the log
 */
export async function keysOfSet(document: unknown, algorithms: readonly Algorithm[]): Promise<TokenKeys> {
  const set = Document.safeParse(document);
  if (!set.success) throw new Error(`not a key set with at most ${MAX_KEYS} keys`);
  const dropped: string[] = [];
  const members = set.data.keys.flatMap((raw, i) => {
    const { problem, member } = judged(raw);
    if (problem !== undefined) dropped.push(`key ${i + 1}: ${problem}`);
    return member === undefined ? [] : [member];
  });
  const counts = Map.groupBy(members, ({ kid }) => kid);
  const keys: TokenKey[] = [];
  for (const member of members) {
    if (member.kid !== undefined && (counts.get(member.kid)?.length ?? 0) > 1) dropped.push("a kid that stands twice");
    else {
      const imported = await imports(member, algorithms);
      if (imported === undefined) dropped.push("a key that cannot be used with the algorithms that are allowed");
      else keys.push(imported);
    }
  }
  return new TokenKeys(keys, dropped);
}

function judged(raw: unknown): { readonly problem?: string; readonly member?: Member } {
  const parsed = Member.safeParse(raw);
  if (!parsed.success) return { problem: `not a public signature key (${parsed.error.issues[0]?.path.join(".")})` };
  const member = parsed.data;
  if (member.key_ops !== undefined && !member.key_ops.includes("verify")) return { problem: "not for verifying" };
  const problem = member.kty === "RSA" ? rsaProblem(member) : undefined;
  return problem === undefined ? { member } : { problem };
}

function rsaProblem({ n, e }: Member): string | undefined {
  const modulus = numberOf(n);
  const exponent = numberOf(e);
  if (modulus === undefined || exponent === undefined) return "an RSA key without its numbers";
  const bits = modulus.toString(2).length;
  if (bits < RSA_BITS.min || bits > RSA_BITS.max) return `an RSA key of ${bits} bits`;
  if (exponent < 3n || exponent % 2n === 0n || exponent >= 1n << 32n) return "an RSA key with an odd exponent";
  return hasRocaFingerprint(modulus) ? "an RSA key that can be factored (ROCA)" : undefined;
}

function numberOf(text: string | undefined): bigint | undefined {
  if (text === undefined || !/^[A-Za-z0-9_-]+$/.test(text)) return undefined;
  return BigInt(`0x${Buffer.from(text, "base64url").toString("hex") || "0"}`);
}

/** For every algorithm that the key may serve; undefined: for none. */
async function imports(member: Member, allowed: readonly Algorithm[]): Promise<TokenKey | undefined> {
  const kind = member.kty === "RSA" ? member.kty : `${member.kty} ${member.crv}`;
  const fit = (OF_KIND[kind] ?? []).filter((alg) => allowed.includes(alg as Algorithm) && servesAs(member.alg, alg));
  const { kty, crv, n, e, x, y } = member;
  // What matters of a key and nothing else of its document.
  const material = { kty, crv, n, e, x, y } as JWK;
  const algorithms = new Map<string, CryptoKey | Uint8Array>();
  try {
    for (const alg of fit) algorithms.set(alg, await importJWK(material, alg));
  } catch {
    return undefined;
  }
  if (algorithms.size === 0) return undefined;
  return { kid: member.kid, thumbprint: hash("sha256", stringifyJson(material), "base64url"), algorithms };
}

/** EdDSA over Ed25519 has two names. */
function servesAs(own: string | undefined, alg: string): boolean {
  return own === undefined || own === alg || [own, alg].every((name) => name === "EdDSA" || name === "Ed25519");
}
