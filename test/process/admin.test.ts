/**
 * Administration of a real server: an administrator's key from the command line, and from then on HTTP alone.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: the shapes are held in test/http/admin.test.ts
  readonly body: any;
}

async function started(t: TestContext, args: readonly string[] = []): Promise<TestServer> {
  const server = await startServer({ args });
  t.after(() => server.stop());
  return server;
}

async function ask(server: TestServer, key: string, target: string, body?: object): Promise<Answer> {
  const answer = await server.fetch(server.opsUrl + target, {
    key,
    method: body === undefined ? "GET" : "POST",
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: await answer.json() };
}

const castellan = (server: TestServer, ...args: string[]): string =>
  execFileSync(process.execPath, ["--disable-warning=ExperimentalWarning", "src/cli/main.ts", ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], CASTELLAN_STATE_DIR: server.stateDir },
  });

const chat = (server: TestServer, key: string): Promise<Response> =>
  server.fetch("/v1/chat/completions", {
    key,
    method: "POST",
    body: JSON.stringify({ model: "castellan-demo", messages: [{ role: "user", content: "Hi" }], max_tokens: 4 }),
  });

/** Nobody's server shows a key anywhere but in the answer that made it. */
function search(server: TestServer, figures: string, secrets: readonly string[]): void {
  const places = new Map([
    ["standard output", server.stdout()],
    ["standard error", server.stderr()],
    ["metrics", figures],
  ]);
  for (const name of readdirSync(server.stateDir, { recursive: true, encoding: "utf8" })) {
    const file = join(server.stateDir, name);
    if (statSync(file).isFile()) places.set(name, readFileSync(file, "latin1"));
  }
  for (const [place, text] of places)
    for (const secret of secrets) assert.ok(!text.includes(secret.slice(4)), `${place} shows a key`);
}

test("a key over HTTP: made, used, disabled, rotated, listed, counted, recorded, and shown nowhere else", async (t) => {
  const server = await started(t, ["--audit-content", "--log-level", "debug"]);
  const root = castellan(server, "keys", "create", "--role", "admin", "--name", "root").trim();
  await until("the administrator's key is known", async () => (await ask(server, root, "/admin/keys")).status === 200);
  const made = await ask(server, root, "/admin/keys/create", { tenant: "acme", name: "bot", models: ["castellan-*"] });
  assert.equal(made.status, 200, JSON.stringify(made.body));
  const { key, id } = made.body as { key: string; id: string };
  assert.equal((await chat(server, key)).status, 200, "the next request");
  assert.equal((await ask(server, root, "/admin/keys/disable", { id })).status, 200);
  assert.equal((await chat(server, key)).status, 401, "the next request");
  await ask(server, root, "/admin/keys/enable", { id });
  const next = (await ask(server, root, "/admin/keys/rotate", { id, overlap_seconds: 0 })).body.key as string;
  assert.deepEqual([(await chat(server, key)).status, (await chat(server, next)).status], [401, 200]);

  let listed = (await ask(server, root, "/admin/keys?tenant=acme")).body.data;
  // When it was used last is written every few seconds, between the two lists as well.
  await until("both lists say the same", async () => {
    listed = (await ask(server, root, "/admin/keys?tenant=acme")).body.data;
    return isDeepStrictEqual(listed, JSON.parse(castellan(server, "keys", "list", "--tenant", "acme", "--json")));
  });
  assert.equal(listed[0].generations.length, 2);
  const used = (await ask(server, root, "/admin/usage?by=key,model&tenant=acme")).body;
  assert.deepEqual([used.data[0].key, used.data[0].model, used.data[0].requests], [id, "castellan-demo", 2]);
  const same = JSON.parse(castellan(server, "usage", "--by", "key,model", "--tenant", "acme", "--json"));
  assert.deepEqual(used, same);

  const records = (await ask(server, root, `/admin/audit?key=${id}&limit=1000`)).body.data;
  const story = records.map(({ event, route, status }: Record<string, unknown>) => event ?? `${route} ${status}`);
  assert.deepEqual(story, [
    "key.create",
    "/v1/chat/completions 200",
    "key.disable",
    "key.enable",
    "key.rotate",
    "/v1/chat/completions 200",
  ]);
  const verified = await ask(server, root, "/admin/audit/verify", {});
  assert.deepEqual([verified.status, verified.body.findings], [200, []]);
  const watcher = await makeKey(server.stateDir, "service");
  const figures = (): Promise<Response> => server.fetch("/metrics", { key: watcher });
  await until("the watcher's key is known", async () => (await figures()).status === 200);
  search(server, await (await figures()).text(), [root, key, next]);

  assert.equal((await server.fetch("/admin/keys", { key: root })).status, 404, "not on the public listener");
  server.child.kill("SIGTERM");
  assert.equal(await server.exited, 0);
  assert.equal(JSON.parse(castellan(server, "audit", "verify", "--json")).findings.length, 0);
});

test("the head and the key to check it with, as they are on the machine", async (t) => {
  const server = await started(t);
  const { status, body } = await ask(server, server.adminKey, "/admin/audit/head");
  assert.equal(status, 200);
  assert.equal(body.public_key, castellan(server, "audit", "key"));
  if (body.head !== null) assert.match(body.head.hash, /^[0-9a-f]{64}$/);
});

test("an administrator of one tenant; without a log keys are made and none is shown", async (t) => {
  const server = await started(t, ["--audit", "off"]);
  const acme = await makeKey(server.stateDir, "admin", { tenant: "acme" });
  await until("the key is known", async () => (await ask(server, acme, "/admin/keys")).status === 200);
  const { data } = (await ask(server, acme, "/admin/keys")).body;
  assert.deepEqual(
    data.map(({ tenant }: { tenant: string }) => tenant),
    ["acme"],
  );
  assert.equal((await ask(server, acme, "/admin/keys/create", { tenant: "other" })).status, 403);
  const made = await ask(server, acme, "/admin/keys/create", {});
  assert.equal(made.body.tenant, "acme");
  assert.equal((await ask(server, server.adminKey, "/admin/audit")).status, 501);
});
