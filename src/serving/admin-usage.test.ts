/**
 * Usage through administration, over a real store: whose rows a caller sees.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { readUsage, usageSink } from "#policy/usage/table.ts";
import { adminScene, caller, may } from "./_admin-fixture.ts";
import { AdminUsage } from "./admin-usage.ts";

const NOW = Date.UTC(2026, 10, 25);
const ROW = {
  model: "demo",
  day: "2026-11-24",
  errors: 0,
  promptTokens: 5,
  cachedTokens: 0,
  completionTokens: 7,
  cost: 3,
};

test("the operator sees every tenant, others their own, and a filter shows nobody else", async (t) => {
  const { store } = await adminScene(t);
  const rows = [
    { ...ROW, key: "key_a", tenant: "acme", requests: 1 },
    { ...ROW, key: "key_b", tenant: "other", requests: 10 },
    { ...ROW, key: "key_d", tenant: "default", requests: 100 },
  ];
  await usageSink(store).add({ writer: "w", number: 1, rows });
  const usage = new AdminUsage({ read: (query) => readUsage(store.db, query), now: () => NOW });
  const requests = async (tenant: string, words: Parameters<AdminUsage["read"]>[1]): Promise<number> => {
    const { sums } = await usage.read(may(caller(tenant), "keys:read"), words);
    return sums.reduce((sum, row) => sum + row.requests, 0);
  };
  for (const by of ["tenant", "key", "day", "model", "key,tenant,day,model"]) {
    assert.equal(await requests("default", { by }), 111, by);
    assert.equal(await requests("acme", { by }), 1, by);
  }
  assert.equal(await requests("default", { tenant: "other" }), 10);
  assert.equal(await requests("acme", { tenant: "acme" }), 1);
  for (const tenant of ["other", "default", ""]) assert.equal(await requests("acme", { tenant }), 0, tenant);
  assert.equal(await requests("acme", { key: "key_b" }), 0);
  assert.equal(await requests("default", { to: "2026-11-23" }), 0);
});

test("what is not understood is a 400 that names the field; a store that is away is a 503", async () => {
  const usage = new AdminUsage({
    read: async () => {
      throw new Error("no such host db.internal");
    },
    now: () => NOW,
  });
  const grant = may(caller("default"), "keys:read");
  await assert.rejects(usage.read(grant, { by: "week" }), (error) => {
    return error instanceof Fault && error.kind === "invalid_request" && error.param === "by";
  });
  await assert.rejects(usage.read(grant, {}), (error) => {
    return error instanceof Fault && error.kind === "policy_unavailable" && !error.message.includes("internal");
  });
});
