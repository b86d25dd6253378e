import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { signingKey } from "#test/fixtures/issuer.ts";
import { keysOfSet, secretKeys } from "./key-set.ts";
import { type Algorithm, ASYMMETRIC } from "./schema.ts";

const ALL: readonly Algorithm[] = ASYMMETRIC;
const ec = signingKey("ES256", "ec");
const rsa = signingKey("RS256", "rsa");
const ed = signingKey("EdDSA", "ed");
const without = (jwk: Record<string, unknown>, ...names: string[]) =>
  Object.fromEntries(Object.entries(jwk).filter(([name]) => !names.includes(name)));

async function usable(jwk: unknown, algorithms = ALL): Promise<string[]> {
  const keys = await keysOfSet({ keys: [jwk] }, algorithms);
  assert.equal(keys.dropped.length, keys.size === 0 ? 1 : 0, keys.dropped.join());
  return ASYMMETRIC.filter((alg) => keys.find(alg, undefined) !== undefined);
}

test("a key serves the algorithms of its kind, or its own alone, as far as they are allowed", async () => {
  assert.deepEqual(await usable(ec.jwk), ["ES256"]);
  assert.deepEqual(await usable(rsa.jwk), ["RS256"]);
  assert.deepEqual(await usable(without(rsa.jwk, "alg")), ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]);
  assert.deepEqual(await usable(without(rsa.jwk, "alg"), ["PS256", "ES256"]), ["PS256"]);
  assert.deepEqual(await usable(ed.jwk), ["EdDSA", "Ed25519"]);
  assert.deepEqual(await usable(without(ec.jwk, "use")), ["ES256"]);
  assert.deepEqual(await usable({ ...ec.jwk, key_ops: ["verify"], x5c: ["junk"], extra: { a: 1 } }), ["ES256"]);
});

test("what cannot or must not verify is left out, and said", async () => {
  const pair = (type: "rsa", options: { modulusLength: number; publicExponent?: number }) =>
    generateKeyPairSync(type, options).publicKey.export({ format: "jwk" });
  const secp256k1 = generateKeyPairSync("ec", { namedCurve: "secp256k1" }).publicKey.export({ format: "jwk" });
  const cases: readonly unknown[] = [
    null,
    "text",
    [],
    {},
    { kty: "oct", k: "c2VjcmV0", alg: "HS256" },
    { ...ec.jwk, d: "AAAA" },
    { ...ec.jwk, k: "AAAA" },
    { ...ec.jwk, use: "enc" },
    { ...ec.jwk, key_ops: ["encrypt"] },
    { ...ec.jwk, key_ops: [] },
    { ...ec.jwk, alg: "RS256" },
    { ...ec.jwk, alg: "HS256" },
    { ...ec.jwk, alg: "none" },
    { ...ec.jwk, crv: "P-384" },
    { ...ec.jwk, kty: "RSA" },
    { ...ec.jwk, y: ec.jwk["x"] },
    { ...ec.jwk, x: 5 },
    { ...ec.jwk, kid: 5 },
    { ...ed.jwk, crv: "X25519" },
    { ...ed.jwk, x: "AAAA" },
    secp256k1,
    pair("rsa", { modulusLength: 1024 }),
    { ...rsa.jwk, e: "AQ" },
    { ...rsa.jwk, e: "AA" },
    { ...rsa.jwk, e: "BA" },
    { ...rsa.jwk, e: "AQAAAAAB" },
    { ...rsa.jwk, n: "" },
    { ...rsa.jwk, n: "!" },
    without(rsa.jwk, "e"),
  ];
  for (const jwk of cases) assert.deepEqual(await usable(jwk), [], JSON.stringify(jwk)?.slice(0, 120));
});

test("the rest of a set is used; a kid that stands twice names nobody", async () => {
  const twin = { ...signingKey().jwk, kid: "ec" };
  const keys = await keysOfSet({ keys: [{ kty: "oct", k: "AA" }, ec.jwk, twin, rsa.jwk] }, ALL);
  assert.equal(keys.size, 1);
  assert.equal(keys.dropped.length, 3);
  assert.equal(keys.find("ES256", "ec"), undefined);
  assert.ok(keys.find("RS256", "rsa"));
});

test("finding: by kid, else what has none; one or nobody", async () => {
  const other = signingKey();
  const nameless = without(signingKey().jwk, "kid");
  const keys = await keysOfSet({ keys: [ec.jwk, other.jwk, nameless] }, ALL);
  assert.equal(keys.find("ES256", "ec")?.kid, "ec");
  assert.equal(keys.find("ES256", "unknown")?.kid, undefined);
  assert.equal(keys.find("ES256", undefined), undefined, "three could be meant");
  assert.equal(keys.find("RS256", "ec"), undefined);
  const two = await keysOfSet({ keys: [ec.jwk, rsa.jwk] }, ALL);
  assert.equal(two.find("ES256", undefined)?.kid, "ec");
  assert.equal(two.find("ES256", "unknown"), undefined);
});

test("thumbprints follow the key, not its name", async () => {
  const [a, b, c] = await Promise.all(
    [ec.jwk, { ...ec.jwk, kid: "renamed" }, signingKey().jwk].map((jwk) => keysOfSet({ keys: [jwk] }, ALL)),
  );
  const print = a?.find("ES256", undefined)?.thumbprint ?? "";
  assert.ok(b?.has(print));
  assert.ok(!c?.has(print));
});

test("not a key set at all", async () => {
  for (const document of [null, [], "x", {}, { keys: {} }, { keys: Array(65).fill(ec.jwk) }])
    await assert.rejects(keysOfSet(document, ALL), /not a key set/);
});

test("a secret serves its algorithms only", () => {
  const keys = secretKeys(Buffer.alloc(32), ["HS256"]);
  assert.ok(keys.find("HS256", "any kid"));
  assert.equal(keys.find("HS512", undefined), undefined);
  assert.equal(keys.find("ES256", undefined), undefined);
});
