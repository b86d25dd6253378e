import assert from "node:assert/strict";
import { createHmac, createPublicKey } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { Fault } from "#core/fault.ts";
import { base64url, signed, signingKey, token } from "#test/fixtures/issuer.ts";
import { until } from "#test/harness.ts";
import { type Bench, bench, ISSUER } from "./_fixture.ts";
import { TokensSection } from "./schema.ts";
import { Tokens } from "./verify.ts";

/** The answer is the same for all; the reason is in the detail. */
async function refuses(made: Bench, text: string, reason: RegExp): Promise<void> {
  await assert.rejects(
    async () => made.tokens.verify(text),
    (error) => {
      assert.ok(error instanceof Fault, String(error));
      assert.equal(error.kind, "unauthenticated");
      assert.equal(error.message, "Unauthorized");
      assert.match(error.detail ?? "", reason);
      return true;
    },
    reason.source,
  );
}

/** Another signature, as canonical as the good one. */
function altered(text: string): string {
  return text.slice(0, -5) + (text.at(-5) === "A" ? "B" : "A") + text.slice(-4);
}

const seconds = (made: Bench): number => Math.floor(made.now / 1000);

test("a good token is a principal of its own", async () => {
  const made = await bench();
  const principal = await made.tokens.verify(made.token());
  assert.match(principal.id, /^tok_[0-9a-f]{32}$/);
  const { id: _, scopes, ruledBy, ...rest } = principal;
  assert.match(ruledBy ?? "", /^[0-9a-f]{64}$/);
  assert.deepEqual(rest, { kind: "token", tenant: "acme", role: "user", reach: {}, limits: {}, caps: {} });
  assert.ok(scopes.has("inference") && !scopes.has("ops"));
  const again = await made.tokens.verify(made.token({ jti: "another", aud: ["x", "castellan"] }));
  assert.equal(again.id, principal.id, "the same subject");
  const other = await made.tokens.verify(made.token({ sub: "user-2" }));
  assert.notEqual(other.id, principal.id);
  assert.ok(!other.id.includes("user"));
});

test("every algorithm family, with the kind of key that it has", async () => {
  for (const alg of ["RS256", "ES256", "EdDSA"] as const) {
    const made = await bench({ key: signingKey(alg), issuer: { algorithms: ["RS256", "ES256", "EdDSA"] } });
    assert.equal((await made.tokens.verify(made.token())).kind, "token", alg);
    await refuses(made, altered(made.token()), /ERR_JWS_SIGNATURE_VERIFICATION_FAILED/);
  }
});

test("claims: missing, wrong, over, not yet", async () => {
  const made = await bench({ issuer: { requiredClaims: ["azp"], maxAgeSeconds: 3600, clockToleranceSeconds: 5 } });
  const now = seconds(made);
  const good = { azp: "app" };
  assert.ok(await made.tokens.verify(made.token(good)));
  assert.ok(await made.tokens.verify(made.token({ ...good, exp: now - 3, jti: "1" })), "inside the tolerance");
  assert.ok(await made.tokens.verify(made.token({ ...good, nbf: now + 4, iat: now + 4 })));
  const cases: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [{ ...good, iss: "https://login.example.com/realms/b" }, /issuer/],
    [{ ...good, iss: `${ISSUER}/` }, /issuer/],
    [{ ...good, iss: undefined }, /issuer/],
    [{ ...good, iss: [ISSUER] }, /issuer/],
    [{ ...good, iss: "__proto__" }, /issuer/],
    [{ ...good, aud: "other" }, /aud is check_failed/],
    [{ ...good, aud: ["other", "castellan2"] }, /aud is check_failed/],
    [{ ...good, aud: undefined }, /aud is missing/],
    [{ ...good, aud: { castellan: true } }, /aud is check_failed/],
    [{ ...good, aud: "Castellan" }, /aud is check_failed/],
    [{ ...good, exp: undefined }, /exp is missing/],
    [{ ...good, exp: String(now + 600) }, /exp is invalid/],
    [{ ...good, exp: null }, /exp is invalid/],
    [{ ...good, exp: now - 6 }, /exp says that it is over/],
    [{ ...good, exp: 0 }, /exp says that it is over/],
    [{ ...good, nbf: now + 60 }, /nbf is check_failed/],
    [{ ...good, nbf: "soon" }, /nbf is invalid/],
    [{ ...good, iat: undefined }, /iat is missing/],
    [{ ...good, iat: now + 60 }, /iat is check_failed/],
    [{ ...good, iat: now - 3700, exp: now + 100_000 }, /iat says that it is over/],
    [{ ...good, sub: undefined }, /sub is missing/],
    [{ ...good, sub: "" }, /sub is no text/],
    [{ ...good, sub: 7 }, /sub is no text/],
    [{ ...good, sub: "x".repeat(1025) }, /sub is no text/],
    [{}, /azp is missing/],
  ];
  for (const [claims, reason] of cases) await refuses(made, made.token(claims), reason);
});

test("headers: algorithm, type, and everything that brings or names a key", async () => {
  const made = await bench();
  const attacker = signingKey();
  const cases: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [{ alg: "none" }, /algorithm/],
    [{ alg: "None" }, /algorithm/],
    [{ alg: "HS256" }, /algorithm/],
    [{ alg: "RS256" }, /algorithm/],
    [{ alg: "ES384" }, /algorithm/],
    [{ alg: "es256" }, /algorithm/],
    [{ alg: "" }, /alg is no short text/],
    [{ alg: ["ES256"] }, /alg is no short text/],
    [{ alg: undefined }, /no alg/],
    [{ typ: undefined }, /typ/],
    [{ typ: "logout+jwt" }, /typ/],
    [{ typ: "dpop+jwt" }, /typ/],
    [{ typ: 1 }, /typ is no short text/],
    [{ kid: 1 }, /kid is no short text/],
    [{ kid: "x".repeat(257) }, /kid is no short text/],
    [{ kid: "../../../dev/null" }, /key is not one/],
    [{ kid: "' or 1=1 --" }, /key is not one/],
    [{ kid: null }, /kid is no short text/],
    [{ jwk: attacker.jwk }, /header has jwk/],
    [{ jku: "https://login.example.com/keys" }, /header has jku/],
    [{ x5u: "https://login.example.com/cert" }, /header has x5u/],
    [{ x5c: ["MIIB"] }, /header has x5c/],
    [{ crit: ["exp"] }, /header has crit/],
    [{ crit: [] }, /header has crit/],
    [{ b64: false, crit: ["b64"] }, /header has/],
    [{ b64: true }, /header has b64/],
    [{ zip: "DEF" }, /header has zip/],
  ];
  for (const [header, reason] of cases) {
    await refuses(made, made.token({}, header), reason);
    await refuses(made, made.token({}, header, attacker), reason);
  }
  for (const typ of ["JWT", "jwt", "application/at+jwt", "AT+JWT"])
    assert.ok(await made.tokens.verify(made.token({ jti: typ }, { typ })), typ);
  assert.ok(await made.tokens.verify(made.token({}, { x5t: "abc", cty: "x" })), "hints that name no key are let be");
  await refuses(made, made.token({}, { kid: made.key.kid }, attacker), /SIGNATURE/);
  assert.equal(made.asked.filter((url) => !url.endsWith("/keys")).length, 0, "nothing that a token named was asked");
});

test("unsigned, and signed with the public key as a secret", async () => {
  const made = await bench({ key: signingKey("RS256"), issuer: { algorithms: ["RS256"] } });
  const [head = "", body = ""] = made.token().split(".");
  const none = base64url({ alg: "none", typ: "at+jwt" });
  await refuses(made, `${none}.${body}.`, /canonical/);
  await refuses(made, `${none}.${body}.AAAA`, /algorithm/);
  await refuses(made, `${head}.${body}.`, /canonical/);
  const publicPem = createPublicKey(made.key.privateKey).export({ type: "spki", format: "pem" });
  const input = `${base64url({ alg: "HS256", typ: "at+jwt", kid: made.key.kid })}.${body}`;
  for (const secret of [publicPem, JSON.stringify(made.key.jwk)])
    await refuses(made, `${input}.${createHmac("sha256", secret).update(input).digest("base64url")}`, /algorithm/);
});

test("one spelling: no padding, spaces, stray bits, other alphabets, more or fewer parts", async () => {
  const made = await bench();
  const good = made.token({ pad: "x" });
  const [head = "", body = "", signature = ""] = good.split(".");
  for (const part of [0, 1, 2]) {
    const parts = [head, body, signature];
    const text = parts[part] ?? "";
    const spell = (other: string): string => parts.map((each, i) => (i === part ? other : each)).join(".");
    for (const other of [
      `${text}=`,
      `${text}==`,
      ` ${text}`,
      `${text} `,
      `${text}\n`,
      `${text.slice(0, 4)}\r\n${text.slice(4)}`,
      `${text}+`,
      `${text}/`,
      `${text}A`.slice(0, Math.ceil(text.length / 4) * 4 + 1),
      `${text.slice(0, 5)}%41${text.slice(5)}`,
      `${text}ä`,
      `${text}\0`,
      "",
      "A",
    ])
      await refuses(made, spell(other), /canonical|no JSON|not an object|SIGNATURE/);
  }
  // 64 signature bytes leave four bits of the last character unused: each of them is another spelling.
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const last = alphabet.indexOf(signature.at(-1) ?? "");
  for (let bits = 1; bits < 16; bits++)
    await refuses(made, `${head}.${body}.${signature.slice(0, -1)}${alphabet[last ^ bits]}`, /canonical/);
  await refuses(made, `${head}.${body}`, /three parts/);
  await refuses(made, `${good}.`, /three parts/);
  await refuses(made, `${good}.${signature}.${signature}`, /three parts/);
  assert.ok(await made.tokens.verify(good));
});

test("JSON that two readers understand differently is refused before the signature is looked at", async () => {
  const made = await bench();
  const { key } = made;
  const claims = JSON.stringify({
    iss: ISSUER,
    aud: "castellan",
    sub: "u",
    iat: seconds(made),
    exp: seconds(made) + 60,
  });
  const header = JSON.stringify({ alg: "ES256", kid: key.kid, typ: "JWT" });
  assert.ok(await made.tokens.verify(signed(key, header, claims)));
  for (const bad of [
    claims.replace('"sub":"u"', '"sub":"u","sub":"admin"'),
    claims.replace('"sub":"u"', '"sub":"u","\\u0073ub":"admin"'),
    claims.replace('"sub":"u"', '"sub":"u","groups":{"a":1,"a":2}'),
    claims.replace('"sub":"u"', '"sub":"u","__proto__":{"role":"admin"}'),
    claims.replace('"sub":"u"', '"sub":"\\ud800"'),
    claims.replace(/"exp":\d+/, '"exp":1e999'),
    `${claims} x`,
    `\ufeff${claims}`,
    `[${claims}]`,
    "null",
    '"text"',
    "",
    "{",
    `{"a":${"[".repeat(20)}${"]".repeat(20)},${claims.slice(1)}`,
  ])
    await refuses(made, signed(key, header, bad), bad === "" ? /canonical/ : /claims/);
  for (const bad of [
    header.replace('"alg":"ES256"', '"alg":"none","alg":"ES256"'),
    header.replace('"alg":"ES256"', '"alg":"ES256","al\\u0067":"none"'),
    `[${header}]`,
    "null",
  ])
    await refuses(made, signed(key, bad, claims), /header/);
  const invalid = Buffer.concat([
    Buffer.from(claims.slice(0, -1)),
    Buffer.from(',"x":"'),
    Buffer.from([0xff]),
    Buffer.from('"}'),
  ]);
  await refuses(made, signed(key, header, invalid), /not valid UTF-8/);
});

test("whatever stands in a token, it is nobody and no bug", async () => {
  const made = await bench();
  const json = fc.json({ maxDepth: 3 });
  await fc.assert(
    fc.asyncProperty(json, json, fc.uint8Array({ minLength: 1, maxLength: 80 }), async (header, claims, signature) => {
      await refuses(made, `${base64url(header)}.${base64url(claims)}.${base64url(signature)}`, /^token: /);
    }),
    { numRuns: 300 },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.dictionary(fc.string(), fc.jsonValue()),
      async (h, c) => {
        const claims = { ...c, iss: ISSUER };
        const header = { ...h, alg: "ES256", typ: "JWT" };
        await refuses(made, signed(made.key, header, claims), /^token: /);
      },
    ),
    { numRuns: 100 },
  );
});

test("a remembered token costs no key; it ends with the token, and with its key", async () => {
  const made = await bench({ issuer: { clockToleranceSeconds: 0 } });
  const text = made.token({ exp: seconds(made) + 60 });
  const first = await made.tokens.verify(text);
  const second = made.tokens.verify(text);
  assert.equal(second, first, "at once, and the same object");
  await refuses(made, altered(text), /SIGNATURE/);
  made.now += 59_000;
  assert.equal(made.tokens.verify(text), first);
  made.now += 2000;
  await refuses(made, text, /exp says that it is over/);

  const other = made.token();
  await made.tokens.verify(other);
  made.served = [signingKey()];
  made.monotonic += 601_000;
  assert.ok(!(made.tokens.verify(other) instanceof Promise), "the old set is used while the new one is fetched");
  await until("the key is gone", () =>
    Promise.try(() => made.tokens.verify(other)).then(
      () => false,
      () => true,
    ),
  );
  await refuses(made, other, /key is not one/);
});

test("the age limit ends a remembered token, too", async () => {
  const made = await bench({ issuer: { maxAgeSeconds: 100, clockToleranceSeconds: 0 } });
  const text = made.token({ exp: seconds(made) + 10_000 });
  const first = await made.tokens.verify(text);
  made.now += 99_000;
  assert.equal(made.tokens.verify(text), first);
  made.now += 2000;
  await refuses(made, text, /iat says that it is over/);
});

test("what is remembered is bounded; nothing refused is remembered", async () => {
  const made = await bench({ section: { cacheEntries: 2 } });
  const texts = ["1", "2", "3"].map((jti) => made.token({ jti }));
  for (const text of texts) await made.tokens.verify(text);
  const [oldest, ...kept] = texts.map((text) => made.tokens.verify(text));
  assert.ok(oldest instanceof Promise);
  await oldest;
  assert.ok(kept.every((each) => !(each instanceof Promise)));
  const none = await bench({ section: { cacheEntries: 0 } });
  const text = none.token();
  await none.tokens.verify(text);
  assert.ok(none.tokens.verify(text) instanceof Promise);
});

test("rotation: an unknown kid asks once a cooldown, whoever floods", async () => {
  const made = await bench();
  assert.equal(made.asked.length, 1);
  made.monotonic += 31_000;
  const next = signingKey();
  made.served = [made.key, next];
  const found = await Promise.all(
    Array.from({ length: 20 }, (_, i) => made.tokens.verify(made.token({ jti: `${i}` }, { kid: next.kid }, next))),
  );
  assert.equal(new Set(found.map(({ id }) => id)).size, 1);
  assert.equal(made.asked.length, 2, "twenty tokens, one question");
  for (let i = 0; i < 50; i++) await refuses(made, made.token({}, { kid: `made-up-${i}` }), /key is not one/);
  assert.equal(made.asked.length, 2, "inside the cooldown nothing is asked");
  made.monotonic += 31_000;
  await refuses(made, made.token({}, { kid: "made-up" }), /key is not one/);
  assert.equal(made.asked.length, 3);
  assert.ok(await made.tokens.verify(made.token({ jti: "old key" })), "the old key still stands in the set");
});

test("an issuer that is away: its keys are used for a bounded time, then its tokens cannot be checked", async () => {
  const made = await bench({ keys: { keepSeconds: 3600 }, issuer: { maxAgeSeconds: 100_000 } });
  const text = made.token();
  await made.tokens.verify(text);
  made.served = "away";
  made.monotonic += 3_599_000;
  assert.ok(await made.tokens.verify(text));
  assert.ok(await made.tokens.verify(made.token({ jti: "new" })));
  assert.ok(made.logged.some(({ message }) => message === "the keys of an issuer could not be had"));
  made.monotonic += 2000;
  const away = (error: unknown) => error instanceof Fault && error.kind === "policy_unavailable";
  await assert.rejects(async () => made.tokens.verify(text), away);
  await refuses(made, made.token({ iss: "https://elsewhere.example" }), /issuer/);
  made.served = [made.key];
  made.monotonic += 31_000;
  assert.ok(await made.tokens.verify(text), "it is back");
});

test("an issuer that was away at the start is asked when a token comes", async () => {
  const config = TokensSection.parse({
    issuers: [
      {
        issuer: ISSUER,
        audiences: ["castellan"],
        algorithms: ["ES256"],
        keys: { jwks: "https://login.example.com/keys" },
        rules: [{ tenant: "acme", role: "user" }],
      },
    ],
  });
  const key = signingKey();
  let monotonic = 0;
  let away = true;
  const tokens = new Tokens(config, {
    log: () => {},
    monotonic: () => monotonic,
    get: async () => {
      if (away) throw new Error("away");
      return { status: 200, body: Buffer.from(JSON.stringify({ keys: [key.jwk] })) };
    },
  });
  await tokens.start();
  await assert.rejects(async () => tokens.verify(token(key, ISSUER)), { kind: "policy_unavailable" });
  away = false;
  await assert.rejects(async () => tokens.verify(token(key, ISSUER)), { kind: "policy_unavailable" });
  monotonic += 30_001;
  assert.equal((await tokens.verify(token(key, ISSUER))).tenant, "acme");
});

test("a valid token without a place here is 403, and says so to its holder and the log", async () => {
  const made = await bench({ rules: [{ when: [{ claim: "groups", contains: "llm" }], tenant: "acme", role: "user" }] });
  await assert.rejects(
    async () => made.tokens.verify(made.token({ groups: ["sales"] })),
    (error) =>
      error instanceof Fault &&
      error.kind === "forbidden" &&
      /no rule/.test(error.message) &&
      /^token of tok_[0-9a-f]{32}: no rule/.test(error.detail ?? ""),
  );
  assert.equal((await made.tokens.verify(made.token({ groups: ["sales", "llm"] }))).tenant, "acme");
});

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "castellan-tokens-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("a shared secret: only for HS*, long enough, private; a key set never holds one", async (t) => {
  const file = join(scratch(t), "secret");
  const secret = "s".repeat(32);
  writeFileSync(file, `${secret}\n`, { mode: 0o600 });
  const hs = { keys: { secretFile: file }, algorithms: ["HS256"] };
  const made = await bench({ issuer: hs });
  const sign = (by: string, alg = "HS256"): string => {
    const [, body] = made.token().split(".");
    const input = `${base64url({ alg, typ: "JWT", kid: "any" })}.${body}`;
    return `${input}.${createHmac("sha256", by).update(input).digest("base64url")}`;
  };
  assert.equal((await made.tokens.verify(sign(secret))).tenant, "acme");
  await refuses(made, sign(`${secret}\n`), /SIGNATURE/);
  await refuses(made, sign(secret, "HS512"), /algorithm/);
  await refuses(made, made.token(), /algorithm/);
  await assert.rejects(bench({ issuer: { ...hs, algorithms: ["HS256", "ES256"] } }), /HS\* algorithms go with/);
  await assert.rejects(bench({ issuer: { algorithms: ["HS256"] } }), /HS\* algorithms go with/);
  await assert.rejects(bench({ issuer: { ...hs, algorithms: ["HS512"] } }), /fewer than the 64 bytes/);
  chmodSync(file, 0o640);
  await assert.rejects(bench({ issuer: hs }), /read or written by others/);
  await assert.rejects(bench({ issuer: { ...hs, keys: { secretFile: `${file}x` } } }), /cannot be read \(ENOENT\)/);
});

test("a key set in a file: read at the start, again for a new kid; refused when others can write it", async (t) => {
  const file = join(scratch(t), "jwks.json");
  const first = signingKey();
  const next = signingKey();
  const write = (text: string): void => writeFileSync(file, text, { mode: 0o644 });
  write(JSON.stringify({ keys: [first.jwk] }));
  const issuer = { keys: { jwksFile: file } };
  const made = await bench({ issuer });
  assert.ok(await made.tokens.verify(made.token({}, {}, first)));
  write(JSON.stringify({ keys: [first.jwk, next.jwk] }));
  made.monotonic += 31_000;
  assert.ok(await made.tokens.verify(made.token({}, {}, next)));
  assert.deepEqual(made.asked, []);
  for (const bad of [
    "",
    "{",
    "[]",
    '{"keys":{}}',
    '{"keys":[]}',
    `{"keys":[${JSON.stringify(first.jwk)}],"keys":[]}`,
  ]) {
    write(bad);
    await assert.rejects(bench({ issuer }), Error, bad);
  }
  write(JSON.stringify({ keys: [first.jwk] }));
  chmodSync(file, 0o666);
  await assert.rejects(bench({ issuer }), /written by others/);
});
