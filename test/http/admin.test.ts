/**
 * Administration through the real corridor, gate, log and store: statuses, the shapes of answers, and what is kept.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { z } from "zod";
import { createHttp, type Http } from "#http/server.ts";
import { bench } from "#policy/audit/_fixture.ts";
import { auditedGate } from "#policy/audit/gate.ts";
import { newestRecords } from "#policy/audit/read.ts";
import { verifyLog } from "#policy/audit/verify.ts";
import { plainGate } from "#policy/gate.ts";
import { createIdentify } from "#policy/identify.ts";
import { readUsage } from "#policy/usage/table.ts";
import { routes } from "#routes/index.ts";
import { adminScene } from "#serving/_admin-fixture.ts";
import { fixture, says } from "#serving/_fixture.ts";
import { AdminAudit } from "#serving/admin-audit.ts";
import { AdminKeys } from "#serving/admin-keys.ts";
import { AdminUsage } from "#serving/admin-usage.ts";
import { emptyAdministration, servicesOf } from "#test/fixtures/services.ts";
import { HeadReply, RecordListReply, VerificationReply } from "#wire/admin/audit.ts";
import { CreateKeyBody, KeyListReply, KeyReply, NewKeyReply } from "#wire/admin/keys.ts";
import { UsageReport } from "#wire/admin/usage.ts";
import { openai } from "#wire/openai/dialect.ts";

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
  readonly headers: Readonly<Record<string, unknown>>;
}

interface Door {
  readonly http: Http;
  /** Of an administrator of the operator's tenant. */
  readonly admin: string;
  ask(target: string, body?: unknown, key?: string): Promise<Answer>;
  /** All that the audit log holds. */
  log(): string;
}

async function door(t: TestContext, { audited = true } = {}): Promise<Door> {
  const scene = await adminScene(t);
  const it = bench(t);
  const log = it.open();
  const admin = {
    ...emptyAdministration(),
    keys: new AdminKeys({
      keys: scene.book,
      refresh: scene.refresh,
      record: (kind, actor, subject, details) => log.event(kind, actor, subject, details),
      caps: servicesOf(fixture()).caps,
    }),
    usage: new AdminUsage({ read: (query) => readUsage(scene.store.db, query) }),
    audit: new AdminAudit(
      audited
        ? {
            newest: async (count, filter) => (await newestRecords(it.directory, count, filter)).records,
            verify: (signal) => verifyLog(it.directory, { signal }),
            head: () => ({ head: undefined, publicKey: "PEM" }),
          }
        : undefined,
    ),
  };
  // Content is kept as it comes: what is not in the log was never given to it.
  const gate = auditedGate(plainGate(createIdentify(scene.set)), log, {
    onFailure: "refuse",
    content: (text) => text,
  });
  const services = { ...servicesOf(fixture({ reply: says("x") })), admin };
  const http = await createHttp({ routes, services, gate, dialect: openai });
  t.after(() => http.close(0));
  const first = await scene.book.create(
    { tenant: "default", name: "root", role: "admin", reach: {}, limits: {}, caps: {} },
    "test",
  );
  await scene.refresh();
  const adminKey = first.key.expose();
  return {
    http,
    admin: adminKey,
    ask: async (target, body, key = adminKey) => {
      const answer = await http.inject("ops", {
        method: body === undefined ? "GET" : "POST",
        url: target,
        headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
        ...(body === undefined ? {} : { payload: typeof body === "string" ? body : JSON.stringify(body) }),
      });
      return { status: answer.statusCode, body: answer.json() as Record<string, unknown>, headers: answer.headers };
    },
    log: () => it.lines().join("\n"),
  };
}

test("the life of a key, in the shapes that are declared, and never to be cached", async (t) => {
  const { ask, http } = await door(t);
  const made = await ask("/admin/keys/create", {
    tenant: "acme",
    name: "bot",
    role: "service",
    scopes: ["inference", "models:read"],
    models: ["llama-*"],
    networks: ["10.0.0.0/8", "127.0.0.1"],
    priority: -2,
    limits: { requests_per_minute: 60, budgets: [{ period: "month", unit: "usd", amount: 10_000_000 }] },
    caps: { n: 2, stop_strings: 1 },
    not_before: "2020-01-01T00:00:00+02:00",
    expires_at: "2990-01-01T12:00:00Z",
  });
  assert.deepEqual([made.status, made.headers["cache-control"]], [200, "no-store"], JSON.stringify(made.body));
  const { key, ...record } = NewKeyReply.strict().parse(made.body);
  assert.match(key, /^cst_[0-9A-Za-z]{46}$/);
  assert.deepEqual(
    [record.tenant, record.role, record.models, record.priority, record.limits, record.caps, record.not_before],
    [
      "acme",
      "service",
      ["llama-*"],
      -2,
      { requests_per_minute: 60, budgets: [{ period: "month", unit: "usd", amount: 10_000_000 }] },
      { n: 2, stop_strings: 1 },
      "2019-12-31T22:00:00.000Z",
    ],
  );
  const models = (text: string) =>
    http.inject("public", { method: "GET", url: "/v1/models", headers: { authorization: `Bearer ${text}` } });
  assert.equal((await models(key)).statusCode, 200, "it works at once");
  assert.deepEqual((await ask(`/admin/keys/show?id=${record.id}`)).body, record);
  const rotated = NewKeyReply.strict().parse((await ask("/admin/keys/rotate", { id: record.id })).body);
  const [first, second] = rotated.generations;
  assert.deepEqual([first?.ends_at === null, second?.generation], [false, 2], "the day that is the default");
  const list = KeyListReply.strict().parse((await ask("/admin/keys?tenant=acme&limit=1")).body);
  assert.deepEqual([list.data.map(({ id }) => id), list.has_more, list.last_id], [[record.id], false, record.id]);
  for (const [change, status, opens] of [
    ["disable", "disabled", 401],
    ["enable", "active", 200],
    ["delete", "deleted", 401],
  ] as const) {
    const changed = await ask(`/admin/keys/${change}`, { id: record.id });
    assert.equal(KeyReply.strict().parse(changed.body).status, status);
    assert.equal((await models(rotated.key)).statusCode, opens, change);
  }
  assert.deepEqual((await ask("/admin/keys?tenant=acme")).body["data"], []);
  const all = KeyListReply.parse((await ask("/admin/keys?tenant=acme&deleted=true")).body);
  assert.equal(all.data[0]?.status, "deleted");
});

test("no new key, and nothing of what is said, is in the log, also where content is kept; each change is, first", async (t) => {
  const { ask, log, http, admin } = await door(t);
  const { key, id } = (await ask("/admin/keys/create", { name: "very-own-name" })).body as Record<string, string>;
  const next = (await ask("/admin/keys/rotate", { id })).body["key"];
  await ask("/admin/keys/create", { name: "refused-name", role: "no-role" });
  await http.inject("public", {
    method: "POST",
    url: "/v1/completions",
    headers: { authorization: `Bearer ${admin}`, "content-type": "application/json" },
    payload: JSON.stringify({ prompt: "kept-content" }),
  });
  const text = log();
  for (const secret of [key, next, admin]) assert.ok(!text.includes(String(secret).slice(4)));
  assert.ok(!text.includes("refused-name"));
  assert.match(text, /"content":\{"text":"\{\\"prompt\\":\\"kept-content/, "of the public listener it is kept");
  const records = text.split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.ok(records.every(({ plane, content }) => plane !== "ops" || content === undefined));
  const story = records.flatMap(({ event, route, actor, subject, details }) =>
    event !== undefined
      ? [[event, actor, subject, details]]
      : route === "/v1/completions"
        ? []
        : route
          ? [[route]]
          : [],
  );
  const actor = (records.find(({ event }) => event === "key.create") as { actor: { id: string } }).actor;
  assert.deepEqual(actor, { kind: "key", id: actor.id, tenant: "default" });
  assert.deepEqual(story, [
    ["key.create", actor, id, { tenant: "default", name: "very-own-name", role: "user", scopes: null }],
    ["/admin/keys/create"],
    ["key.rotate", actor, id, { overlap: "86400s" }],
    ["/admin/keys/rotate"],
    ["/admin/keys/create"],
  ]);
  const shown = (await ask(`/admin/keys/show?id=${id}`)).body;
  assert.equal(shown["created_by"], actor.id);
});

test("what is not taken is a 400 that names it, and changes nothing", async (t) => {
  const { ask } = await door(t);
  const cases: readonly [target: string, body: unknown, says: RegExp][] = [
    ["/admin/keys/create", { name: "x", nmae: "y" }, /nmae/],
    ["/admin/keys/create", { limits: { requestsPerMinute: 1 } }, /limits/],
    ["/admin/keys/create", { limits: { requests_per_minute: -1 } }, /limits\.requests_per_minute/],
    ["/admin/keys/create", { limits: { budgets: [{ period: "year", unit: "usd", amount: 1 }] } }, /budgets\.0\.period/],
    ["/admin/keys/create", { caps: { n: 0 } }, /caps\.n/],
    ["/admin/keys/create", { caps: { everything: 1 } }, /caps/],
    ["/admin/keys/create", { role: "god" }, /role/],
    ["/admin/keys/create", { scopes: ["everything"] }, /scopes\.0/],
    ["/admin/keys/create", { scopes: ["ops"] }, /role user does not have the scope ops/],
    ["/admin/keys/create", { networks: ["10.0.0.0/99"] }, /networks\.0/],
    ["/admin/keys/create", { priority: 1e12 }, /priority/],
    ["/admin/keys/create", { expires_at: "2030-01-01" }, /expires_at/],
    ["/admin/keys/create", { expires_at: "2030-02-30T00:00:00Z" }, /expires_at/],
    ["/admin/keys/create", { expires_at: "2020-01-01T00:00:00Z" }, /expired already/],
    ["/admin/keys/create", { not_before: "2031-01-01T00:00:00Z", expires_at: "2030-01-01T00:00:00Z" }, /end before/],
    ["/admin/keys/create", { tenant: "a b" }, /tenant/],
    ["/admin/keys/create", { tenant: "" }, /tenant/],
    ["/admin/keys/create", { name: "a\u0007b" }, /name/],
    ["/admin/keys/create", "[]", /object/],
    ["/admin/keys/rotate", { id: "key_x", overlap_seconds: -1 }, /overlap_seconds/],
    ["/admin/keys/rotate", { id: "key_x", overlap: 1 }, /overlap/],
    ["/admin/keys/disable", {}, /id/],
    ["/admin/keys?limit=501", undefined, /limit/],
    ["/admin/keys?limit=0", undefined, /limit/],
    ["/admin/keys?limit=1e2", undefined, /limit/],
    ["/admin/keys?deleted=yes", undefined, /deleted/],
    ["/admin/keys?tenants=acme", undefined, /tenants/],
    ["/admin/keys/show", undefined, /id/],
    ["/admin/usage?by=week", undefined, /by takes/],
    ["/admin/usage?from=today", undefined, /from is a day/],
    ["/admin/audit?status=9", undefined, /status/],
    ["/admin/audit?since=10m", undefined, /since/],
    ["/admin/audit?limit=1001", undefined, /limit/],
    ["/admin/audit?follow=1", undefined, /follow/],
  ];
  for (const [target, body, says] of cases) {
    const { status, body: answer } = await ask(target, body);
    const label = `${target} ${JSON.stringify(body)}: ${JSON.stringify(answer)}`;
    assert.equal(status, 400, label);
    assert.match((answer["error"] as { message: string }).message, says, label);
  }
  assert.equal(KeyListReply.parse((await ask("/admin/keys?deleted=true")).body).data.length, 1);
});

test("404 for a key that is not there, 403 beyond the caller, 404 on the public listener", async (t) => {
  const { ask, http, admin } = await door(t);
  const make = async (body: object): Promise<string> => (await ask("/admin/keys/create", body)).body["key"] as string;
  assert.equal((await ask("/admin/keys/show?id=key_nowhere")).status, 404);
  assert.equal((await ask("/admin/keys/disable", { id: "key_nowhere" })).status, 404);
  const acme = await make({ tenant: "acme", role: "admin" });
  const manager = await make({ tenant: "acme", role: "admin", scopes: ["keys:read", "keys:write"] });
  const user = await make({ tenant: "acme" });
  const { data } = KeyListReply.parse((await ask("/admin/keys?tenant=default")).body);
  const root = data[0]?.id ?? "";
  for (const key of [acme, manager]) {
    assert.equal((await ask(`/admin/keys/show?id=${root}`, undefined, key)).status, 404);
    assert.equal((await ask("/admin/keys/rotate", { id: root }, key)).status, 404);
    assert.deepEqual((await ask("/admin/keys?tenant=default", undefined, key)).body["data"], []);
    assert.equal((await ask("/admin/keys/create", { tenant: "default" }, key)).status, 403);
  }
  const refused = await ask("/admin/keys/create", { role: "admin" }, manager);
  assert.equal(refused.status, 403);
  assert.match(JSON.stringify(refused.body), /scopes: lora:write is not yours to give/);
  assert.equal((await ask("/admin/keys/create", {}, manager)).body["tenant"], "acme");
  for (const [target, body] of [["/admin/audit/head"], ["/admin/audit/verify", {}]] as const)
    assert.equal((await ask(target, body, acme)).status, 403, target);
  for (const { method, path } of routes.filter((route) => route.path.startsWith("/admin/"))) {
    const refusal = await ask(path, method === "POST" ? {} : undefined, user);
    assert.equal(refusal.status, 403, path);
    const headers = { authorization: `Bearer ${admin}` };
    assert.equal((await http.inject("public", { method: method as "GET", url: path, headers })).statusCode, 404, path);
  }
});

test("usage and the log, in the shapes that are declared", async (t) => {
  const { ask } = await door(t);
  assert.deepEqual(UsageReport.strict().parse((await ask("/admin/usage?by=key&from=2026-01-01")).body), {
    from: "2026-01-01",
    to: null,
    data: [],
  });
  await ask("/admin/nowhere");
  const { data } = RecordListReply.strict().parse((await ask("/admin/audit?status=4xx&limit=5")).body);
  assert.deepEqual(
    data.map(({ kind, status, fault }) => [kind, status, fault]),
    [["call", 404, "route_not_found"]],
  );
  const found = VerificationReply.strict().parse((await ask("/admin/audit/verify", {})).body);
  assert.deepEqual([found.findings, found.files, found.key_source], [[], 1, "the log"]);
  assert.deepEqual(HeadReply.strict().parse((await ask("/admin/audit/head")).body), { head: null, public_key: "PEM" });
});

test("where no log is kept its routes say so, and keys can be made all the same", async (t) => {
  const { ask } = await door(t, { audited: false });
  for (const [target, body] of [["/admin/audit"], ["/admin/audit/head"], ["/admin/audit/verify", {}]] as const) {
    const { status, body: answer } = await ask(target, body);
    assert.equal(status, 501, target);
    assert.match(JSON.stringify(answer), /No audit log is kept/);
  }
  assert.equal((await ask("/admin/keys/create", {})).status, 200);
});

/** Every field that can be said of a key, and as what it is found in the record. */
const KEY_FIELDS: Readonly<Record<string, unknown>> = {
  tenant: "acme",
  name: "bot",
  role: "service",
  scopes: ["inference"],
  models: ["a*"],
  adapters: ["b*"],
  tools: ["c"],
  networks: ["10.0.0.0/8"],
  priority: -2,
  limits: { requests_per_minute: 60 },
  caps: { n: 2 },
  not_before: "2020-01-01T00:00:00.000Z",
  expires_at: "2990-01-01T12:00:00.000Z",
};

test("each field of a key is kept as it was said, and nothing else is another with it", async (t) => {
  const { ask } = await door(t);
  assert.deepEqual(Object.keys(KEY_FIELDS).sort(), Object.keys(CreateKeyBody.shape).sort());
  const made = async (body: object): Promise<Record<string, unknown>> => {
    const answer = await ask("/admin/keys/create", body);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body;
  };
  const plain = await made({});
  for (const [name, value] of Object.entries(KEY_FIELDS)) {
    const record = await made({ [name]: value });
    const found = record[name];
    if (name === "limits" || name === "caps") assert.partialDeepStrictEqual(found, value as object, name);
    else assert.deepEqual(found, value, name);
    assert.notDeepEqual(plain[name], found, name);
    // A role brings scopes of its own.
    const others = Object.keys(KEY_FIELDS).filter(
      (other) => other !== name && !(name === "role" && other === "scopes"),
    );
    for (const other of others) assert.deepEqual(record[other], plain[other], `${name} changes ${other}`);
  }
});

test("nonsense in any field of any route is a 400 that names it, and so is a field that nobody knows", async (t) => {
  const { ask } = await door(t);
  const admin = routes.filter(({ path }) => path.startsWith("/admin/"));
  const wrong: string[] = [];
  let fields = 0;
  for (const { path, body, query } of admin) {
    const schema = body ?? query;
    if (schema === undefined) continue;
    const known = Object.keys(z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }).properties ?? {});
    for (const name of [...known, "nobody_knows_it"]) {
      fields++;
      const answer =
        body === undefined
          ? await ask(`${path}?${name}=${"x".repeat(2000)}`)
          : await ask(path, { [name]: [{ a: [1] }] });
      const said = JSON.stringify(answer.body);
      if (answer.status !== 400 || !said.includes(name)) wrong.push(`${path} ${name}: ${answer.status} ${said}`);
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(fields > 40, String(fields));
});
