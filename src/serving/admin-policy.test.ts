/**
 * Who may ask what of the policy, and what a reload tells.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { Scope } from "#core/principal.ts";
import { AuditFailure } from "#policy/audit/log.ts";
import type { RouteFacts } from "#policy/explain.ts";
import { PolicyFile } from "#policy/file/schema.ts";
import { TenantRules } from "#policy/file/tenants.ts";
import type { CallerWords } from "#wire/admin/policy.ts";
import { adminScene, caller, may } from "./_admin-fixture.ts";
import { AdminPolicy, type AdminPolicyOptions, type PolicyNow } from "./admin-policy.ts";

const ROUTES: readonly RouteFacts[] = [
  { method: "POST", path: "/chat", plane: "public", access: { kind: "key", scope: "inference" } },
  { method: "GET", path: "/pause", plane: "ops", access: { kind: "key", scope: "ops" } },
];
const NOW: PolicyNow = {
  file: PolicyFile.parse({ version: 1 }),
  tenants: new TenantRules({ acme: { models: ["llama-*"] } }),
  sha256: undefined,
};

function policy(more: Partial<AdminPolicyOptions> = {}): AdminPolicy {
  return new AdminPolicy({
    current: () => NOW,
    words: async () => ({ certificates: [{ spiffe: "spiffe://prod/web", tenant: "other", role: "user" }] }),
    reload: async () => NOW,
    test: async () => [],
    keys: { get: async () => undefined },
    routes: ROUTES,
    ...more,
  });
}

const operator = <S extends Scope>(scope: S) => may(caller("default"), scope);
const ofAcme = <S extends Scope>(scope: S) => may(caller("acme"), scope);
const is =
  (kind: string, text = /./) =>
  (error: unknown): boolean =>
    error instanceof Fault && error.kind === kind && text.test(error.message);
const chat = (as: CallerWords) => ({ as, method: "POST", path: "/chat", model: "llama-3" });

test("a question is judged by the rules in force, and a route's listener is found", async () => {
  const asks = policy();
  const allowed = await asks.explain(operator("keys:read"), chat({ tenant: "acme", role: "user" }));
  assert.deepEqual([allowed.verdict.allowed, allowed.question.listener], [true, "public"]);
  const denied = await asks.explain(operator("keys:read"), {
    ...chat({ tenant: "acme", role: "user" }),
    model: "mistral",
  });
  assert.deepEqual([denied.verdict.status, denied.verdict.decidedBy], [404, "model"]);
  const rights = await asks.rights(operator("keys:read"), { as: { tenant: "acme", role: "operator" } });
  assert.deepEqual(
    rights.map(({ question, verdict }) => [question.path, question.listener, verdict.allowed]),
    [
      ["/chat", "public", false],
      ["/pause", "ops", true],
    ],
  );
  const certificate = await asks.explain(operator("keys:read"), chat({ certificate: "spiffe://prod/web" }));
  assert.equal(certificate.verdict.allowed, true);
});

test("a tenant's administrator asks about its own tenant's callers, and sees no policy", async (t) => {
  const scene = await adminScene(t);
  const spec = { name: "", role: "user", reach: {}, limits: {}, caps: {} } as const;
  const own = (await scene.book.create({ ...spec, tenant: "acme" }, "test")).record;
  const others = (await scene.book.create({ ...spec, tenant: "other" }, "test")).record;
  const asks = policy({ keys: scene.book });
  const grant = ofAcme("keys:read");
  assert.equal((await asks.explain(grant, chat({ key: own.id }))).verdict.allowed, true);
  assert.equal((await asks.explain(grant, chat("nobody"))).verdict.status, 401);
  await assert.rejects(asks.explain(grant, chat({ key: others.id })), is("key_not_found"));
  await assert.rejects(asks.explain(grant, chat({ tenant: "other", role: "user" })), is("forbidden"));
  await assert.rejects(asks.explain(grant, chat({ certificate: "spiffe://prod/web" })), is("forbidden"));
  await assert.rejects(asks.explain(grant, chat({ issuer: "x", claims: {} })), is("forbidden"));
  assert.throws(() => asks.current(grant), is("forbidden"));
  await assert.rejects(asks.reload(ofAcme("admin")), is("forbidden"));
  assert.equal((await asks.explain(operator("keys:read"), chat({ key: others.id }))).verdict.allowed, true);
  await scene.book.disable(own.id);
  const disabled = await asks.explain(grant, chat({ key: own.id }));
  assert.deepEqual([disabled.verdict.status, disabled.verdict.decidedBy], [401, "credential"]);
});

test("a reload says why it did not come about", async () => {
  const failing = (error: Error) => policy({ reload: () => Promise.reject(error) });
  await assert.rejects(failing(new Error("line 3: no")).reload(operator("admin")), is("invalid_request", /line 3/));
  await assert.rejects(failing(new AuditFailure("full")).reload(operator("admin")), is("policy_unavailable"));
  const unreadable = policy({
    words: async () => {
      throw new Error("gone");
    },
  });
  await assert.rejects(
    unreadable.explain(operator("keys:read"), chat({ certificate: "spiffe://prod/web" })),
    is("policy_unavailable"),
  );
  const networks: CallerWords = { tenant: "acme", role: "user", networks: ["nowhere"] };
  await assert.rejects(policy().explain(operator("keys:read"), chat(networks)), is("invalid_request", /nowhere/));
});
