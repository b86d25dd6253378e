/**
 * What a signed token costs: microseconds to identify its caller, best of 7 rounds, the first time and remembered, by
 * algorithm; an API key beside it.
 *
 * Run: node bench/tokens.ts. Prints one JSON object with the machine's facts; needs no model and no network.
 */
import { generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { cpus } from "node:os";
import { Secret } from "#base/secret.ts";
import type { Principal } from "#core/principal.ts";
import { type Identify, identifyBy } from "#policy/identify.ts";
import { KeySet, operatorKey } from "#policy/keys.ts";
import { NO_PEER } from "#policy/peer.ts";
import { TokensSection } from "#policy/tokens/schema.ts";
import { Tokens } from "#policy/tokens/verify.ts";

const ROUNDS = 7;
const FIRST = 400;
const AGAIN = 50_000;
const ISSUER = "https://login.example.com";

const KINDS = {
  RS256: () => generateKeyPairSync("rsa", { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync("ec", { namedCurve: "P-256" }),
  EdDSA: () => generateKeyPairSync("ed25519"),
} as const;

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
const headersOf = (token: string): string[] => [
  "host",
  "localhost:8000",
  "user-agent",
  "openai",
  "authorization",
  `Bearer ${token}`,
];

/** Claims of the size that identity providers send. */
function claims(jti: string): object {
  const now = Math.floor(Date.now() / 1000);
  const roles = Array.from({ length: 12 }, (_, i) => `role-of-some-application-${i}`);
  return {
    ...{ iss: ISSUER, aud: ["castellan", "account"], sub: "5f0c6e2a", iat: now, nbf: now, exp: now + 3600, jti },
    ...{ azp: "app", scope: "openid profile email", org: "acme", groups: ["llm", ...roles], email: "a@example.com" },
  };
}

async function identifier(jwk: object): Promise<Identify> {
  const config = TokensSection.parse({
    cacheEntries: 100_000,
    issuers: [
      {
        issuer: ISSUER,
        audiences: ["castellan"],
        keys: { jwks: `${ISSUER}/keys` },
        rules: [
          { when: [{ claim: "groups", contains: "admins" }], tenant: "ops", role: "admin" },
          { when: [{ claim: "groups", contains: "llm" }], tenant: { claim: "org" }, role: "user" },
        ],
      },
    ],
  });
  const get = async () => ({ status: 200, body: Buffer.from(JSON.stringify({ keys: [jwk] })) });
  const tokens = new Tokens(config, { log: () => {}, get });
  await tokens.start();
  const pepper = randomBytes(32);
  const keys = new KeySet(pepper, [operatorKey(pepper, new Secret("a-key-of-the-bench"), 1, "user")]);
  return identifyBy({ keys: (key) => keys.find(key), tokens });
}

async function best(
  times: number,
  run: (i: number) => Principal | Promise<Principal>,
  awaited: boolean,
): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    for (let i = 0; i < times; i++) {
      const found = run(round * times + i);
      if (awaited) await found;
    }
    least = Math.min(least, ((performance.now() - start) * 1000) / times);
  }
  return Math.round(least * 10) / 10;
}

const results: Record<string, unknown>[] = [];
for (const [alg, pair] of Object.entries(KINDS)) {
  const { privateKey, publicKey } = pair();
  const identify = await identifier({ ...publicKey.export({ format: "jwk" }), kid: "k", alg, use: "sig" });
  const head = encode({ alg, kid: "k", typ: "at+jwt" });
  const texts = Array.from({ length: FIRST * ROUNDS }, (_, i) => {
    const input = `${head}.${encode(claims(String(i)))}`;
    const key = { key: privateKey, dsaEncoding: "ieee-p1363" } as const;
    return headersOf(
      `${input}.${sign(alg === "EdDSA" ? null : "sha256", Buffer.from(input), key).toString("base64url")}`,
    );
  });
  const cpu = process.cpuUsage();
  const first = await best(FIRST, (i) => identify(texts[i] ?? [], "openai", NO_PEER), true);
  const { user, system } = process.cpuUsage(cpu);
  const again = await best(AGAIN, (i) => identify(texts[i % 1000] ?? [], "openai", NO_PEER), false);
  const characters = (texts[0]?.at(-1)?.length ?? 0) - "Bearer ".length;
  results.push({ alg, characters, first, firstCpu: Math.round((user + system) / (FIRST * ROUNDS)), again });
}
const identify = await identifier(generateKeyPairSync("ed25519").publicKey.export({ format: "jwk" }));
const keyHeaders = headersOf("a-key-of-the-bench");
const key = await best(AGAIN, () => identify(keyHeaders, "openai", NO_PEER), false);
const machine = { cpu: cpus()[0]?.model, cpus: cpus().length, node: process.version };
process.stdout.write(`${JSON.stringify({ machine, unit: "microseconds", results, key }, null, 2)}\n`);
