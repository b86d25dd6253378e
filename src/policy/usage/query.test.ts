/**
 * What is understood of a question about usage, and what is said of what is not.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { usageQuery } from "./query.ts";

const NOW = Date.UTC(2026, 10, 25);

test("without words: the month so far, by day", () => {
  assert.deepEqual(usageQuery({}, NOW), { by: ["day"], from: "2026-11-01" });
  assert.deepEqual(usageQuery({ by: "key, key,tenant", to: "2026-11-30", model: "m" }, NOW), {
    by: ["key", "tenant"],
    from: "2026-11-01",
    to: "2026-11-30",
    model: "m",
  });
});

test("what is not understood is said", () => {
  for (const [words, field, problem] of [
    [{ from: "yesterday" }, "from", /is a day/],
    [{ to: "2026-02-30" }, "to", /is a day/],
    [{ from: "2026-11-25", to: "2026-11-24" }, "to", /comes before/],
    [{ by: "week" }, "by", /takes day, key, model, tenant/],
    [{ by: "" }, "by", /takes day/],
  ] as const) {
    const query = usageQuery(words, NOW);
    assert.ok("problem" in query);
    assert.equal(query.field, field);
    assert.match(query.problem, problem);
  }
});
