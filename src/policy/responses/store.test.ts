/**
 * The store of responses over both back ends.
 */
import assert from "node:assert/strict";
import { after, before, type TestContext, test } from "node:test";
import { silentLog } from "#base/log.ts";
import { Secret } from "#base/secret.ts";
import { Fault } from "#core/fault.ts";
import type { EndedResponse, ResponseStatus } from "#core/responses.ts";
import { scratchState } from "#policy/store/store.contract.ts";
import { openStore, type Store } from "#policy/store/store.ts";
import { postgresMissing, startPostgres, type TestPostgres } from "#test/fixtures/postgres.ts";
import { DatabaseResponses, type ResponseStoreOptions } from "./store.ts";

let postgres: TestPostgres | undefined;
before(async () => {
  if (postgresMissing === undefined) postgres = await startPostgres();
});
after(() => postgres?.stop());

const MIB = 1024 * 1024;
const ROOMY = { responses: 1000, bytes: 1000 * MIB };

function response(id: string, status: ResponseStatus = "completed", text = "x"): EndedResponse {
  const messages = [
    { role: "user", content: text },
    { role: "assistant", content: "naïve \u{1f511} \"'\\ \0 \u2028" },
  ];
  return { id, status, body: { id, status, deep: [[{ a: null }]] }, messages };
}

for (const kind of ["SQLite", "PostgreSQL"] as const) {
  const it = (what: string, run: (t: TestContext) => Promise<void>): void =>
    void test(`${kind}: ${what}`, { skip: kind === "PostgreSQL" ? (postgresMissing ?? false) : false }, run);

  /** Servers over one database; their rounds are made by the test. */
  const scene = async (t: TestContext) => {
    const url = kind === "PostgreSQL" ? await postgres?.database() : undefined;
    const state = scratchState(t);
    const open = async (more: Partial<ResponseStoreOptions> = {}) => {
      const store = await openStore({ state, ...(url === undefined ? {} : { databaseUrl: new Secret(url) }) });
      const responses = new DatabaseResponses({
        db: store.db,
        log: silentLog,
        ofTenant: ROOMY,
        ofAll: ROOMY,
        keepMs: 1000,
        beatMs: 1 << 30,
        now: () => 10_000,
        ...more,
      });
      await responses.open();
      t.after(() => store.close());
      return { responses, store };
    };
    return open;
  };
  const sums = async ({ db }: Store) => {
    const rows = await db.selectFrom("responses").select(["tenant", "bytes"]).execute();
    const totals = await db
      .selectFrom("response_totals")
      .selectAll()
      .where("responses", ">", 0)
      .orderBy("tenant")
      .execute();
    const counted = Map.groupBy(rows, ({ tenant }) => tenant);
    const expected = [...counted].sort().map(([tenant, own]) => ({
      tenant,
      responses: own.length,
      bytes: own.reduce((sum, { bytes }) => sum + bytes, 0),
    }));
    assert.deepEqual(totals, expected, "the sums are what is there");
    return Object.fromEntries(totals.map(({ tenant, responses }) => [tenant, responses]));
  };

  it("what one server stores another reads, whole, and only its tenant does", async (t) => {
    const open = await scene(t);
    const [one, two] = [await open(), await open()];
    const log = [{ type: "text" as const, choice: 0, text: "é" }];
    const whole = { ...response("r1"), log };
    await one.responses.put("a", whole);
    assert.deepEqual(await two.responses.get("a", "r1"), whole);
    assert.equal(await two.responses.get("b", "r1"), undefined);
    assert.equal(await two.responses.remove("b", "r1"), false);
    assert.equal(await two.responses.cancel("b", "r1"), false);
    assert.equal(await two.responses.remove("a", "r1"), true);
    assert.equal(await one.responses.get("a", "r1"), undefined);
    assert.equal(await one.responses.remove("a", "r1"), false);
    assert.deepEqual(await sums(one.store), {});
  });

  it("by tenant: over the count or the bytes the oldest goes, never the newest", async (t) => {
    let now = 10_000;
    const { responses, store } = await (await scene(t))({
      ofTenant: { responses: 3, bytes: 10_000 },
      now: () => now++,
    });
    for (let i = 0; i < 5; i++) await responses.put("a", response(`a${i}`));
    await responses.put("b", response("b0"));
    const left = async () =>
      (await store.db.selectFrom("responses").select("id").orderBy("id").execute()).map(({ id }) => id);
    assert.deepEqual(await left(), ["a2", "a3", "a4", "b0"]);
    await responses.put("a", response("a5", "completed", "y".repeat(9950)));
    assert.deepEqual(await left(), ["a5", "b0"]);
    await responses.put("a", response("a6", "completed", "y".repeat(20_000)));
    assert.deepEqual(await left(), ["a6", "b0"]);
    assert.deepEqual(await sums(store), { a: 1, b: 1 });
  });

  it("in all: who has most gives, nobody else", async (t) => {
    const { responses, store } = await (await scene(t))({ ofAll: { responses: 6, bytes: 100_000 } });
    await responses.put("small", response("s0"));
    for (let i = 0; i < 20; i++) await responses.put("large", response(`l${String(i).padStart(2, "0")}`));
    assert.deepEqual(await sums(store), { large: 5, small: 1 });
    await responses.put("large", response("huge", "completed", "y".repeat(200_000)));
    assert.deepEqual(await sums(store), { large: 1, small: 1 });
    assert.ok(await responses.get("small", "s0"));
  });

  it("what is no id is nobody's", async (t) => {
    const { responses } = await (await scene(t))();
    for (const id of ["a\0b", "", "é", "x".repeat(200)]) assert.equal(await responses.get("a", id), undefined);
  });

  it("what is too old does not exist, and goes", async (t) => {
    let now = 10_000;
    const { responses, store } = await (await scene(t))({ now: () => now });
    await responses.put("a", response("old"));
    await responses.put("b", response("old2"));
    now = 11_001;
    await responses.put("a", response("new"));
    assert.equal(await responses.get("a", "old"), undefined);
    assert.equal(await responses.remove("b", "old2"), false);
    await responses.round();
    assert.deepEqual(await sums(store), { a: 1 });
  });

  it("a response on its way: begun, started, finished once", async (t) => {
    const open = await scene(t);
    const [one, two] = [await open(), await open()];
    await one.responses.begin("a", response("r", "queued"));
    assert.equal((await two.responses.get("a", "r"))?.status, "queued");
    await one.responses.started("r");
    assert.equal((await two.responses.get("a", "r"))?.status, "in_progress");
    assert.equal(await two.responses.finish("a", response("r")), false, "it is another server's");
    assert.equal(await one.responses.finish("a", response("r", "completed", "longer")), true);
    assert.equal(await one.responses.finish("a", response("r", "failed")), false);
    await one.responses.started("r");
    assert.deepEqual(await two.responses.get("a", "r"), response("r", "completed", "longer"));
    assert.equal(await one.responses.cancel("a", "r"), false);
    assert.deepEqual(await sums(one.store), { a: 1 });
  });

  it("cancelled or deleted by another server: the one that works on it hears of it, and changes nothing any more", async (t) => {
    const open = await scene(t);
    const [one, two] = [await open(), await open()];
    const heard: string[] = [];
    one.responses.onEnded((id) => void heard.push(id));
    for (const id of ["stays", "cancelled", "deleted"]) await one.responses.begin("a", response(id, "queued"));
    assert.equal(await two.responses.cancel("a", "cancelled"), true);
    assert.equal(await two.responses.cancel("a", "cancelled"), false);
    assert.equal(await two.responses.remove("a", "deleted"), true);
    await one.responses.round();
    assert.deepEqual(heard.sort(), ["cancelled", "deleted"]);
    assert.equal(await one.responses.finish("a", response("deleted")), false);
    assert.equal(await one.responses.finish("a", response("cancelled")), false);
    assert.equal((await two.responses.get("a", "cancelled"))?.status, "cancelled");
    assert.equal(await two.responses.get("a", "deleted"), undefined);
    assert.deepEqual(await sums(one.store), { a: 2 });
  });

  it("of a cancelled one its own server may still store how far it came", async (t) => {
    const { responses } = await (await scene(t))();
    await responses.begin("a", response("r", "queued"));
    await responses.cancel("a", "r");
    assert.equal(await responses.finish("a", response("r", "cancelled", "so far")), true);
    assert.deepEqual(await responses.get("a", "r"), response("r", "cancelled", "so far"));
  });

  it("what a dead server worked on fails with a reason; a living one keeps its own", async (t) => {
    const open = await scene(t);
    const [dead, alive] = [await open(), await open()];
    await dead.responses.begin("a", response("lost", "queued"));
    await dead.responses.started("lost");
    await dead.responses.begin("a", response("cancelled", "queued"));
    await dead.responses.cancel("a", "cancelled");
    await alive.responses.begin("a", response("kept", "queued"));
    const next = await open();
    for (let i = 0; i < 4; i++) {
      await next.responses.round();
      await alive.responses.round();
    }
    assert.equal((await next.responses.get("a", "lost"))?.status, "in_progress", "it may only be slow");
    for (let i = 0; i < 4; i++) {
      await alive.responses.round();
      await next.responses.round();
    }
    const lost = await next.responses.get("a", "lost");
    assert.deepEqual(
      [lost?.status, lost?.error],
      ["failed", { code: "server_error", message: "The server that worked on this response has ended." }],
    );
    assert.equal((await next.responses.get("a", "cancelled"))?.status, "cancelled");
    assert.equal((await next.responses.get("a", "kept"))?.status, "queued");
    // It was not dead, only away: it hears that its work is over, and lives on.
    const heard: string[] = [];
    dead.responses.onEnded((id) => void heard.push(id));
    await dead.responses.round();
    assert.deepEqual(heard.sort(), ["cancelled", "lost"]);
    assert.equal(await dead.responses.finish("a", response("lost")), false);
    await dead.responses.begin("a", response("again", "queued"));
    assert.equal(await dead.responses.finish("a", response("again")), true);
  });

  it("a server that ends leaves nothing on its way", async (t) => {
    const open = await scene(t);
    const [one, two] = [await open(), await open()];
    await one.responses.begin("a", response("r", "queued"));
    await one.responses.close();
    const left = await two.responses.get("a", "r");
    assert.deepEqual([left?.status, left?.error?.message], ["failed", "The server was shut down."]);
    const servers = await two.store.db.selectFrom("response_servers").selectAll().execute();
    assert.equal(servers.length, 1);
  });

  it("many at once lose no sum", async (t) => {
    const open = await scene(t);
    const bounds = { ofTenant: { responses: 10, bytes: MIB }, ofAll: { responses: 25, bytes: MIB } };
    const servers = [await open(bounds), await open(bounds)];
    const jobs = servers.flatMap(({ responses }, s) =>
      Array.from({ length: 40 }, async (_, i) => {
        const [tenant, id] = [`t${i % 4}`, `r${s}_${i}`];
        if (i % 3 === 0) {
          await responses.begin(tenant, response(id, "queued"));
          await responses.finish(tenant, response(id, "completed", "z".repeat(i * 10)));
        } else await responses.put(tenant, response(id));
        if (i % 5 === 0) await responses.remove(tenant, id);
      }),
    );
    await Promise.all(jobs);
    const left = await sums((servers[0] as { store: Store }).store);
    const counts = Object.values(left);
    assert.ok(
      counts.every((count) => count <= 10),
      JSON.stringify(left),
    );
    assert.ok(counts.reduce((sum, count) => sum + count, 0) <= 25, JSON.stringify(left));
  });

  it("a database that is away is a fault with a time to try again", async (t) => {
    const { responses, store } = await (await scene(t))();
    await store.close();
    await assert.rejects(
      responses.put("a", response("r")),
      (error) => error instanceof Fault && error.kind === "policy_unavailable" && error.retryAfterMs === 1000,
    );
    await responses.round();
  });
}
