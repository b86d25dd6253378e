/**
 * Project Wycheproof's JOSE vectors against our reading of a token, our choice of a key, and jose's signature check: all
 * of verify.ts but the claims, which the vectors do not have ("foo" is a payload there).
 *
 * Wherever our answer is not the vector's it stands below with the reason; a difference that is not listed fails, and so
 * does a listed one that is none any more.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { compactVerify } from "jose";
import { corpus } from "#test/corpora.ts";
import { readCompact } from "./compact.ts";
import { keysOfSet, secretKeys, type TokenKeys } from "./key-set.ts";
import { type Algorithm, ASYMMETRIC, SYMMETRIC } from "./schema.ts";

type Jwk = Record<string, unknown>;

interface Group {
  readonly type: string;
  readonly comment: string;
  readonly private: Jwk;
  readonly public?: Jwk;
  readonly tests: readonly Vector[];
}

interface Vector {
  readonly tcId: number;
  readonly comment: string;
  readonly jws?: unknown;
  readonly result: "valid" | "invalid";
}

interface File {
  readonly name: string;
  /** Counts of the vectors, so that a shorter file is noticed. */
  readonly valid: number;
  readonly invalid: number;
  /** Valid there, refused here. */
  readonly stricter: readonly (readonly [why: string, ...ids: number[]])[];
  /** Invalid there and accepted here, since it is to the letter what a valid vector is. */
  readonly sameAs: Readonly<Record<number, number>>;
}

const IN_SET = "a symmetric key in a key set; ours come from a secret's file and never from a set";
const FILES: readonly File[] = [
  {
    name: "json_web_signature_test",
    valid: 46,
    invalid: 355,
    stricter: [
      ["no payload, so no claims", 259, 264, 268, 272, 320, 325],
      ["signed with PS384 by a key that says PS256", 346, 350],
      ["a key whose alg, ES521, is no algorithm", 347, 351],
      ["a ? inside base64url, which a lenient decoder drops", 372, 373],
    ],
    // Their padding was lost on the way into the file.
    sameAs: { 367: 357, 370: 357 },
  },
  { name: "json_web_crypto_test", valid: 4, invalid: 45, stricter: [[IN_SET, 48]], sameAs: {} },
  { name: "json_web_key_test", valid: 5, invalid: 21, stricter: [[IN_SET, 2, 13, 14, 15]], sameAs: {} },
];

/** A set without symmetric keys as an issuer's; a single `oct` key as a shared secret; private members never. */
async function keysOf(group: Group): Promise<TokenKeys> {
  const given = group.public ?? group.private;
  if (given["kty"] === "oct") {
    const alg = String(given["alg"]);
    const algorithms = SYMMETRIC.filter((each) => each === alg) as readonly Algorithm[];
    return secretKeys(Buffer.from(String(given["k"]), "base64url"), algorithms);
  }
  const set = Array.isArray(given["keys"]) ? given : { keys: [given] };
  return keysOfSet(set, ASYMMETRIC);
}

async function accepts(keys: TokenKeys, jws: unknown): Promise<boolean> {
  if (typeof jws !== "string") return false;
  try {
    const { header } = readCompact(jws);
    const key = keys.find(header.alg, header.kid)?.algorithms.get(header.alg);
    if (key === undefined) return false;
    await compactVerify(jws, key, { algorithms: [header.alg] });
    return true;
  } catch {
    return false;
  }
}

for (const { name, valid, invalid, stricter, sameAs } of FILES) {
  test(`${name}: what must be refused is refused`, async (t) => {
    const folder = corpus(t, "wycheproof-jose");
    if (folder === undefined) return;
    const text = readFileSync(join(folder, "testvectors_v1", `${name}.json`), "utf8");
    const { testGroups } = JSON.parse(text) as { testGroups: Group[] };
    const found = { valid: 0, invalid: 0, refusedValid: [] as number[], acceptedInvalid: [] as number[] };
    const texts = new Map<number, unknown>();
    for (const group of testGroups) {
      const keys = await keysOf(group);
      for (const { tcId, jws, result } of group.tests.filter((vector) => vector.jws !== undefined)) {
        texts.set(tcId, jws);
        found[result]++;
        const accepted = await accepts(keys, jws);
        if (!accepted && result === "valid") found.refusedValid.push(tcId);
        if (accepted && result === "invalid") found.acceptedInvalid.push(tcId);
      }
    }
    t.diagnostic(
      `${name}: ${valid - found.refusedValid.length} of ${valid} valid accepted, ` +
        `${invalid - found.acceptedInvalid.length} of ${invalid} invalid refused`,
    );
    const expected = stricter.flatMap(([, ...ids]) => ids).sort((a, b) => a - b);
    const same = Object.entries(sameAs).map(([id, twin]) => [Number(id), twin] as const);
    assert.deepEqual(found, { valid, invalid, refusedValid: expected, acceptedInvalid: same.map(([id]) => id) });
    for (const [id, twin] of same) assert.equal(texts.get(id), texts.get(twin));
  });
}
