/**
 * A call's record that is put together from its pieces, beside the same fields as JSON.stringify prints them.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { FaultKind } from "#core/fault.ts";
import type { Scope } from "#core/principal.ts";
import type { Outcome, PolicyCall } from "#policy/gate.ts";
import { principalOf } from "#policy/roles.ts";
import { callText, workText } from "./_call-text.ts";
import { body } from "./record.ts";

const text = fc.oneof(
  fc.string(),
  fc.string({ unit: "binary" }),
  fc.array(fc.nat(0xffff), { maxLength: 6 }).map((units) => String.fromCharCode(...units)),
  fc.constantFrom("", '"', "\\", "\u007f", "\u0000", "\u2028", "\ud800", "key_0123", "2001:db8::1"),
);
const count = fc.oneof(fc.nat(), fc.double(), fc.constantFrom(0, -0, 1e21, 2 ** 53, Number.NaN, Infinity));

const call = fc.record({
  requestId: text,
  route: fc.option(text, { nil: undefined }),
  method: text,
  plane: fc.constantFrom("public", "ops"),
  scope: fc.constantFrom<Scope | undefined>(undefined, "inference", "models:read" as Scope),
  who: fc.option(fc.record({ id: text, tenant: text, kind: fc.constantFrom("key", "token", "certificate") }), {
    nil: undefined,
  }),
  address: fc.option(text, { nil: undefined }),
  fingerprint: fc.option(text, { nil: undefined }),
});
const outcome = fc.record({
  status: fc.integer({ min: 100, max: 599 }),
  fault: fc.constantFrom<FaultKind | undefined>(undefined, "rate_limited", "cancelled"),
  target: fc.option(text, { nil: undefined }),
});
const work = fc.option(fc.record({ model: text, promptTokens: count, cachedTokens: count, completionTokens: count }), {
  nil: undefined,
});

test("a call's text is what JSON.stringify prints, whatever stands in it", () => {
  fc.assert(
    fc.property(call, outcome, work, fc.constantFrom("allow", "deny"), fc.nat(), (seen, end, done, decision, at) => {
      const { who, address, fingerprint, route, method, plane, scope, requestId } = seen;
      const certificate = { fingerprint: fingerprint ?? "", subject: "", uris: [], notBefore: 0, notAfter: 0 };
      const { kind: principalKind, ...named } = who ?? { kind: "key", id: "", tenant: "" };
      const policyCall = {
        ...{ requestId, route, method, plane, scope, at: 0, dialect: "openai", audit: "metadata" },
        principal: who === undefined ? undefined : { ...principalOf({ ...named, role: "user" }), kind: principalKind },
        peer: fingerprint === undefined ? { address } : { address, certificate },
      } as PolicyCall;
      const { target, ...plainEnd } = end;
      const ended: Outcome = target === undefined ? plainEnd : { ...plainEnd, target };
      const usage = { reasoningTokens: 0, promptTokens: 0, cachedTokens: 0, completionTokens: 0, ...done };
      const printed =
        callText(policyCall, ended, decision) + (done === undefined ? "" : workText({ model: done.model, usage }));
      const fields = {
        request: requestId,
        principal: who === undefined ? null : { id: who.id, kind: who.kind, tenant: who.tenant },
        scope: scope ?? null,
        plane,
        method,
        route: route ?? null,
        ...(target === undefined ? {} : { target }),
        peer: address ?? "unix",
        ...(fingerprint === undefined ? {} : { certificate: fingerprint }),
        status: end.status,
        fault: end.fault ?? null,
        decision,
        ...(done === undefined
          ? {}
          : {
              model: done.model,
              usage: { prompt: done.promptTokens, cached: done.cachedTokens, completion: done.completionTokens },
            }),
      };
      assert.equal(body("call", at, printed), body("call", at, fields));
    }),
    { numRuns: 1000 },
  );
});

test("what a principal's calls have in common is that of the call at hand", () => {
  const principal = principalOf({ id: "key_1", tenant: "t", role: "user" });
  const peer = { address: "::1" };
  const calls = [
    { method: "POST", route: "/v1/completions", plane: "public", scope: "inference" },
    { method: "GET", route: "/v1/completions", plane: "public", scope: "inference" },
    { method: "GET", route: undefined, plane: "public", scope: "inference" },
    { method: "GET", route: undefined, plane: "ops", scope: "inference" },
    { method: "GET", route: undefined, plane: "ops", scope: undefined },
  ];
  for (const call of [...calls, ...calls.toReversed(), ...calls.flatMap((each) => [each, each])]) {
    const { scope = null, plane, method, route = null } = call;
    const seen = { ...call, ...{ requestId: "r", at: 0, dialect: "openai", audit: "metadata", principal, peer } };
    const printed = callText(seen as PolicyCall, { status: 200, fault: undefined }, "allow");
    const who = { id: "key_1", kind: "key", tenant: "t" };
    const fields = { request: "r", principal: who, scope, plane, method, route, peer: "::1" };
    const end = { status: 200, fault: null, decision: "allow" };
    assert.equal(body("call", 0, printed), body("call", 0, { ...fields, ...end }));
  }
});
