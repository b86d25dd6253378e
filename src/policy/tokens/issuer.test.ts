/**
 * A verifier against a real issuer over https on loopback: discovery, key set, rotation, and every way to misbehave.
 */
import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { type TestContext, test } from "node:test";
import { Fault } from "#core/fault.ts";
import { signingKey, startIssuer, type TestIssuer, token } from "#test/fixtures/issuer.ts";
import { TokensSection } from "./schema.ts";
import { Tokens } from "./verify.ts";

const DISCOVERY = "/realms/a/.well-known/openid-configuration";
const KEYS = "/realms/a/keys";

interface Rig {
  readonly issuer: TestIssuer;
  readonly tokens: Tokens;
  readonly reasons: string[];
  monotonic: number;
}

/** Started; what could not be had is in `reasons`. */
async function rig(t: TestContext, keys: Record<string, unknown> = {}, behave?: TestIssuer["behave"]): Promise<Rig> {
  const issuer = await startIssuer(t);
  if (behave !== undefined) issuer.behave = behave;
  const config = TokensSection.parse({
    issuers: [
      {
        issuer: issuer.url,
        audiences: ["castellan"],
        algorithms: ["ES256"],
        keys: {
          ...("jwks" in keys ? {} : { discovery: true }),
          loopback: true,
          caFile: issuer.caFile,
          ...keys,
        },
        rules: [{ tenant: "acme", role: "user" }],
      },
    ],
  });
  const reasons: string[] = [];
  const made: Omit<Rig, "tokens"> = { issuer, reasons, monotonic: 0 };
  const tokens = new Tokens(config, {
    log: (_, __, fields = {}) => void reasons.push(String(fields["reason"] ?? fields["dropped"])),
    monotonic: () => bound.monotonic,
  });
  const bound: Rig = Object.assign(made, { tokens });
  await tokens.start();
  return bound;
}

const uncheckable = async ({ tokens, issuer }: Rig): Promise<void> =>
  assert.rejects(async () => tokens.verify(issuer.token()), { kind: "policy_unavailable" });

test("discovery, key set, a token", async (t) => {
  const made = await rig(t);
  assert.equal((await made.tokens.verify(made.issuer.token())).tenant, "acme");
  assert.deepEqual(made.issuer.seen, [DISCOVERY, KEYS]);
  assert.deepEqual(made.reasons, []);
});

test("a key set by its URL, without discovery", async (t) => {
  const issuer = await startIssuer(t);
  const config = TokensSection.parse({
    issuers: [
      {
        issuer: "an issuer without a URL",
        audiences: ["castellan"],
        keys: { jwks: `https://${issuer.host}${KEYS}`, loopback: true, caFile: issuer.caFile },
        rules: [{ tenant: "acme", role: "user" }],
      },
    ],
  });
  const tokens = new Tokens(config, { log: () => {} });
  await tokens.start();
  const [key = signingKey()] = issuer.keys;
  assert.equal((await tokens.verify(token(key, "an issuer without a URL"))).tenant, "acme");
  assert.deepEqual(issuer.seen, [KEYS]);
});

test("rotation: the new key is fetched when a token names it, the old one ends with the set", async (t) => {
  const made = await rig(t);
  const { issuer, tokens } = made;
  const [old = signingKey()] = issuer.keys;
  const before = issuer.token();
  await tokens.verify(before);
  issuer.keys = [signingKey("ES256")];
  made.monotonic += 31_000;
  assert.ok(await tokens.verify(issuer.token()));
  assert.deepEqual(issuer.seen, [DISCOVERY, KEYS, DISCOVERY, KEYS]);
  for (const text of [before, token(old, issuer.url, { jti: "new" })])
    await assert.rejects(
      async () => tokens.verify(text),
      (error) => error instanceof Fault && error.kind === "unauthenticated" && /its key/.test(error.detail ?? ""),
    );
  assert.equal(issuer.seen.length, 4, "inside the cooldown nobody asks again");
});

type Misbehave = (request: IncomingMessage, response: ServerResponse) => unknown;

const FAULTS: readonly (readonly [string, Misbehave, RegExp])[] = [
  ["500", (_, response) => response.writeHead(500).end(), /answers 500/],
  ["204", (_, response) => response.writeHead(204).end(), /answers 204/],
  ["redirect", (_, response) => response.writeHead(302, { location: "https://evil.example/" }).end(), /redirect/],
  ["circle", ({ url }, response) => response.writeHead(307, { location: url }).end(), /redirect/],
  ["huge", (_, response) => response.end(Buffer.alloc(300_000, 32)), /larger than/],
  ["garbage", (_, response) => response.end("<html>"), /not a JSON value/],
  ["empty", (_, response) => response.end(), /ends where a value/],
  ["twice", (_, response) => response.end('{"issuer":"a","issuer":"b"}'), /stands twice/],
  ["deep", (_, response) => response.end("[".repeat(1000)), /nest deeper/],
  [
    "cut",
    (_, response) => response.writeHead(200, { "content-length": 9 }).write("{", () => response.destroy()),
    /failed/,
  ],
  ["silent", () => {}, /in time/],
];

for (const [name, behave, reason] of FAULTS) {
  test(`an issuer that answers with: ${name}`, async (t) => {
    const made = await rig(t, { timeoutSeconds: name === "silent" ? 2 : 30 }, (request, response) => {
      behave(request, response);
      return true;
    });
    await uncheckable(made);
    assert.match(made.reasons[0] ?? "", reason);
    assert.equal(made.issuer.seen.length, 1);
    made.issuer.behave = () => false;
    made.monotonic += 31_000;
    assert.ok(await made.tokens.verify(made.issuer.token()), "it is well again");
  });
}

test("documents that lead elsewhere are not followed", async (t) => {
  const elsewhere = await startIssuer(t);
  const cases: readonly (readonly [(host: string, url: string) => object, RegExp])[] = [
    [(host) => ({ issuer: "https://evil.example", jwks_uri: `https://${host}${KEYS}` }), /another issuer's/],
    [(host, url) => ({ issuer: `${url}/`, jwks_uri: `https://${host}${KEYS}` }), /another issuer's/],
    [(host) => ({ jwks_uri: `https://${host}${KEYS}` }), /no issuer or jwks_uri/],
    [(_, url) => ({ issuer: url }), /no issuer or jwks_uri/],
    [(_, url) => ({ issuer: url, jwks_uri: `https://${elsewhere.host}${KEYS}` }), /not one that was named/],
    [(_, url) => ({ issuer: url, jwks_uri: "https://169.254.169.254/latest/meta-data" }), /not one that was named/],
    [(host, url) => ({ issuer: url, jwks_uri: `http://${host}${KEYS}` }), /does not speak HTTP|failed/],
    [(host, url) => ({ issuer: url, jwks_uri: `https://${host}@evil.example/` }), /not plain/],
    [(host, url) => ({ issuer: url, jwks_uri: `https://evil.example\\@${host}/` }), /not plain/],
    [(_, url) => ({ issuer: url, jwks_uri: "file:///etc/passwd" }), /not plain/],
    [(_, url) => ({ issuer: url, jwks_uri: KEYS }), /not plain/],
  ];
  for (const [document, reason] of cases) {
    const made = await rig(t, {}, (request, response) => {
      if (request.url !== DISCOVERY) return false;
      const host = request.headers.host ?? "";
      response.end(JSON.stringify(document(host, `https://${host}/realms/a`)));
      return true;
    });
    await uncheckable(made);
    assert.match(made.reasons[0] ?? "", reason);
  }
  assert.deepEqual(elsewhere.seen, []);
});

test("a set without a key that can be used replaces nothing", async (t) => {
  const made = await rig(t);
  const { issuer, tokens } = made;
  const first = issuer.token();
  await tokens.verify(first);
  const [good] = issuer.keys;
  const oct = { ...signingKey(), jwk: { kty: "oct", k: "AAAA", alg: "HS256" } };
  for (const keys of [[], [oct]]) {
    issuer.keys = keys;
    made.monotonic += 31_000;
    assert.ok(good);
    await assert.rejects(async () => tokens.verify(token(good, issuer.url, {}, { kid: "unknown" })), {
      kind: "unauthenticated",
    });
    assert.match(made.reasons.at(-1) ?? "", /no key of the set can be used/);
    assert.ok(await tokens.verify(first));
  }
});

test("TLS: another authority, and plain addresses without the setting", async (t) => {
  const other = await startIssuer(t);
  const wrongAuthority = await rig(t, { caFile: other.caFile });
  await uncheckable(wrongAuthority);
  assert.match(wrongAuthority.reasons[0] ?? "", /failed/);
  const noLoopback = await rig(t, { loopback: false });
  await uncheckable(noLoopback);
  assert.match(noLoopback.reasons[0] ?? "", /leads to an address that is loopback/);
  const onlyPrivate = await rig(t, { loopback: false, privateNetworks: true });
  await uncheckable(onlyPrivate);
  assert.deepEqual([...noLoopback.issuer.seen, ...onlyPrivate.issuer.seen, ...wrongAuthority.issuer.seen], []);
});
