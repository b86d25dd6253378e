/**
 * The `tokens:` section of the operator's policy: whose tokens are taken, and what their claims make of a caller.
 *
 * Data only, checked strictly: an unknown or doubtful word is an error at the start and never a default at run time.
 * Claims are compared, mapped and cut; nothing here is evaluated.
 * Callers: app (reads the file), policy/tokens.
 */
import { z } from "zod";
import { ROLES, type Role, SCOPES } from "#core/principal.ts";
import { LIMITS } from "#policy/limits/limit-words.ts";

/** The closed list; `none` is not on it. */
export const ASYMMETRIC = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
] as const;
export const SYMMETRIC = ["HS256", "HS384", "HS512"] as const;
export type Algorithm = (typeof ASYMMETRIC)[number] | (typeof SYMMETRIC)[number];

/** As in a path, a log line and a label it cannot be misread. */
export const TENANT = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/;

const Text = z.string().min(1).max(256);
const Texts = z.array(Text).min(1).max(256);
const Patterns = z.array(Text).max(256);
const RoleName = z.enum(Object.keys(ROLES) as [Role, ...Role[]]);
const Tenant = z.string().regex(TENANT, "is 1 to 64 letters, digits, dots, dashes and underscores");
const seconds = (min: number, max: number) => z.number().min(min).max(max);
const HOUR = 3600;
const DAY = 24 * HOUR;

/** A claim's name, or the names on the way to one inside another (`[realm_access, roles]`). Dots have no meaning. */
const Claim = z.union([Text, z.array(Text).min(1).max(8)]);
export type ClaimPath = z.output<typeof Claim>;

const Scalar = z.union([z.string().max(1024), z.number(), z.boolean()]);
const TESTS = ["equals", "in", "matches", "contains", "exists"] as const;

const Condition = z
  .strictObject({
    claim: Claim,
    /** The claim is this text, number or truth value. */
    equals: Scalar.optional(),
    /** … one of these. */
    in: z.array(Scalar).min(1).max(256).optional(),
    /** The claim is a text that one of these patterns matches whole: `*` any characters, `?` one. */
    matches: z.union([Text, Texts]).optional(),
    /** The claim is a list with this member, or a text with this among its words (as `scope` is written). */
    contains: Scalar.optional(),
    exists: z.boolean().optional(),
  })
  .refine((condition) => TESTS.filter((name) => condition[name] !== undefined).length === 1, {
    error: `has exactly one of ${TESTS.join(", ")}`,
  });
export type Condition = z.output<typeof Condition>;

const Rule = z.strictObject({
  /** All have to hold; none: every token of the issuer. */
  when: z.array(Condition).max(32).default([]),
  /** Fixed, or what a claim says; with a prefix no claim can spell a tenant that is not the issuer's. */
  tenant: z.union([Tenant, z.strictObject({ claim: Claim, prefix: z.string().max(32).default("") })]),
  /** Fixed, or the first entry of the table whose value the claim is or contains. */
  role: z.union([RoleName, z.strictObject({ claim: Claim, table: z.record(Text, RoleName) })]),
  /** Narrows the role; what the role has not is not given. From a claim: its words, after the prefix. */
  scopes: z
    .union([
      z.array(z.enum(SCOPES as [(typeof SCOPES)[number]])).max(64),
      z.strictObject({ claim: Claim, prefix: z.string().max(64).default("") }),
    ])
    .optional(),
  models: Patterns.optional(),
  adapters: Patterns.optional(),
  tools: Patterns.optional(),
  priority: z.int().optional(),
  limits: LIMITS.optional(),
});
export type Rule = z.output<typeof Rule>;

const SOURCES = ["discovery", "jwks", "jwksFile", "secretFile"] as const;

const Keys = z
  .strictObject({
    /** `<issuer>/.well-known/openid-configuration` names the key set. */
    discovery: z.literal(true).optional(),
    jwks: z
      .url({ protocol: /^https?$/ })
      .max(2048)
      .optional(),
    jwksFile: Text.optional(),
    /** Shared with the issuer, for HS* algorithms. */
    secretFile: Text.optional(),
    /** Hosts that discovery may name besides the issuer's own. */
    hosts: z
      .array(z.string().regex(/^[a-z0-9.:[\]-]+$/, "is a host, or host:port, in lower case"))
      .max(8)
      .default([]),
    /** PEM: the only authorities that may vouch for the issuer's server. */
    caFile: Text.optional(),
    /** Loosens: the issuer's server may have a private address. */
    privateNetworks: z.boolean().default(false),
    /** Loosens: the issuer's server may be this machine, and over plain http then. */
    loopback: z.boolean().default(false),
    /** A set of this age is asked for again while it goes on being used. */
    refreshSeconds: seconds(10, DAY).default(600),
    /** Between two attempts, whatever asks for them. */
    cooldownSeconds: seconds(1, HOUR).default(30),
    /** A set of this age is not used any more. */
    keepSeconds: seconds(60, 7 * DAY).default(6 * HOUR),
    timeoutSeconds: seconds(0.1, 30).default(5),
  })
  .refine((keys) => SOURCES.filter((name) => keys[name] !== undefined).length === 1, {
    error: `has exactly one of ${SOURCES.join(", ")}`,
  });

const Issuer = z
  .strictObject({
    /** `iss`, to the letter. */
    issuer: Text,
    /** One of them has to be in `aud`. */
    audiences: Texts,
    algorithms: z
      .array(z.enum([...ASYMMETRIC, ...SYMMETRIC]))
      .min(1)
      .default(["RS256", "PS256", "ES256", "EdDSA"]),
    /** `typ` of the header, without regard to case and `application/`. */
    types: Texts.default(["at+jwt", "JWT"]),
    /** Some issuers write no `typ`. */
    typeRequired: z.boolean().default(true),
    keys: Keys,
    /** Besides iss, aud, exp, iat and sub. */
    requiredClaims: z.array(Text).max(32).default([]),
    clockToleranceSeconds: seconds(0, 60).default(5),
    /** Since `iat`. */
    maxAgeSeconds: seconds(1, 30 * DAY).default(DAY),
    /** The first that matches decides. */
    rules: z.array(Rule).min(1).max(256),
  })
  .refine(({ algorithms, keys }) => algorithms.every((alg) => isSymmetric(alg) === (keys.secretFile !== undefined)), {
    error: "HS* algorithms go with a secretFile, and a secretFile with nothing else",
    path: ["algorithms"],
  })
  .refine(({ issuer, keys }) => keys.discovery === undefined || /^https?:\/\/[^/?#]+[^?#]*$/.test(issuer), {
    error: "discovery needs an issuer that is an https URL without query",
    path: ["keys", "discovery"],
  });
export type IssuerConfig = z.output<typeof Issuer>;

export const TokensSection = z.strictObject({
  /** Characters of the longest token that is read. */
  maxLength: z.int().min(256).max(16_384).default(8192),
  /** Tokens whose verification is remembered. */
  cacheEntries: z.int().min(0).max(1_000_000).default(10_000),
  issuers: z
    .array(Issuer)
    .min(1)
    .max(32)
    .refine((list) => new Set(list.map(({ issuer }) => issuer)).size === list.length, {
      error: "an issuer stands here twice",
    }),
});
export type TokensConfig = z.output<typeof TokensSection>;

export function isSymmetric(algorithm: string): boolean {
  return (SYMMETRIC as readonly string[]).includes(algorithm);
}
