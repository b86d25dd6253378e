/**
 * Where models come from: hub references end to end against a hub on loopback, and files that are refused.
 */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeGguf, writeModel } from "../fixtures/gguf.ts";
import { type HubServer, sha256, startHubServer } from "../fixtures/hub-server.ts";
import { DEMO_MODEL, startServer, until } from "../harness.ts";

/** As an operator with a hub of their own starts it. */
const mirror = (hub: HubServer, cache: string): string[] => [
  "--hf-endpoint",
  hub.url,
  "--hf-storage-hosts",
  hub.storageHost,
  "--download-dir",
  cache,
];

const folder = (): string => mkdtempSync(join(tmpdir(), "castellan-models-"));

async function refused(model: string): Promise<string> {
  const server = await startServer({ model, waitReady: false });
  assert.equal(await server.exited, 1);
  await server.stop();
  return server.stderr();
}

test("hf:org/repo:file is downloaded, resumed, checked, served under its name, and not asked for again", async () => {
  const content = readFileSync(DEMO_MODEL);
  const hub = await startHubServer([
    { path: "demo-Q8_0.gguf", content },
    { path: "README.md", content: Buffer.from("hello") },
  ]);
  hub.behave.dropAfter = [Math.floor(content.length / 2)];
  const cache = join(folder(), "cache");
  const options = { model: "hf:org/repo:Q8_0", args: mirror(hub, cache) };
  try {
    const server = await startServer(options);
    const { data } = (await (await server.fetch("/v1/models")).json()) as { data: { id: string; root: string }[] };
    assert.equal(data[0]?.id, "org/repo");
    assert.doesNotMatch(JSON.stringify(data), new RegExp(cache), "no paths");
    assert.match(server.stdout(), new RegExp(sha256(content)));
    assert.match(server.stderr(), /Downloading demo-Q8_0\.gguf/);
    await server.stop();
    assert.equal(statSync(cache).mode & 0o777, 0o700);
    assert.ok(
      hub.seen.some(({ range }) => range !== undefined),
      "the cut transfer went on where it stopped",
    );
    const sent = hub.bytesSent();
    assert.ok(sent < content.length * 1.2, "nothing was fetched twice");
    const again = await startServer({ ...options, args: [...options.args, "--offline"] });
    await again.stop();
    assert.equal(hub.bytesSent(), sent);
  } finally {
    await hub.close();
  }
});

test("a download whose bytes are not the ones that the hub names is refused and leaves nothing to serve", async () => {
  const content = readFileSync(DEMO_MODEL);
  const hub = await startHubServer([{ path: "demo-Q8_0.gguf", content }]);
  hub.behave.metadata = (entry) => ({ ...entry, lfs: { ...(entry["lfs"] as object), oid: "0".repeat(64) } });
  const cache = join(folder(), "cache");
  try {
    const server = await startServer({
      model: "hf:org/repo",
      args: mirror(hub, cache),
      waitReady: false,
    });
    assert.equal(await server.exited, 1);
    assert.match(server.stderr(), /sha-?256/i);
    const kept = readdirSync(cache, { recursive: true }).map(String);
    assert.deepEqual(
      kept.filter((name) => name.endsWith(".gguf")),
      [],
    );
  } finally {
    await hub.close();
  }
});

test("files that are no model are refused by name, before anything is allocated", async () => {
  const dir = folder();
  const text = join(dir, "text.gguf");
  writeFileSync(text, "this is not a model, whatever its name says");
  assert.match(await refused(text), /text\.gguf.*not a GGUF/i);
  const cut = join(dir, "cut.gguf");
  writeFileSync(cut, readFileSync(DEMO_MODEL).subarray(0, 1_500_000));
  assert.match(await refused(cut), /cut\.gguf.*(truncated|ends)/i);
  const other = join(dir, "other.gguf");
  writeGguf(other, [["general.architecture", { type: "string", value: "clip" }]], []);
  assert.match(await refused(other), /other\.gguf.*clip/);
  assert.match(await refused(join(dir, "none.gguf")), /none\.gguf.*no such file/);
  assert.match(await refused("hf:only-a-name"), /hf:/);
});

test("a model of another shape is served from its path, on Unix sockets of both planes", async () => {
  const dir = folder();
  const model = join(dir, "tiny.gguf");
  writeModel(model);
  const [socket, ops] = [join(dir, "public.sock"), join(dir, "ops.sock")];
  const server = await startServer({ model, args: ["--uds", socket, "--ops-uds", ops], waitReady: false });
  try {
    await until("both sockets are there", () => existsSync(socket) && existsSync(ops));
    for (const path of [socket, ops]) assert.equal(statSync(path).mode & 0o007, 0, "others stay outside");
  } finally {
    await server.stop();
  }
});
