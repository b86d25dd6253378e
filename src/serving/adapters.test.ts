import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { UNMETERED } from "#core/metering.ts";
import { AuditFailure } from "#policy/audit/log.ts";
import { authorize } from "#policy/authorize.ts";
import { principalOf } from "#policy/roles.ts";
import { fixture, grant } from "./_fixture.ts";
import type { AdapterSource } from "./adapters.ts";

const caller = grant("lora:write");
const load = (name: string, path = "/a", inPlace = false) => ({ name, path, inPlace });
const refused = (kind: string, text: RegExp) => (error: unknown) =>
  error instanceof Fault && error.kind === kind && text.test(error.message);

test("an adapter is served under its name, and no longer when it is unloaded", async () => {
  const { adapters, serving, loaded, model } = fixture();
  await adapters.load(caller, load("sql"));
  const served = serving.models.resolve("sql", caller.principal);
  assert.deepEqual(served.lora, { adapter: { number: 1, name: "#1" }, base: model, sha256: "of /a" });
  assert.equal(served.backend, model.backend);
  assert.deepEqual([...loaded], [1]);
  await adapters.unload(caller, "sql");
  assert.throws(() => serving.models.resolve("sql", caller.principal), refused("model_not_found", /sql/));
  assert.deepEqual([...loaded], []);
});

test("a name is loaded once, unless in place, and then its blocks have another name", async () => {
  const { adapters, serving, loaded } = fixture();
  await adapters.load(caller, load("sql"));
  await assert.rejects(adapters.load(caller, load("sql")), refused("invalid_request", /already been loaded/));
  await adapters.load(caller, load("sql", "/b", true));
  assert.deepEqual(serving.models.resolve("sql", caller.principal).lora?.adapter, { number: 2, name: "#2" });
  assert.deepEqual([...loaded], [2]);
  await assert.rejects(adapters.load(caller, load("sql", "/bad", true)), refused("invalid_request", /not an adapter/));
  assert.equal(
    serving.models.resolve("sql", caller.principal).lora?.adapter.number,
    2,
    "the old one stays when the new one is refused",
  );
});

test("names of models, odd names, one too many and two at a time are refused", async () => {
  const { adapters } = fixture();
  await assert.rejects(
    adapters.load(caller, load("demo", "/a", true)),
    refused("invalid_request", /belongs to a model/),
  );
  for (const name of ["", "a b", "../x", "a/../../x", "a/.", "a\0", "a\n", "x".repeat(129), "ü"])
    await assert.rejects(adapters.load(caller, load(name)), refused("invalid_request", /lora_name/));
  const both = await Promise.allSettled([adapters.load(caller, load("a")), adapters.load(caller, load("a"))]);
  assert.deepEqual(
    both.map(({ status }) => status),
    ["fulfilled", "rejected"],
  );
  await adapters.load(caller, load("b"));
  await assert.rejects(adapters.load(caller, load("c")), refused("invalid_request", /no more fit/));
});

test("what is not an adapter cannot be unloaded", async () => {
  const { adapters } = fixture();
  for (const name of ["demo", "none"])
    await assert.rejects(adapters.unload(caller, name), refused("model_not_found", /cannot be found/));
});

test("what a tenant loads is its own: for others it does not exist, and their names do not meet", async () => {
  const { adapters, serving } = fixture();
  const of = (tenant: string) =>
    authorize(principalOf({ id: `key_${tenant}`, tenant, role: "trainer" }), "lora:write", UNMETERED);
  const [acme, other, operator] = [of("acme"), of("other"), of("default")];
  const names = ({ principal }: typeof acme) => serving.models.visibleTo(principal).flatMap((seen) => seen.names);
  const missing = refused("model_not_found", /sql/);

  await adapters.load(acme, load("sql"));
  assert.deepEqual(
    [names(acme).includes("sql"), names(other).includes("sql"), names(operator).includes("sql")],
    [true, false, false],
  );
  assert.throws(() => serving.models.resolve("sql", other.principal), missing);
  assert.throws(() => serving.models.resolve("acme\0sql", other.principal), refused("model_not_found", /exist/));
  await assert.rejects(adapters.unload(other, "sql"), missing);

  await adapters.load(other, load("sql"));
  const [one, two] = [acme, other].map(({ principal }) => serving.models.resolve("sql", principal).lora?.adapter);
  assert.notEqual(one?.number, two?.number);
  assert.notEqual(one?.name, two?.name, "nor do their blocks in the prefix cache");
  for (const adapter of [one, two])
    assert.ok(!adapter?.name.includes("sql"), "metrics, which other tenants may read, tell it");
  await assert.rejects(adapters.unload(operator, "sql"), refused("invalid_request", /2 tenants/));
  await adapters.unload(other, "sql");
  assert.equal(serving.models.resolve("sql", acme.principal).lora?.adapter.number, one?.number);
  await adapters.unload(operator, "sql");
  assert.throws(() => serving.models.resolve("sql", acme.principal), missing);
});

test("a tenant takes no name of the server's, and the operator's adapters are everybody's", async () => {
  const { adapters, serving } = fixture();
  const acme = authorize(principalOf({ id: "key_a", tenant: "acme", role: "trainer" }), "lora:write", UNMETERED);
  const operator = authorize(principalOf({ id: "k", tenant: "default", role: "trainer" }), "lora:write", UNMETERED);
  await adapters.load(operator, load("sql"));
  const nameNow = () => serving.models.resolve("sql", acme.principal).lora?.adapter.name;
  assert.equal(nameNow(), "sql");
  await adapters.load(operator, { ...load("sql"), inPlace: true });
  assert.equal(nameNow(), "sql#2");
  for (const name of ["sql", "demo"])
    await assert.rejects(
      adapters.load(acme, load(name)),
      refused("invalid_request", /belongs to a model of the server/),
    );
  await assert.rejects(adapters.unload(acme, "sql"), refused("model_not_found", /sql/));
});

test("a tenant has so many and no more, whatever the server has room for, and loads one at a time", async () => {
  const { adapters } = fixture({}, {}, { most: 4, mostOf: (tenant) => (tenant === "acme" ? 1 : 2) });
  const of = (tenant: string) =>
    authorize(principalOf({ id: `key_${tenant}`, tenant, role: "trainer" }), "lora:write", UNMETERED);
  const [acme, other, operator] = [of("acme"), of("other"), of("default")];
  await adapters.load(acme, load("a"));
  await assert.rejects(adapters.load(acme, load("b")), refused("invalid_request", /may have 1 lora adapters/));
  await adapters.load(acme, load("a", "/b", true));
  const both = await Promise.allSettled([adapters.load(other, load("a")), adapters.load(other, load("b"))]);
  const [, second] = both;
  assert.ok(second.status === "rejected" && refused("overloaded", /another/i)(second.reason));
  await adapters.load(other, load("b"));
  await assert.rejects(adapters.load(other, load("c")), refused("invalid_request", /may have 2/));
  await adapters.load(operator, load("x"));
  await assert.rejects(adapters.load(operator, load("y")), refused("invalid_request", /no more fit/));
});

test("what is loaded and unloaded is in the log with its digest before it is done; what cannot be is not done", async () => {
  const events: unknown[][] = [];
  let broken = false;
  const record = async (...event: unknown[]): Promise<void> => {
    if (broken) throw new AuditFailure("full");
    events.push(event);
  };
  const released: string[] = [];
  const prepare = async ({ path }: { readonly path: string }) => ({
    path,
    sha256: `of ${path}`,
    form: "peft",
    release: () => void released.push(path),
  });
  const { adapters, loaded } = fixture({}, {}, { record, prepare });
  await adapters.load(caller, load("sql"));
  await adapters.load(caller, load("sql", "/b", true));
  assert.deepEqual(released, ["/a"]);
  broken = true;
  await assert.rejects(adapters.load(caller, load("sql", "/c", true)), refused("policy_unavailable", /./));
  await assert.rejects(adapters.unload(caller, "sql"), refused("policy_unavailable", /./));
  assert.deepEqual([[...loaded], released], [[2], ["/a", "/c"]]);
  broken = false;
  await assert.rejects(adapters.load(caller, load("sql", "/bad", true)), refused("invalid_request", /not an adapter/));
  assert.deepEqual(released, ["/a", "/c", "/bad"]);
  await adapters.unload(caller, "sql");
  const actor = { kind: "key", id: "k", tenant: "t" };
  const details = { name: "sql", owner: "t" };
  assert.deepEqual(events, [
    ["adapter.load", actor, undefined, { ...details, sha256: "of /a", form: "peft" }],
    ["adapter.load", actor, undefined, { ...details, sha256: "of /b", form: "peft" }],
    ["adapter.load", actor, undefined, { ...details, sha256: "of /bad", form: "peft" }],
    ["adapter.unload", actor, undefined, details],
  ]);
});

test("where digests are required, none is loaded without; the others' are handed on", async () => {
  const asked: unknown[] = [];
  const prepare = async (source: AdapterSource) => {
    asked.push(source);
    return { path: source.path, sha256: source.sha256 ?? "", form: "gguf", release: () => {} };
  };
  const { adapters } = fixture({}, {}, { digestRequired: true, prepare });
  const needed = refused("invalid_request", /--require-lora-digest/);
  await assert.rejects(adapters.load(caller, load("a")), needed);
  await assert.rejects(adapters.preload("a", "/a"), needed);
  await adapters.load(caller, { ...load("a"), sha256: "abc" });
  await adapters.preload("b", "/b", "def");
  assert.deepEqual(asked, [
    { path: "/a", sha256: "abc", owner: "t" },
    { path: "/b", sha256: "def", owner: undefined, anywhere: true },
  ]);
});
