import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { markLasting } from "#base/headers.ts";
import { Secret } from "#base/secret.ts";
import { Fault } from "#core/fault.ts";
import { UNMETERED } from "#core/metering.ts";
import type { Principal } from "#core/principal.ts";
import { authorize } from "./authorize.ts";
import { createIdentify, identifyBy } from "./identify.ts";
import { type KeyEntry, KeySet, keyDigest, keyProblem, mintKey, operatorKey } from "./keys.ts";
import { NO_PEER } from "./peer.ts";
import { principalOf } from "./roles.ts";

const pepper = randomBytes(32);
const keys = ["alpha-key", "beta-key", "k".repeat(4096)];
const identifyAny = createIdentify(
  new KeySet(
    pepper,
    keys.map((key, i) => ({ ...operatorKey(pepper, new Secret(key), i + 1, "user"), id: `key_${i + 1}` })),
  ),
);

const identify = (headers: string[], dialect: string): Principal => {
  const principal = identifyAny(headers, dialect, NO_PEER);
  assert.ok(!(principal instanceof Promise));
  return principal;
};

const isFault = (kind: string) => (error: unknown) => error instanceof Fault && error.kind === kind;
const refuses = (headers: string[], dialect = "openai"): void =>
  assert.throws(() => identify(headers, dialect), isFault("unauthenticated"), JSON.stringify(headers).slice(0, 80));

test("a known key, in any case of scheme and header name", () => {
  assert.equal(identify(["Authorization", "Bearer alpha-key"], "openai").id, "key_1");
  assert.equal(identify(["authorization", "bearer beta-key"], "openai").id, "key_2");
  assert.equal(identify(["AUTHORIZATION", "BEARER beta-key"], "openai").id, "key_2");
  assert.equal(identify(["Host", "x", "authorization", `Bearer ${keys[2]}`], "openai").id, "key_3");
  assert.equal(identify(["authorization", "Bearer alpha-key"], "openai").tenant, "default");
});

test("everything else is nobody", () => {
  const values = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer  alpha-key",
    "Bearer\talpha-key",
    " Bearer alpha-key",
    "Bearer alpha-key ",
    "Bearer alpha-key,beta-key",
    "Bearer alpha-key alpha-key",
    "alpha-key",
    "Basic YWxwaGEta2V5",
    "Token alpha-key",
    "Bearer Alpha-key",
    "Bearer alpha-ke",
    "Bearer alpha-keyx",
    "Bearer alpha-key\0",
    "Bearer älpha-key",
    "Bearer ａlpha-key",
    "Bearer null",
    "Bearer undefined",
    "Bearer [object Object]",
    `Bearer ${"k".repeat(4097)}`,
    `Bearer ${"x".repeat(100_000)}`,
    "Bearer alpha-key\r\nX: y",
    "Bearer: alpha-key",
    "Bearer=alpha-key",
  ];
  for (const value of values) refuses(["authorization", value]);
  refuses([]);
  refuses(["x-authorization", "Bearer alpha-key"]);
  refuses(["authorization", "Bearer alpha-key", "authorization", "Bearer alpha-key"]);
  refuses(["authorization", "Bearer alpha-key", "Authorization", "Bearer wrong"]);
  refuses(["authorization", "", "authorization", "Bearer alpha-key"]);
  refuses(["proxy-authorization", "Bearer alpha-key"]);
  refuses(["cookie", "authorization=Bearer alpha-key"]);
});

test("x-api-key counts on anthropic routes, and there as the only credential", () => {
  refuses(["x-api-key", "alpha-key"]);
  assert.equal(identify(["X-Api-Key", "alpha-key"], "anthropic").id, "key_1");
  assert.equal(identify(["authorization", "Bearer alpha-key"], "anthropic").id, "key_1");
  assert.equal(identify(["x-api-key", "wrong", "authorization", "Bearer beta-key"], "openai").id, "key_2");
  refuses(["x-api-key", "alpha-key", "x-api-key", "alpha-key"], "anthropic");
  refuses(["x-api-key", "alpha-key", "authorization", "Bearer alpha-key"], "anthropic");
  for (const value of ["", " alpha-key", "Bearer alpha-key", "wrong"]) refuses(["x-api-key", value], "anthropic");
});

test("without a key there is nobody to be", () => {
  const nobody = createIdentify(new KeySet(pepper, []));
  assert.throws(() => nobody(["authorization", "Bearer "], "openai", NO_PEER), isFault("unauthenticated"));
  assert.throws(() => nobody(["authorization", "Bearer x"], "openai", NO_PEER), isFault("unauthenticated"));
});

test("minted keys: prefix, 40 + 6 base62 characters, checksum, all different", () => {
  const minted = Array.from({ length: 200 }, () => mintKey());
  for (const key of minted) {
    assert.match(key.expose(), /^cst_[0-9A-Za-z]{46}$/);
    assert.equal(keyProblem(key), undefined);
  }
  assert.equal(new Set(minted.map((key) => key.expose())).size, 200);
  const text = minted[0]?.expose() ?? "";
  const swapped = text.slice(0, 10) + (text[10] === "a" ? "b" : "a") + text.slice(11);
  for (const wrong of [swapped, text.slice(0, -1), `${text}x`, "cst_", "cst_abc"]) {
    assert.match(keyProblem(new Secret(wrong)) ?? "", /checksum/);
  }
});

test("an operator's key is any visible ASCII; others are refused by place, without being shown", () => {
  for (const good of ["a", "sk-123", "EMPTY", "!~", "k".repeat(4096)])
    assert.equal(keyProblem(new Secret(good)), undefined);
  for (const bad of ["", " ", "a b", "schlüssel", "a\n", "a\0", "k".repeat(4097)]) {
    assert.throws(
      () => operatorKey(pepper, new Secret(bad), 2, "user"),
      (error) =>
        error instanceof Error &&
        /^API key 2: /.test(error.message) &&
        !(bad.length > 1 && error.message.includes(bad)),
    );
  }
});

test("an operator's key has an id of its own that stays, and is no part of its digest", () => {
  const id = (key: string, index = 1): string => operatorKey(pepper, new Secret(key), index, "user").id;
  assert.match(id("a"), /^key_[0-9a-f]{16}$/);
  assert.equal(id("a"), id("a", 7));
  assert.notEqual(id("a"), id("b"));
  assert.notEqual(id("a"), operatorKey(randomBytes(32), new Secret("a"), 1, "user").id);
  assert.ok(!keyDigest(pepper, "a").toString("hex").includes(id("a").slice(4)));
});

test("every cause of a 401 reads the same and is told to the log", () => {
  const cause = (headers: string[], from = NO_PEER): string | undefined => {
    try {
      identifyAny(headers, "openai", from);
    } catch (error) {
      assert.ok(error instanceof Fault && error.kind === "unauthenticated" && error.message === "Unauthorized");
      return error.detail;
    }
    return undefined;
  };
  const minted = mintKey().expose();
  assert.equal(cause([]), "no credential");
  assert.match(cause(["authorization", "Basic x"]) ?? "", /more than one way/);
  assert.equal(cause(["authorization", "Bearer wrong"]), "an unknown key");
  assert.equal(cause(["authorization", `Bearer ${minted}`]), "an unknown key");
  assert.match(cause(["authorization", `Bearer ${minted.slice(0, -1)}`]) ?? "", /mistyped/);
  for (const headers of [
    ["authorization", `Bearer ${minted}x`],
    ["authorization", "Bearer wrong"],
  ])
    assert.ok(!(cause(headers) ?? "").includes(headers[1]?.slice(7) ?? ""), "no part of the credential");
});

test("a principal's networks hold whatever proved it", async () => {
  const bound = principalOf({
    id: "k",
    tenant: "t",
    role: "user",
    reach: { networks: ["10.0.0.0/8", "2001:db8::/32"] },
  });
  const certificate = { fingerprint: "aa", subject: "CN=a", uris: [], notBefore: 0, notAfter: 1 };
  const by = identifyBy({
    keys: () => bound,
    tokens: { maxLength: 100, verify: async () => bound },
    certificates: () => bound,
  });
  const ways = [["authorization", "Bearer k"], ["authorization", "Bearer eyJ9.e.c"], []];
  for (const headers of ways) {
    const from = async (address: string | undefined) => (await by(headers, "openai", { address, certificate })).id;
    for (const address of ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"]) assert.equal(await from(address), "k");
    for (const address of ["11.1.2.3", "::1", "2001:db9::1", undefined])
      await assert.rejects(from(address), isFault("unauthenticated"));
  }
});

test("a digest depends on the pepper and is not the key's plain hash", () => {
  assert.notDeepEqual(keyDigest(pepper, "a"), keyDigest(randomBytes(32), "a"));
  assert.equal(keyDigest(pepper, "a").length, 32);
});

test("authorize gives a frozen grant for the scope, or forbidden", () => {
  const principal = principalOf({ id: "key_1", tenant: "default", role: "user" });
  const grant = authorize(principal, "inference", UNMETERED);
  assert.deepEqual({ ...grant }, { principal, scope: "inference", meter: UNMETERED });
  assert.ok(Object.isFrozen(grant));
  assert.throws(() => authorize(principal, "ops", UNMETERED), isFault("forbidden"));
});

test("a credential goes to one prover by its shape, and to no other after it", async () => {
  const who = (id: string) => principalOf({ id, tenant: "default", role: "user" });
  const asked: string[] = [];
  const find = (kind: string, good: string) => (text: string) => {
    asked.push(kind);
    return text === good ? who(kind) : undefined;
  };
  const token = `eyJhbGciOiJFUzI1NiJ9.${"e".repeat(4200)}.c2ln`;
  const certificate = { fingerprint: "aa", subject: "CN=a", uris: [], notBefore: 0, notAfter: 1 };
  const by = identifyBy({
    keys: find("key", "a.b.c"),
    tokens: { maxLength: 5000, verify: async (text) => find("token", token)(text) },
    certificates: ({ fingerprint }) => find("certificate", "aa")(fingerprint),
  });
  const peer = { address: "127.0.0.1", certificate };
  const idOf = async (headers: string[], from = peer as Parameters<typeof by>[2]) =>
    (await by(headers, "openai", from)).id;
  const nobody = (headers: string[]) =>
    assert.rejects(async () => by(headers, "openai", peer), isFault("unauthenticated"));

  assert.equal(await idOf(["authorization", `Bearer ${token}`]), "token");
  assert.equal(await idOf(["authorization", "Bearer a.b.c"]), "key");
  assert.equal(await idOf([]), "certificate");
  asked.length = 0;
  await nobody(["authorization", "Bearer eyJ9.e.c"]);
  await nobody(["authorization", "Bearer wrong"]);
  await nobody(["authorization", "Bearer eyJ9.e.c.d.e"]);
  assert.deepEqual(asked, ["token", "key", "key"]);
  await nobody(["authorization", "Basic x"]);
  await nobody(["authorization", `Bearer ${"k".repeat(4097)}`]);
  await nobody(["authorization", `Bearer ey.${"e".repeat(5000)}.x`]);
  await nobody(["authorization", `Bearer ${token}`, "authorization", `Bearer ${token}`]);
  assert.equal(asked.length, 3, "what is not read is not asked about");
  await assert.rejects(async () => by([], "openai", NO_PEER), isFault("unauthenticated"));
});

test("of headers that come again only the reading is kept: who may call is asked each time", () => {
  const profile = principalOf({ kind: "key", id: "", tenant: "t", role: "user" });
  const entry = (id: string, key: string): KeyEntry => ({ id, digest: keyDigest(pepper, key), profile });
  const [one, two] = [entry("key_0", "alpha-key"), entry("key_1", "beta-key")];
  const set = new KeySet(pepper);
  set.put(one);
  set.put(two);
  const find = createIdentify(set);
  const lists = ["alpha-key", "beta-key", "gamma-key"].map((key) => ["Host", "x", "Authorization", `Bearer ${key}`]);
  const [alpha, beta, gamma] = lists as [string[], string[], string[]];
  for (const list of lists) markLasting(list);
  for (let i = 0; i < 3; i++) {
    assert.equal((find(alpha, "openai", NO_PEER) as Principal).id, "key_0");
    assert.equal((find(beta, "openai", NO_PEER) as Principal).id, "key_1");
    assert.throws(() => find(gamma, "openai", NO_PEER), isFault("unauthenticated"));
  }
  set.put({ ...one, state: "disabled" });
  assert.throws(() => find(alpha, "openai", NO_PEER), isFault("unauthenticated"));
  assert.equal((find(beta, "openai", NO_PEER) as Principal).id, "key_1");
  set.put(entry("key_2", "gamma-key"));
  assert.equal((find(gamma, "openai", NO_PEER) as Principal).id, "key_2");
});

test("of headers that come again a credential counts in its dialect only, and up to the length that holds now", () => {
  const list = ["x-api-key", "alpha-key"];
  markLasting(list);
  for (let i = 0; i < 2; i++) {
    assert.equal(identify(list, "anthropic").id, "key_1");
    refuses(list, "openai");
  }
  let maxLength = 100_000;
  const tokens = {
    verify: () => principalOf({ kind: "token", id: "t", tenant: "t", role: "user" }),
    get maxLength() {
      return maxLength;
    },
  };
  const find = identifyBy({ keys: () => undefined, tokens });
  const long = ["authorization", `Bearer ey.${"x".repeat(50_000)}.`];
  markLasting(long);
  assert.ok(find(long, "openai", NO_PEER));
  maxLength = 10;
  assert.throws(() => find(long, "openai", NO_PEER), isFault("unauthenticated"));
});
