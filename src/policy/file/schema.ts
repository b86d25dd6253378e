/**
 * The operator's policy file: tenants, limits, prices, whose tokens and certificates are taken, and the cases that have
 * to come out as the file says.
 *
 * Data only, checked strictly: an unknown word is an error at the start and never a default at run time. An absent
 * section says nothing, so settings and the store say it. Callers: app (reads the file), policy/file.
 */
import { z } from "zod";
import { ROLES, type Role, SCOPES, type Scope } from "#core/principal.ts";
import { CertificateRules } from "#policy/certificates.ts";
import { LIMITS, named, PRICE } from "#policy/limits/limit-words.ts";
import { networkProblem } from "#policy/networks.ts";
import { TENANT, TokensSection } from "#policy/tokens/schema.ts";

const Patterns = z.array(z.string().min(1).max(256)).max(256);
const TenantName = z.string().regex(TENANT, "is 1 to 64 letters, digits, dots, dashes and underscores");
const Network = z.string().refine((text) => networkProblem(text) === undefined, "is no network such as 10.0.0.0/8");
const HIGHEST_WEIGHT = 1000;
const MOST_ADAPTERS = 4096;

const Tenant = z.strictObject({
  /** Nobody of it is let in. */
  disabled: z.boolean().optional(),
  /** Share of the engine when there is more work than it can do; 1 without it. */
  weight: z.number().min(0.001).max(HIGHEST_WEIGHT).optional(),
  /** Of all its callers together. */
  limits: LIMITS.optional(),
  /** LoRA adapters that it may have loaded at once. */
  adapterSlots: z.int().min(0).max(MOST_ADAPTERS).optional(),
  /** What its callers see at most, whatever their keys say. */
  models: Patterns.optional(),
  adapters: Patterns.optional(),
  tools: Patterns.optional(),
});
export type TenantRule = z.output<typeof Tenant>;

const Model = z.strictObject({
  /** Of all callers together. */
  limits: LIMITS.optional(),
  /** US dollars a million tokens. */
  price: PRICE.optional(),
});

/** Who asks in a case: a key as it could be, a token's claims, a certificate's name, or nobody. */
const KeyCaller = z.strictObject({
  tenant: TenantName,
  role: z.enum(Object.keys(ROLES) as [Role, ...Role[]]),
  scopes: z.array(z.enum(SCOPES as [Scope, ...Scope[]])).optional(),
  models: Patterns.optional(),
  adapters: Patterns.optional(),
  tools: Patterns.optional(),
  networks: z.array(Network).max(256).optional(),
});
const TokenCaller = z.strictObject({ issuer: z.string().min(1).max(256), claims: z.record(z.string(), z.json()) });
const CertificateCaller = z.strictObject({ certificate: z.string().min(1).max(2048) });

const Case = z.strictObject({
  name: z.string().min(1).max(200).optional(),
  as: z.union([z.literal("nobody"), KeyCaller, TokenCaller, CertificateCaller]),
  /** `POST /v1/chat/completions` */
  request: z.string().regex(/^[A-Z]+ \/\S*$/, "is a method and a path: POST /v1/chat/completions"),
  /** Without it the one that has the route, the public one before the other. */
  listener: z.enum(["public", "ops"]).optional(),
  model: z.string().min(1).max(256).optional(),
  adapter: z.string().min(1).max(256).optional(),
  tool: z.string().min(1).max(256).optional(),
  /** Address of the caller; without it networks are not looked at. */
  from: z.string().min(1).max(64).optional(),
  expect: z.union([z.enum(["allow", "deny"]), z.literal([401, 403, 404, 405])]),
  /** What the caller is taken for, where that is what the case is about. */
  tenant: TenantName.optional(),
  role: z.enum(Object.keys(ROLES) as [Role, ...Role[]]).optional(),
});
export type PolicyCase = z.output<typeof Case>;

const MOST_TENANTS = 100_000;
const MOST_CASES = 10_000;

export const PolicyFile = z.strictObject({
  version: z.literal(1),
  /** By name; `*`: every tenant that is not named. */
  tenants: named(Tenant)
    .refine(
      (tenants) => Object.keys(tenants).every((name) => name === "*" || TENANT.test(name)),
      'has a name that is no tenant\'s: 1 to 64 letters, digits, dots, dashes and underscores, or "*"',
    )
    .refine((tenants) => Object.keys(tenants).length <= MOST_TENANTS, `names more than ${MOST_TENANTS} tenants`)
    .optional(),
  /** For every key that has no limit of its own of the same kind. */
  keys: z.strictObject({ limits: LIMITS.optional() }).optional(),
  /** By first served name; `*`: every model that is not named. */
  models: named(Model).optional(),
  tokens: TokensSection.optional(),
  certificates: CertificateRules.optional(),
  tests: z.array(Case).max(MOST_CASES).optional(),
});
export type PolicyFile = z.output<typeof PolicyFile>;
