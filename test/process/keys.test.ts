/**
 * Where keys come from, and where they never appear.
 */
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { startServer, type TestServer } from "../harness.ts";

const folder = (): string => mkdtempSync(join(tmpdir(), "castellan-keys-"));
const models = async (server: TestServer, key: string | null): Promise<number> =>
  (await server.fetch("/v1/models", { key })).status;
const MINTED = /cst_[0-9A-Za-z]{46}/;

test("the first start mints a key and shows it once; only its hash is kept; later starts know it", async () => {
  const stateDir = join(folder(), "state");
  const failed = await startServer({ apiKey: null, stateDir, model: "/nowhere.gguf", waitReady: false });
  assert.equal(await failed.exited, 1);
  assert.match(failed.stderr(), /there is no such file/);

  const first = await startServer({ apiKey: null, stateDir });
  const key = MINTED.exec(first.stdout())?.[0] ?? "";
  assert.notEqual(key, "", "a failed start before it burnt no key");
  assert.equal(await models(first, key), 200);
  assert.equal(await models(first, `${key.slice(0, -1)}x`), 401);
  assert.equal(await models(first, null), 401);
  assert.equal(statSync(stateDir).mode & 0o777, 0o700);
  for (const file of readdirSync(stateDir, { recursive: true, encoding: "utf8" })) {
    const stats = statSync(join(stateDir, file));
    assert.equal(stats.mode & 0o077, 0);
    assert.ok(stats.isDirectory() || !readFileSync(join(stateDir, file), "latin1").includes(key));
  }
  first.child.kill("SIGTERM");
  assert.equal(await first.exited, 0);

  const second = await startServer({ apiKey: null, stateDir });
  assert.doesNotMatch(second.stdout(), MINTED);
  assert.equal(await models(second, key), 200);
  await second.stop();
});

test("a state directory that others can write to is refused", async () => {
  const stateDir = join(folder(), "state");
  mkdirSync(stateDir);
  chmodSync(stateDir, 0o777);
  const server = await startServer({ apiKey: null, stateDir, waitReady: false });
  assert.equal(await server.exited, 1);
  assert.match(server.stderr(), /writable by others/);
});

test("keys come from flags, variables and a private file", async () => {
  const file = join(folder(), "keys");
  writeFileSync(file, "# two keys\nfile-key-1\nfile-key-2\n", { mode: 0o600 });
  const server = await startServer({ apiKey: "flag-1", args: ["--api-key", "flag-2", "--api-key-file", file] });
  for (const key of ["flag-1", "flag-2", "file-key-1", "file-key-2"]) assert.equal(await models(server, key), 200, key);
  await server.stop();
  for (const variable of ["VLLM_API_KEY", "CASTELLAN_API_KEY"]) {
    const other = await startServer({ apiKey: null, env: { [variable]: "from-env" } });
    assert.equal(await models(other, "from-env"), 200);
    await other.stop();
  }
  chmodSync(file, 0o644);
  const refused = await startServer({ apiKey: null, args: ["--api-key-file", file], waitReady: false });
  assert.equal(await refused.exited, 1);
  assert.match(refused.stderr(), /chmod 600/);
});

test("a key is in no log, no answer and no other process's command line", async () => {
  const secret = "very-secret-key-0123456789";
  const server = await startServer({
    apiKey: null,
    env: { CASTELLAN_API_KEY: secret },
    args: ["--log-level", "debug"],
  });
  await models(server, secret);
  await models(server, `${secret}x`);
  const bad = await server.fetch("/v1/chat/completions", { method: "POST", key: secret, body: "{" });
  const answers = [await bad.text(), await (await server.fetch("/metrics", { key: secret })).text()].join();
  for (const pid of server.descendants()) {
    assert.ok(!readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(secret));
    assert.ok(!readFileSync(`/proc/${pid}/environ`, "latin1").includes(secret));
  }
  server.child.kill("SIGTERM");
  await server.exited;
  assert.ok(!(server.stdout() + server.stderr() + answers).includes(secret));
  await server.stop();
});
