import assert from "node:assert/strict";
import { test } from "node:test";
import type { JsonValue } from "#base/json.ts";
import type { Principal } from "#core/principal.ts";
import type { Claims } from "./problem.ts";
import { principalFrom, tokenPrincipalId } from "./rules.ts";
import { TokensSection } from "./schema.ts";

const rulesOf = (...rules: unknown[]) =>
  TokensSection.parse({
    issuers: [{ issuer: "i", audiences: ["a"], keys: { jwksFile: "f" }, rules }],
  }).issuers[0]?.rules ?? [];

function made(rules: unknown[], claims: Claims): Principal | undefined {
  const found = principalFrom(rulesOf(...rules), "i", "s", claims);
  return "reason" in found ? undefined : found;
}

const holds = (condition: object, claims: Claims): boolean =>
  made([{ when: [condition], tenant: "t", role: "user" }], claims) !== undefined;

test("conditions: what holds and what does not", () => {
  const cases: readonly (readonly [condition: object, yes: readonly JsonValue[], no: readonly JsonValue[]])[] = [
    [{ equals: "a" }, ["a"], ["A", "ab", "", ["a"], { a: 1 }, null, 1, true]],
    [{ equals: 1 }, [1], ["1", true, [1], 1.5]],
    [{ equals: true }, [true], ["true", 1, false]],
    [{ in: ["a", 2] }, ["a", 2], ["b", "2", ["a"]]],
    [{ matches: "team-*" }, ["team-", "team-a"], ["xteam-a", "Team-a", ["team-a"], 1]],
    [{ matches: ["a?", "b"] }, ["ab", "b"], ["a", "abc"]],
    [{ matches: "a.c" }, ["a.c"], ["abc"]],
    [{ matches: "(a+)+$" }, ["(a+)+$"], ["aaaa"]],
    [{ contains: "x" }, [["x"], ["y", "x"], "x", "y x z"], ["xy", "y,x", ["xy"], [["x"]], { x: 1 }, [], ""]],
    [{ contains: 3 }, [[3]], ["3", ["3"], 3]],
    [{ exists: true }, ["", 0, false, null, [], {}], []],
    [{ exists: false }, [], ["", 0, false, null]],
  ];
  for (const [condition, yes, no] of cases) {
    const asked = { claim: "c", ...condition };
    for (const value of yes) assert.ok(holds(asked, { c: value }), JSON.stringify([condition, value]));
    for (const value of no) assert.ok(!holds(asked, { c: value }), JSON.stringify([condition, value]));
    assert.equal(holds(asked, {}), "exists" in condition && condition.exists === false, "no such claim");
  }
});

test("paths lead through own members of objects, and a dot is a character", () => {
  const condition = { claim: ["realm_access", "roles"], contains: "llm" };
  assert.ok(holds(condition, { realm_access: { roles: ["llm"] } }));
  assert.ok(!holds(condition, { "realm_access.roles": ["llm"] }));
  assert.ok(!holds(condition, { realm_access: ["llm"] }));
  assert.ok(!holds(condition, { realm_access: null }));
  assert.ok(holds({ claim: "https://example.com/roles", contains: "llm" }, { "https://example.com/roles": ["llm"] }));
  assert.ok(holds({ claim: "a.b", equals: 1 }, { "a.b": 1 }));
  assert.ok(!holds({ claim: "a.b", equals: 1 }, { a: { b: 1 } }));
  for (const claim of ["constructor", "toString", "__proto__", ["constructor", "name"], ["c", "length"], ["c", "0"]])
    assert.ok(!holds({ claim, exists: true }, { c: ["x"] }), String(claim));
});

test("all conditions of a rule, and the first rule that matches", () => {
  const rules = [
    {
      when: [
        { claim: "a", equals: 1 },
        { claim: "b", equals: 1 },
      ],
      tenant: "both",
      role: "admin",
    },
    { when: [{ claim: "a", equals: 1 }], tenant: "one", role: "operator" },
    { tenant: "any", role: "user" },
  ];
  assert.equal(made(rules, { a: 1, b: 1 })?.tenant, "both");
  assert.equal(made(rules, { a: 1, b: 2 })?.tenant, "one");
  assert.equal(made(rules, { b: 1 })?.tenant, "any");
  assert.equal(made(rules.slice(0, 2), { b: 1 }), undefined);
  assert.equal(made(rules, { a: 1 })?.role, "operator");
});

test("a tenant from a claim has a tenant's shape, or the rule ends without anybody", () => {
  const rules = [
    { tenant: { claim: ["org", "id"], prefix: "kc-" }, role: "user" },
    { tenant: "fallback", role: "user" },
  ];
  assert.equal(made(rules, { org: { id: "acme" } })?.tenant, "kc-acme");
  const long = "x".repeat(61);
  assert.equal(made(rules, { org: { id: long } })?.tenant, `kc-${long}`);
  for (const id of ["", "a b", "a/b", "..", "a\n", "ä", "a.", `${long}x`, 7, ["acme"], null, { id: "acme" }, true])
    assert.equal(made(rules, { org: { id } as JsonValue }), undefined, JSON.stringify(id));
  assert.equal(made(rules, {}), undefined, "and no later rule is asked");
  assert.deepEqual(principalFrom(rulesOf(...rules), "i", "s", {}), {
    reason: "rule 1: the claim for the tenant is missing or not one",
  });
});

test("a role from a claim is of the table, in the table's order", () => {
  const rules = [{ tenant: "t", role: { claim: "groups", table: { "llm-admins": "admin", "llm-users": "user" } } }];
  assert.equal(made(rules, { groups: ["llm-users", "llm-admins"] })?.role, "admin");
  assert.equal(made(rules, { groups: ["x", "llm-users"] })?.role, "user");
  assert.equal(made(rules, { groups: "llm-users" })?.role, "user");
  for (const groups of ["admin", ["admin"], "llm-users llm-admins", [], {}, null, 1, [["llm-admins"]], "constructor"])
    assert.equal(made(rules, { groups: groups as JsonValue }), undefined, JSON.stringify(groups));
  assert.equal(made(rules, {}), undefined);
});

test("scopes narrow the role and never widen it", () => {
  const scopes = (rule: object, claims: Claims = {}): string[] =>
    [...(made([{ tenant: "t", role: "user", ...rule }], claims)?.scopes ?? [])].sort();
  assert.deepEqual(scopes({ scopes: ["inference", "admin"] }), ["inference"]);
  assert.deepEqual(scopes({ scopes: [] }), []);
  const claimed = { scopes: { claim: "scope", prefix: "castellan/" } };
  assert.deepEqual(
    scopes(claimed, { scope: "openid castellan/inference castellan/models:read castellan/ops inference" }),
    ["inference", "models:read"],
  );
  assert.deepEqual(scopes(claimed, { scope: ["castellan/embeddings"] }), ["embeddings"]);
  for (const scope of ["", "castellan/*", "castellan/admin", 1, { "castellan/inference": true }, null])
    assert.deepEqual(scopes(claimed, { scope: scope as JsonValue }), [], JSON.stringify(scope));
  assert.deepEqual(scopes(claimed, {}), []);
  assert.ok(scopes({}).includes("inference"));
});

test("what a rule fixes reaches the principal", () => {
  const rule = {
    tenant: "t",
    role: "user",
    models: ["llama-*"],
    adapters: [],
    tools: ["python"],
    priority: -1,
    limits: { requestsPerMinute: 5, budgets: [{ period: "month", unit: "tokens", amount: 100 }] },
  };
  const principal = made([rule], {});
  assert.deepEqual(principal?.reach, { models: ["llama-*"], adapters: [], tools: ["python"], priority: -1 });
  assert.deepEqual(principal?.limits, rule.limits);
  assert.equal(principal?.kind, "token");
  assert.ok(Object.isFrozen(principal));
});

test("ids: stable, apart for every issuer and subject, without a way back", () => {
  assert.equal(tokenPrincipalId("https://a", "u"), "tok_b64c64278c505d8bff497d02a3548178");
  const ids = [
    ["a", "bc"],
    ["ab", "c"],
    ["a", 'b","c'],
    ['a","b', "c"],
    ["", "abc"],
  ].map(([issuer = "", subject = ""]) => tokenPrincipalId(issuer, subject));
  assert.equal(new Set(ids).size, ids.length);
  for (const id of ids) assert.match(id, /^tok_[0-9a-f]{32}$/);
});
