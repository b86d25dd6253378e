/**
 * Keys through administration, over a real store: who sees and changes what, and in which order it happens.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import type { CreateKeyCall } from "#wire/admin/keys.ts";
import { type AdminScene, adminScene, caller, managerOf, may } from "./_admin-fixture.ts";
import { AdminKeys } from "./admin-keys.ts";

const PLAIN: CreateKeyCall = { name: "bot", role: "user", reach: {}, limits: {}, caps: {} };
const ALL = { deleted: false, limit: 100 };
const operator = caller("default");
const acme = caller("acme");

const refused = (work: Promise<unknown>, kind: FaultKind, says: RegExp): Promise<void> =>
  assert.rejects(work, (error) => error instanceof Fault && error.kind === kind && says.test(error.message));

const create = ({ keys }: AdminScene, who: Principal, more: Partial<CreateKeyCall> = {}) =>
  keys.create(may(who, "keys:write"), { ...PLAIN, ...more });

async function idsOf({ keys }: AdminScene, who: Principal, filter: Partial<Parameters<AdminKeys["list"]>[1]> = {}) {
  const { keys: found, more } = await keys.list(may(who, "keys:read"), { ...ALL, ...filter });
  return { ids: found.map(({ id }) => id), more };
}

test("made, in force before the answer, with its maker's name; in the log before it is there", async (t) => {
  const scene = await adminScene(t);
  const { record, key } = await create(scene, acme, { role: "service", scopes: ["inference"] });
  assert.equal(record.tenant, "acme");
  assert.equal(record.createdBy, "key_of_acme");
  assert.equal(scene.set.find(key.expose()).id, record.id);
  assert.deepEqual(scene.events, [
    {
      kind: "key.create",
      actor: { kind: "key", id: "key_of_acme", tenant: "acme" },
      subject: record.id,
      details: { tenant: "acme", name: "bot", role: "service", scopes: ["inference"] },
    },
  ]);
  assert.deepEqual(await scene.keys.show(may(acme, "keys:read"), record.id), await scene.book.get(record.id));
});

test("rotated, disabled, enabled, deleted: each counts at once", async (t) => {
  const scene = await adminScene(t);
  const { record, key } = await create(scene, operator);
  const write = may(operator, "keys:write");
  const opens = (text: string): boolean => {
    try {
      return scene.set.find(text).id === record.id;
    } catch {
      return false;
    }
  };
  const next = await scene.keys.rotate(write, record.id, 3600);
  assert.deepEqual([opens(key.expose()), opens(next.key.expose())], [true, true]);
  const last = await scene.keys.rotate(write, record.id, 0);
  assert.deepEqual(
    [key, next.key, last.key].map((one) => opens(one.expose())),
    [false, false, true],
  );
  assert.notEqual((await scene.keys.change(write, "disable", record.id)).disabledAt, undefined);
  assert.ok(!opens(last.key.expose()));
  await scene.keys.change(write, "enable", record.id);
  assert.ok(opens(last.key.expose()));
  await scene.keys.change(write, "delete", record.id);
  assert.ok(!opens(last.key.expose()));
  for (const change of ["enable", "disable", "delete"] as const)
    await refused(scene.keys.change(write, change, record.id), "invalid_request", /is deleted/);
  await refused(scene.keys.rotate(write, record.id, 0), "invalid_request", /is deleted/);
  assert.deepEqual(
    scene.events.map(({ kind, subject, details }) => [kind, subject === record.id, details]),
    [
      ["key.create", true, { tenant: "default", name: "bot", role: "user", scopes: null }],
      ["key.rotate", true, { overlap: "3600s" }],
      ["key.rotate", true, { overlap: "0s" }],
      ["key.disable", true, undefined],
      ["key.enable", true, undefined],
      ["key.delete", true, undefined],
    ],
  );
});

test("another tenant's keys do not exist, and none can be made there", async (t) => {
  const scene = await adminScene(t);
  const theirs = (await create(scene, operator, { tenant: "other" })).record.id;
  const own = (await create(scene, acme)).record.id;
  const before = scene.events.length;
  for (const id of [theirs, "key_nowhere"]) {
    await refused(scene.keys.show(may(acme, "keys:read"), id), "key_not_found", /^There is no key of this id\.$/);
    await refused(scene.keys.rotate(may(acme, "keys:write"), id, 0), "key_not_found", /./);
    await refused(idsOf(scene, acme, { after: id }), "key_not_found", /./);
    for (const change of ["disable", "enable", "delete"] as const)
      await refused(scene.keys.change(may(acme, "keys:write"), change, id), "key_not_found", /./);
  }
  for (const tenant of ["other", "default"])
    await refused(create(scene, acme, { tenant }), "forbidden", /tenant: it looks after its own alone/);
  assert.deepEqual(await idsOf(scene, acme), { ids: [own], more: false });
  assert.deepEqual(await idsOf(scene, acme, { tenant: "acme" }), { ids: [own], more: false });
  for (const tenant of ["other", "default", "nowhere"])
    assert.deepEqual(await idsOf(scene, acme, { tenant }), { ids: [], more: false });
  assert.deepEqual(new Set((await idsOf(scene, operator)).ids), new Set([theirs, own]));
  assert.deepEqual((await idsOf(scene, operator, { tenant: "other" })).ids, [theirs]);
  assert.equal(scene.events.length, before, "what was refused changed nothing");
  assert.equal((await scene.book.get(theirs))?.secrets.length, 1);
});

test("who is no administrator gives no more than it has, and touches no key that may more", async (t) => {
  const scene = await adminScene(t);
  const manager = managerOf("acme");
  const powerful = (await create(scene, acme, { role: "admin" })).record.id;
  const write = may(manager, "keys:write");
  const before = scene.events.length;
  await refused(scene.keys.rotate(write, powerful, 0), "forbidden", /scopes: .* is not yours to give/);
  for (const change of ["disable", "enable", "delete"] as const)
    await refused(scene.keys.change(write, change, powerful), "forbidden", /scopes/);
  await refused(create(scene, manager, { role: "admin" }), "forbidden", /scopes/);
  await refused(create(scene, manager, { reach: { priority: -1 } }), "forbidden", /priority/);
  await refused(create(scene, manager, { caps: { n: DEFAULT_CAPS.n + 1 } }), "forbidden", /caps: n/);
  const narrow = managerOf("acme", { reach: { models: ["a-*"], networks: ["10.0.0.0/8"] } });
  await refused(create(scene, narrow, { reach: { networks: ["10.0.0.1"] } }), "forbidden", /models/);
  await refused(create(scene, narrow, { reach: { models: ["a-1"] } }), "forbidden", /networks/);
  assert.equal(scene.events.length, before);
  assert.equal((await scene.book.get(powerful))?.secrets.length, 1);
  const { record } = await create(scene, narrow, { reach: { models: ["a-1"], networks: ["10.0.0.1"] } });
  assert.equal((await scene.keys.rotate(may(narrow, "keys:write"), record.id, 0)).record.secrets.length, 2);
  await create(scene, manager, { role: "service" });
});

test("what cannot be recorded is not done", async (t) => {
  const scene = await adminScene(t);
  const { record } = await create(scene, operator);
  scene.breakLog();
  const write = may(operator, "keys:write");
  for (const work of [
    create(scene, operator),
    scene.keys.rotate(write, record.id, 0),
    scene.keys.change(write, "delete", record.id),
  ])
    await refused(work, "policy_unavailable", /Nothing was changed/);
  assert.deepEqual(await scene.book.list({ deleted: true }), [record]);
});

test("pages follow each other, however the keys were made", async (t) => {
  const scene = await adminScene(t);
  const made: string[] = [];
  for (let i = 0; i < 7; i++) made.push((await create(scene, operator, { name: `n${i}` })).record.id);
  await scene.keys.change(may(operator, "keys:write"), "delete", made[3] as string);
  const pages: string[][] = [];
  for (let after: string | undefined; ; ) {
    const { ids, more } = await idsOf(scene, operator, { limit: 2, ...(after === undefined ? {} : { after }) });
    pages.push(ids);
    if (!more) break;
    after = ids.at(-1);
  }
  assert.deepEqual(
    pages.map(({ length }) => length),
    [2, 2, 2],
  );
  assert.deepEqual(new Set(pages.flat()), new Set(made.filter((_, i) => i !== 3)));
  assert.equal((await idsOf(scene, operator, { deleted: true })).ids.length, 7);
});

test("what cannot be a key is told by its name", async (t) => {
  const scene = await adminScene(t);
  await refused(create(scene, operator, { expiresAt: 1 }), "invalid_request", /have expired already/);
  await refused(create(scene, operator, { tenant: "a b" }), "invalid_request", /^tenant: /);
  await refused(create(scene, operator, { reach: { networks: ["10.0.0.0/99"] } }), "invalid_request", /^networks\.0: /);
  await refused(
    create(scene, operator, { scopes: ["ops"] }),
    "invalid_request",
    /role user does not have the scope ops/,
  );
  assert.deepEqual(scene.events, []);
});

test("a store that does not answer is 503; a new key is not lost when only the look at the change fails", async (t) => {
  const scene = await adminScene(t);
  const away = async (): Promise<never> => {
    throw new Error("SQLITE_BUSY: database is locked in /secret/place");
  };
  const options = { keys: scene.book, record: async () => {}, caps: DEFAULT_CAPS };
  const blind = new AdminKeys({ ...options, refresh: away });
  const { record } = await blind.create(may(operator, "keys:write"), PLAIN);
  await refused(blind.change(may(operator, "keys:write"), "disable", record.id), "policy_unavailable", /not in force/);
  const broken = new AdminKeys({ ...options, refresh: async () => {}, keys: { ...bookOf(scene), list: away } });
  await refused(
    broken.list(may(operator, "keys:read"), ALL),
    "policy_unavailable",
    /^The store [a-z ]+ at the moment\.$/,
  );
});

function bookOf({ book }: AdminScene): ConstructorParameters<typeof AdminKeys>[0]["keys"] {
  return {
    list: (filter) => book.list(filter),
    get: (id) => book.get(id),
    create: (spec, by) => book.create(spec, by),
    rotate: (id, overlap, by) => book.rotate(id, overlap, by),
    disable: (id) => book.disable(id),
    enable: (id) => book.enable(id),
    delete: (id) => book.delete(id),
  };
}

test("a key with limits and an end hands out none that may use more or lasts longer, but ends any of its tenant", async (t) => {
  const scene = await adminScene(t);
  const expiresAt = Date.now() + 3_600_000;
  const limits = { requestsPerMinute: 60, budgets: [{ period: "day", unit: "tokens", amount: 1000 }] } as const;
  const made = await create(scene, operator, { tenant: "acme", role: "admin", limits, expiresAt });
  const open = await create(scene, operator, { tenant: "acme" });
  const who = scene.set.find(made.key.expose());
  const write = may(who, "keys:write");
  await refused(create(scene, who), "forbidden", /limits: requests_per_minute has to be given, and is at most 60\.$/);
  await refused(create(scene, who, { limits: { requestsPerMinute: 60 } }), "forbidden", /a budget in tokens a day/);
  await refused(create(scene, who, { limits }), "forbidden", /expires_at: has to be given, and is 20.*Z at the latest/);
  await refused(create(scene, who, { limits, expiresAt: expiresAt + 1 }), "forbidden", /expires_at/);
  assert.equal((await create(scene, who, { limits, expiresAt })).record.expiresAt, expiresAt);
  await refused(scene.keys.rotate(write, open.record.id, 0), "forbidden", /limits/);
  await scene.keys.change(write, "disable", open.record.id);
  await refused(scene.keys.change(write, "enable", open.record.id), "forbidden", /limits/);
  await scene.keys.change(write, "delete", open.record.id);
});

test("who calls with a secret that was rotated away gets nothing that outlives it", async (t) => {
  const scene = await adminScene(t);
  const { record, key } = await create(scene, operator, { tenant: "acme", role: "admin" });
  assert.equal(scene.set.find(key.expose()).until, undefined);
  await scene.keys.rotate(may(operator, "keys:write"), record.id, 3600);
  const old = scene.set.find(key.expose());
  assert.ok(old.until !== undefined && old.until <= Date.now() + 3_600_000);
  await refused(create(scene, old), "forbidden", /expires_at/);
  await refused(scene.keys.rotate(may(old, "keys:write"), record.id, 3600), "forbidden", /expires_at/);
  assert.ok((await create(scene, old, { expiresAt: old.until })).record.expiresAt);
});
