/**
 * Where keys come from, and where they never appear.
 */
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { postgresMissing, startPostgres } from "../fixtures/postgres.ts";
import { makeKey, type ServerOptions, startServer, type TestServer, until } from "../harness.ts";

const folder = (): string => mkdtempSync(join(tmpdir(), "castellan-keys-"));
const models = async (server: TestServer, key: string | null): Promise<number> =>
  (await server.fetch("/v1/models", { key })).status;
const MINTED = /cst_[0-9A-Za-z]{46}/;

/** A server that ends with the test, however the test ends. */
async function serverOf(t: TestContext, options: ServerOptions = {}): Promise<TestServer> {
  const server = await startServer(options);
  t.after(() => server.stop());
  return server;
}

async function printedKey(server: TestServer): Promise<string> {
  await until("the key is printed", () => MINTED.test(server.stdout()));
  return MINTED.exec(server.stdout())?.[0] ?? "";
}

test("the first start mints a key and shows it once; only its hash is kept; later starts know it", async (t) => {
  const stateDir = join(folder(), "state");
  const failed = await serverOf(t, { apiKey: null, stateDir, model: "/nowhere.gguf", waitReady: false });
  assert.equal(await failed.exited, 1);
  assert.match(failed.stderr(), /there is no such file/);

  const first = await serverOf(t, { apiKey: null, stateDir });
  const key = await printedKey(first);
  assert.equal(await models(first, key), 200);
  assert.equal(await models(first, `${key.slice(0, -1)}x`), 401);
  assert.equal(await models(first, null), 401);
  assert.equal(statSync(stateDir).mode & 0o777, 0o700);
  for (const file of readdirSync(stateDir)) {
    assert.equal(statSync(join(stateDir, file)).mode & 0o077, 0);
    assert.ok(!readFileSync(join(stateDir, file), "latin1").includes(key));
  }
  first.child.kill("SIGTERM");
  assert.equal(await first.exited, 0);

  const second = await serverOf(t, { apiKey: null, stateDir });
  await until("the start is told", () => second.stdout().includes("Try it:"));
  assert.doesNotMatch(second.stdout(), MINTED);
  assert.equal(await models(second, key), 200);
});

test("a state directory that others can write to is refused", async (t) => {
  const stateDir = join(folder(), "state");
  mkdirSync(stateDir);
  chmodSync(stateDir, 0o777);
  const server = await serverOf(t, { apiKey: null, stateDir, waitReady: false });
  assert.equal(await server.exited, 1);
  assert.match(server.stderr(), /writable by others/);
});

test("keys come from flags, variables and a private file", async (t) => {
  const file = join(folder(), "keys");
  writeFileSync(file, "# two keys\nfile-key-1\nfile-key-2\n", { mode: 0o600 });
  const server = await serverOf(t, { apiKey: "flag-1", args: ["--api-key", "flag-2", "--api-key-file", file] });
  for (const key of ["flag-1", "flag-2", "file-key-1", "file-key-2"]) assert.equal(await models(server, key), 200, key);
  assert.equal((await server.fetch("/metrics", { key: "flag-1" })).status, 403, "they are users");
  for (const variable of ["VLLM_API_KEY", "CASTELLAN_API_KEY"]) {
    const other = await serverOf(t, { apiKey: null, env: { [variable]: "from-env" } });
    assert.equal(await models(other, "from-env"), 200);
  }
  chmodSync(file, 0o644);
  const refused = await serverOf(t, { apiKey: null, args: ["--api-key-file", file], waitReady: false });
  assert.equal(await refused.exited, 1);
  assert.match(refused.stderr(), /chmod 600/);
});

test("a key made, disabled or bound by another process is so for a running server", async (t) => {
  const server = await serverOf(t);
  const plain = await makeKey(server.stateDir, "user");
  await until("the new key is known", async () => (await models(server, plain)) === 200);
  const elsewhere = await makeKey(server.stateDir, "user", { reach: { networks: ["192.0.2.0/24"] } });
  const expired = await makeKey(server.stateDir, "user", { expiresAt: Date.now() - 1 });
  const early = await makeKey(server.stateDir, "user", { notBefore: Date.now() + 3_600_000 });
  const last = await makeKey(server.stateDir, "user");
  await until("all of them are known", async () => (await models(server, last)) === 200);
  const texts = new Set<string>();
  for (const key of [elsewhere, expired, early, `${last.slice(0, -1)}_`, "unknown"]) {
    const answer = await server.fetch("/v1/models", { key });
    assert.equal(answer.status, 401);
    texts.add(await answer.text());
  }
  assert.equal(texts.size, 1, "every cause reads the same");
});

test("a trusted proxy tells where a caller comes from, nobody else does", async (t) => {
  const from = (server: TestServer, key: string, address: string): Promise<Response> =>
    server.fetch("/v1/models", { key, headers: { "x-forwarded-for": address } });
  const bound = { reach: { networks: ["192.0.2.0/24"] } };
  const open = await serverOf(t, { args: ["--trusted-proxies", "127.0.0.0/8"] });
  const key = await makeKey(open.stateDir, "user", bound);
  await until("the key is known", async () => (await from(open, key, "192.0.2.7")).status === 200);
  assert.equal((await from(open, key, "192.0.2.7, 203.0.113.1")).status, 401);
  assert.equal((await from(open, key, "nonsense")).status, 401);
  assert.equal(await models(open, key), 401);
  const closed = await serverOf(t);
  const other = await makeKey(closed.stateDir, "user", bound);
  const last = await makeKey(closed.stateDir, "user");
  await until("the keys are known", async () => (await models(closed, last)) === 200);
  assert.equal((await from(closed, other, "192.0.2.7")).status, 401);
  const bad = await serverOf(t, { args: ["--trusted-proxies", "nginx"], waitReady: false });
  assert.equal(await bad.exited, 1);
  assert.match(bad.stderr(), /--trusted-proxies: "nginx" is no network/);
});

test("servers that share a PostgreSQL and a pepper share keys", { skip: postgresMissing ?? false }, async (t) => {
  const postgres = await startPostgres();
  t.after(() => postgres.stop());
  const [url, pepper] = [await postgres.database(), join(folder(), "pepper")];
  writeFileSync(pepper, "ab".repeat(32), { mode: 0o600 });
  const shared = { apiKey: null, env: { CASTELLAN_DATABASE_URL: url }, args: ["--pepper-file", pepper] } as const;
  const first = await serverOf(t, shared);
  const key = await printedKey(first);
  const second = await serverOf(t, shared);
  await until("the start is told", () => second.stdout().includes("Try it:"));
  assert.doesNotMatch(second.stdout(), MINTED);
  for (const server of [first, second]) assert.equal(await models(server, key), 200);
  const stranger = await serverOf(t, { ...shared, args: [], waitReady: false });
  assert.equal(await stranger.exited, 1);
  assert.match(stranger.stderr(), /pepper is missing/);
});

test("a key is in no log, no answer and no other process's command line", async (t) => {
  const secret = "very-secret-key-0123456789";
  const server = await serverOf(t, {
    apiKey: null,
    env: { CASTELLAN_API_KEY: secret },
    args: ["--log-level", "debug"],
  });
  await models(server, secret);
  await models(server, `${secret}x`);
  const bad = await server.fetch("/v1/chat/completions", { method: "POST", key: secret, body: "{" });
  const metrics = await server.fetch("/metrics", { key: await makeKey(server.stateDir, "service") });
  const answers = [await bad.text(), await metrics.text()].join();
  for (const pid of server.descendants()) {
    assert.ok(!readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(secret));
    assert.ok(!readFileSync(`/proc/${pid}/environ`, "latin1").includes(secret));
  }
  server.child.kill("SIGTERM");
  await server.exited;
  assert.ok(!(server.stdout() + server.stderr() + answers).includes(secret));
});
