/**
 * A policy file: what it may say, what it makes of tenants, and that its cases come out as they must.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import type { RouteFacts } from "#policy/explain.ts";
import { NO_PEER } from "#policy/peer.ts";
import { principalOf } from "#policy/roles.ts";
import { runCases } from "./cases.ts";
import { PolicyFile } from "./schema.ts";
import { TenantRules, withinTenants } from "./tenants.ts";

const ROUTES: readonly RouteFacts[] = [
  { method: "POST", path: "/chat", plane: "public", access: { kind: "key", scope: "inference" } },
  { method: "GET", path: "/up", plane: "both", access: { kind: "open" } },
  { method: "GET", path: "/pause", plane: "ops", access: { kind: "key", scope: "ops" } },
];

const file = (rest: object): PolicyFile => PolicyFile.parse({ version: 1, ...rest });
const who = (tenant: string, more: Partial<Principal> = {}): Principal => ({
  ...principalOf({ id: "k", tenant, role: "user" }),
  ...more,
});

test("what is not a policy is refused by name", () => {
  const refused: readonly (readonly [object, RegExp])[] = [
    [{ version: 2 }, /version/],
    [{ version: 1, tenant: {} }, /tenant/],
    [{ version: 1, tenants: { "a b": {} } }, /no tenant's/],
    [{ version: 1, tenants: { a: { weight: 0 } } }, /weight/],
    [{ version: 1, tenants: { a: { limits: { requestsPerHour: 1 } } } }, /requestsPerHour/],
    [{ version: 1, tenants: { a: { limits: { requestsPerDay: 1.5 } } } }, /requestsPerDay/],
    [{ version: 1, models: { m: { price: { prompt: 1, completion: 1, cached: 2 } } } }, /cached is at most prompt/],
    [{ version: 1, tests: [{ as: "somebody", request: "GET /up", expect: "allow" }] }, /as/],
    [{ version: 1, tests: [{ as: "nobody", request: "/up", expect: "allow" }] }, /a method and a path/],
    [{ version: 1, tests: [{ as: "nobody", request: "GET /up", expect: 200 }] }, /expect/],
    [{ version: 1, tests: [{ as: { tenant: "a", role: "root" }, request: "GET /up", expect: 401 }] }, /role|as/],
  ];
  for (const [value, message] of refused) {
    const parsed = PolicyFile.safeParse(value);
    assert.ok(!parsed.success, JSON.stringify(value));
    assert.match(parsed.error.message, message, JSON.stringify(value));
  }
});

test("a tenant's lists narrow and never widen; the same principal is narrowed to the same object", () => {
  const rules = new TenantRules({ acme: { models: ["llama-*"], adapters: [] }, "*": { models: ["small"] } });
  const narrowed = rules.apply(who("acme", { reach: { models: ["*"] } }));
  assert.deepEqual(narrowed.within, { models: ["llama-*"], adapters: [] });
  assert.deepEqual(narrowed.reach, { models: ["*"] });
  const known = who("acme");
  assert.equal(rules.apply(known), rules.apply(known));
  assert.deepEqual(rules.apply(who("other")).within, { models: ["small"] });
  const named = new TenantRules({ acme: {}, "*": { models: [] } });
  assert.equal(named.apply(who("acme")).within, undefined, "a tenant that is named is not one of the others");
  for (const name of ["constructor", "__proto__", "toString"])
    assert.equal(new TenantRules({}).of(name), undefined, "what every object has is no rule");
});

test("nobody of a disabled tenant is let in, whatever proved who it is; the server's own question is", async () => {
  let rules = new TenantRules({ gone: { disabled: true } });
  const principal = who("gone");
  const outcomes = [
    withinTenants(
      () => principal,
      () => rules,
    ),
    withinTenants(
      async () => principal,
      () => rules,
    ),
  ];
  const refused = (error: unknown): boolean => error instanceof Fault && error.kind === "unauthenticated";
  for (const identify of outcomes) await assert.rejects(async () => identify([], "plain", NO_PEER), refused);
  assert.equal(rules.apply(who("gone", { kind: "server" })).tenant, "gone");
  rules = new TenantRules();
  for (const identify of outcomes) assert.equal(await identify([], "plain", NO_PEER), principal);
});

test("cases: keys, claims, certificates and nobody are judged by the file's own rules", () => {
  const policy = file({
    tenants: { acme: { models: ["llama-*"] }, gone: { disabled: true } },
    tokens: {
      issuers: [
        {
          issuer: "https://login.example.com",
          audiences: ["castellan"],
          keys: { discovery: true },
          rules: [{ when: [{ claim: "groups", contains: "llm" }], tenant: { claim: "org" }, role: "user" }],
        },
      ],
    },
    certificates: [{ spiffe: "spiffe://prod/gateway", tenant: "acme", role: "operator" }],
    tests: [
      { as: { tenant: "acme", role: "user" }, request: "POST /chat", model: "llama-3", expect: "allow" },
      { as: { tenant: "acme", role: "user" }, request: "POST /chat", model: "other", expect: 404 },
      { as: { tenant: "gone", role: "admin" }, request: "GET /pause", expect: 401 },
      { as: { tenant: "acme", role: "user" }, request: "GET /pause", expect: 403 },
      { as: { tenant: "acme", role: "operator" }, request: "GET /pause", expect: "allow" },
      { as: { tenant: "acme", role: "operator" }, request: "GET /pause", listener: "public", expect: 404 },
      { as: { tenant: "acme", role: "operator" }, request: "PUT /pause", expect: 405 },
      { as: "nobody", request: "GET /up", expect: "allow" },
      { as: "nobody", request: "GET /elsewhere", expect: 401 },
      {
        as: { issuer: "https://login.example.com", claims: { groups: ["llm"], org: "acme" } },
        request: "POST /chat",
        model: "llama-3",
        expect: "allow",
        tenant: "acme",
        role: "user",
      },
      { as: { issuer: "https://login.example.com", claims: { groups: [] } }, request: "POST /chat", expect: 403 },
      { as: { issuer: "https://evil.example.com", claims: {} }, request: "POST /chat", expect: 401 },
      { as: { certificate: "spiffe://prod/gateway" }, request: "GET /pause", expect: "allow", role: "operator" },
      { as: { certificate: "spiffe://prod/other" }, request: "GET /pause", expect: 401 },
      {
        as: { tenant: "acme", role: "user", networks: ["10.0.0.0/8"] },
        request: "POST /chat",
        from: "192.0.2.1",
        expect: 401,
      },
    ],
  });
  const results = runCases(policy, ROUTES);
  assert.deepEqual(
    results.filter(({ passed }) => !passed),
    [],
  );
  assert.equal(results.length, policy.tests?.length);
});

test("a case that does not come out says what came out, and why", () => {
  const policy = file({
    tests: [
      { name: "x", as: { tenant: "a", role: "user" }, request: "GET /pause", expect: "allow" },
      { as: { tenant: "a", role: "user" }, request: "POST /chat", expect: "deny" },
      { as: { tenant: "a", role: "user" }, request: "POST /chat", expect: "allow", tenant: "b" },
      { as: "nobody", request: "GET /up", expect: "allow", role: "user" },
      { as: { tenant: "a", role: "user" }, request: "GET /pause", expect: 404 },
    ],
  });
  assert.deepEqual(
    runCases(policy, ROUTES).map(({ name, problem }) => [name, problem]),
    [
      ["x", "denied with 403: the role user lacks the scope ops"],
      ["POST /chat", "allowed: the role user has the scope inference"],
      ["POST /chat", "the caller's tenant is a"],
      ["GET /up", "the caller is nobody"],
      ["GET /pause", "denied with 403: the role user lacks the scope ops"],
    ],
  );
});
