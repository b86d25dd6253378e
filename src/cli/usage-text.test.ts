/**
 * What `castellan usage` takes and prints.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { usageQuery } from "#policy/usage/query.ts";
import type { UsageSum } from "#policy/usage/table.ts";
import { usageText } from "./usage-text.ts";

const NOW = Date.UTC(2026, 10, 25);
const SUMS: readonly UsageSum[] = [
  {
    group: { tenant: "acme", model: "demo" },
    requests: 1234567,
    errors: 3,
    promptTokens: 98765432,
    cachedTokens: 0,
    completionTokens: 12,
    cost: 1_234_560_000,
  },
  {
    group: { tenant: '=cmd("x")', model: "" },
    requests: 1,
    errors: 0,
    promptTokens: 999,
    cachedTokens: 5,
    completionTokens: 1000,
    cost: 1,
  },
];

test("a table: right-aligned figures, a total, and no gap that says nothing", () => {
  const query = usageQuery({ by: "tenant, model", tenant: "acme" }, NOW);
  assert.deepEqual(query, { by: ["tenant", "model"], from: "2026-11-01", tenant: "acme" });
  assert.ok(!("problem" in query));
  assert.equal(
    usageText(SUMS, query, "table"),
    [
      "Usage from 2026-11-01 until now (days of UTC)",
      "",
      "tenant     model   requests  errors      prompt  cached  completion          cost",
      "acme       demo   1,234,567       3  98,765,432       0          12      $1234.56",
      '=cmd("x")  –              1       0         999       5       1,000     $0.000001',
      "total             1,234,568       3  98,766,431       5       1,012  $1234.560001",
      "",
    ].join("\n"),
  );
  assert.match(usageText([], query, "table"), /Nothing was used/);
});

test("CSV: quoted, and no formula", () => {
  const query = usageQuery({ by: "tenant,model", from: "2026-11-24", to: "2026-11-25" }, NOW);
  assert.ok(!("problem" in query));
  assert.equal(
    usageText(SUMS, query, "csv"),
    "tenant,model,requests,errors,prompt_tokens,cached_tokens,completion_tokens,cost_usd\r\n" +
      "acme,demo,1234567,3,98765432,0,12,1234.56\r\n" +
      '"\'=cmd(""x"")",,1,0,999,5,1000,0.000001\r\n',
  );
});

test("a name that would move the cursor is shown without", () => {
  const sums = [{ ...(SUMS[0] as UsageSum), group: { key: "k\u001b[2Jx" } }];
  assert.match(usageText(sums, { by: ["key"] }, "table"), /^k\?\[2Jx/m);
});
