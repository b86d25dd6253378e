/**
 * The usage table over both back ends of the store.
 */
import assert from "node:assert/strict";
import { after, before, type TestContext, test } from "node:test";
import { Secret } from "#base/secret.ts";
import { scratchState } from "#policy/store/store.contract.ts";
import { openStore } from "#policy/store/store.ts";
import { postgresMissing, startPostgres, type TestPostgres } from "#test/fixtures/postgres.ts";
import { readUsage, spentIn, usageSink } from "./table.ts";
import { NO_COUNTS, type UsageRow } from "./usage.ts";

let postgres: TestPostgres | undefined;
before(async () => {
  if (postgresMissing === undefined) postgres = await startPostgres();
});
after(() => postgres?.stop());

const row = (key: string, day: string, more: Partial<UsageRow> = {}): UsageRow => ({
  ...NO_COUNTS,
  key,
  tenant: key.slice(0, 1),
  model: "m",
  day,
  requests: 1,
  ...more,
});

for (const kind of ["SQLite", "PostgreSQL"] as const) {
  const it = (what: string, run: (t: TestContext) => Promise<void>): void =>
    void test(`${kind}: ${what}`, { skip: kind === "PostgreSQL" ? (postgresMissing ?? false) : false }, run);

  const scene = async (t: TestContext) => {
    const url = kind === "PostgreSQL" ? await postgres?.database() : undefined;
    const state = scratchState(t);
    return async () => {
      const store = await openStore({ state, ...(url === undefined ? {} : { databaseUrl: new Secret(url) }) });
      t.after(() => store.close());
      return store;
    };
  };

  it("groups add up, and a group that comes twice counts once", async (t) => {
    const store = await (await scene(t))();
    const { db } = store;
    const sink = usageSink(store);
    const counts = { errors: 1, promptTokens: 10, cachedTokens: 4, completionTokens: 3, cost: 2 ** 40 };
    const first = { writer: "w", number: 1, rows: [row("a1", "2026-11-25", counts), row("a2", "2026-11-25")] };
    await sink.add(first);
    await sink.add(first);
    await sink.add({ writer: "w", number: 2, rows: [row("a1", "2026-11-25", counts)] });
    await sink.add({ writer: "w", number: 1, rows: [row("a1", "2026-11-25")] });
    await sink.add({ writer: "v", number: 1, rows: [row("a1", "2026-11-26")] });
    assert.deepEqual(await readUsage(db, { by: ["key", "day"] }), [
      {
        group: { key: "a1", day: "2026-11-25" },
        requests: 2,
        errors: 2,
        promptTokens: 20,
        cachedTokens: 8,
        completionTokens: 6,
        cost: 2 ** 41,
      },
      { group: { key: "a1", day: "2026-11-26" }, ...NO_COUNTS, requests: 1 },
      { group: { key: "a2", day: "2026-11-25" }, ...NO_COUNTS, requests: 1 },
    ]);
  });

  it("what was spent, by subject, measure and day", async (t) => {
    const store = await (await scene(t))();
    const { db } = store;
    const tokens = { promptTokens: 5, completionTokens: 7, cost: 11 };
    const rows = [
      row("a1", "2026-11-24", tokens),
      row("a1", "2026-11-25", tokens),
      row("a2", "2026-11-25", { ...tokens, model: "n" }),
      row("b1", "2026-12-01", tokens),
    ];
    await usageSink(store).add({ writer: "w", number: 1, rows });
    const spent = spentIn(db);
    const [day, month] = [Date.UTC(2026, 10, 25), Date.UTC(2026, 10, 1)];
    assert.equal(await spent({ kind: "key", id: "a1" }, "requests", day), 1);
    assert.equal(await spent({ kind: "key", id: "a1" }, "tokens", month), 24);
    assert.equal(await spent({ kind: "tenant", id: "a" }, "usd", day), 22);
    assert.equal(await spent({ kind: "model", id: "m" }, "prompt", month), 15);
    assert.equal(await spent({ kind: "model", id: "n" }, "completion", month), 7);
    assert.equal(await spent({ kind: "key", id: "nobody" }, "requests", month), 0);
    assert.equal(await spent({ kind: "key", id: "a1" }, "calls", month), 0);
  });

  it("questions: from, to, key, tenant, model, and nothing at all", async (t) => {
    const store = await (await scene(t))();
    const { db } = store;
    const days = ["2026-11-24", "2026-11-25", "2026-11-26"];
    const rows = ["a1", "a2", "b1"].flatMap((key) => days.map((day) => row(key, day)));
    await usageSink(store).add({ writer: "w", number: 1, rows });
    const requests = async (query: Parameters<typeof readUsage>[1]) =>
      (await readUsage(db, query)).map((sum) => [...Object.values(sum.group), sum.requests]);
    assert.deepEqual(await requests({ by: [] }), [[9]]);
    assert.deepEqual(await requests({ by: ["tenant"], from: "2026-11-25" }), [
      ["a", 4],
      ["b", 2],
    ]);
    assert.deepEqual(await requests({ by: ["day"], key: "a1", to: "2026-11-25" }), [
      ["2026-11-24", 1],
      ["2026-11-25", 1],
    ]);
    assert.deepEqual(await requests({ by: ["model"], tenant: "b", model: "m" }), [["m", 3]]);
    assert.deepEqual(await requests({ by: ["model"], tenant: "c" }), []);
  });

  it("several servers on one database lose nothing and count nothing twice", async (t) => {
    const open = await scene(t);
    const stores = await Promise.all([open(), open(), open()]);
    const keys = ["a1", "b1", "c1"];
    await Promise.all(
      stores.flatMap((store, writer) =>
        Array.from({ length: 10 }, async (_, i) => {
          const rows = [...keys.slice(i % 3), ...keys.slice(0, i % 3)].map((key) => row(key, "2026-11-25"));
          await usageSink(store).add({ writer: `${writer} ${i}`, number: 1, rows });
        }),
      ),
    );
    const sums = await readUsage((stores[0] as (typeof stores)[number]).db, { by: ["key"] });
    assert.deepEqual(
      sums.map(({ requests }) => requests),
      [30, 30, 30],
    );
  });
}
