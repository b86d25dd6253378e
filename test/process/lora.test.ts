/**
 * LoRA adapters over the real server: named at start, loaded and unloaded while it runs, out of reach of clients.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type TensorSpec, writeAdapter, writeModel } from "../fixtures/gguf.ts";
import { PLAIN_CONFIG, randomTensors, safetensorsOf, tinyModules, writePeft } from "../fixtures/peft.ts";
import { makeKey, type ServerOptions, startServer as start, TEST_KEY, type TestServer, until } from "../harness.ts";

const folder = mkdtempSync(join(tmpdir(), "castellan-lora-"));
const root = join(folder, "adapters");
mkdirSync(root);
const model = join(folder, "model.gguf");
writeModel(model);
const adapter = (path: string, seed: number): string => {
  writeAdapter(path, {}, { seed });
  chmodSync(path, 0o600);
  return path;
};
const first = adapter(join(folder, "first.gguf"), 21);
const second = adapter(join(root, "second.gguf"), 22);
adapter(join(root, "third.gguf"), 23);

const startServer = (options: ServerOptions): Promise<TestServer> =>
  start({ ...options, args: [...(options.args ?? []), "--lora-cache-dir", join(folder, "copies")] });

const post = (url: string, body: unknown, key = TEST_KEY): Promise<Response> =>
  fetch(url, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
const admin = (server: TestServer, what: string, body: unknown) =>
  post(`${server.opsUrl}/v1/${what}_lora_adapter`, body, server.adminKey);

async function answer(server: TestServer, name: string): Promise<string> {
  const body = { model: name, prompt: "tell me", max_tokens: 12, temperature: 0, ignore_eos: true };
  const response = await post(`${server.url}/v1/completions`, body);
  const reply = (await response.json()) as { model: string; choices?: { text: string }[]; error?: { message: string } };
  if (reply.choices === undefined) return `${response.status}`;
  assert.equal(reply.model, name);
  return reply.choices[0]?.text ?? "";
}

test("adapters are served beside the model, loaded and unloaded under both switches", async () => {
  const switches = ["--enable-lora", "--allow-runtime-lora-updating", "--lora-roots", root];
  const args = [
    ...switches,
    "--lora-modules",
    `first=${first}`,
    "--served-model-name",
    "base",
    "--max-model-len",
    "256",
  ];
  const server = await startServer({ model, args });
  try {
    const [base, one] = [await answer(server, "base"), await answer(server, "first")];
    assert.notEqual(base, one);
    assert.equal((await admin(server, "load", { lora_name: "second", lora_path: second })).status, 200);
    const two = await answer(server, "second");
    assert.equal(new Set([base, one, two]).size, 3);
    assert.deepEqual(await Promise.all(["second", "base", "first"].map((name) => answer(server, name))), [
      two,
      base,
      one,
    ]);
    const { data } = (await (await server.fetch("/v1/models")).json()) as {
      data: { id: string; parent: string | null }[];
    };
    assert.deepEqual(
      data.map(({ id, parent }) => [id, parent]),
      [
        ["base", null],
        ["first", "base"],
        ["second", "base"],
      ],
    );
    assert.doesNotMatch(JSON.stringify(data), /castellan-lora/, "no paths");
    const again = await admin(server, "load", { lora_name: "second", lora_path: second });
    assert.equal(again.status, 400);
    assert.match(await again.text(), /already been loaded/);
    const third = { lora_name: "second", lora_path: join(root, "third.gguf"), load_inplace: true };
    assert.equal((await admin(server, "load", third)).status, 200);
    assert.notEqual(await answer(server, "second"), two, "nothing of the old one is left in the prefix cache");
    const removed = await admin(server, "unload", { lora_name: "second" });
    assert.equal(await removed.text(), "Success: LoRA adapter 'second' removed successfully.");
    assert.equal(await answer(server, "second"), "404");
    assert.equal((await admin(server, "unload", { lora_name: "second" })).status, 404);
  } finally {
    await server.stop();
  }
});

test("loading takes only files in the operator's folders, by an operator, on the operations listener", async () => {
  copyFileSync(model, join(root, "model.gguf"));
  chmodSync(join(root, "model.gguf"), 0o600);
  const args = ["--enable-lora", "--lora-roots", root, "--max-model-len", "256"];
  const env = { VLLM_ALLOW_RUNTIME_LORA_UPDATING: "True" };
  const server = await startServer({ model, args, env });
  try {
    const refused = async (path: string, text: RegExp): Promise<void> => {
      const response = await admin(server, "load", { lora_name: "x", lora_path: path });
      assert.equal(response.status, 400, path);
      assert.match(await response.text(), text);
    };
    for (const path of [first, "/etc/passwd", join(root, "../first.gguf"), "org/repo", join(root, "none.gguf")])
      await refused(path, /not a file in a folder that adapters may be loaded from/);
    await refused(join(root, "model.gguf"), /not an adapter/);
    const broken = join(root, "nan.gguf");
    const nan = (tensors: TensorSpec[]): TensorSpec[] =>
      tensors.map((tensor) => ({ ...tensor, data: () => tensor.data().fill(0xff) }));
    writeAdapter(broken, {}, { tensors: nan });
    chmodSync(broken, 0o600);
    assert.equal((await admin(server, "load", { lora_name: "nan", lora_path: broken })).status, 200);
    const [before, engines] = [await answer(server, "model"), server.descendants()];
    const [failed, beside] = await Promise.all(["nan", "model"].map((name) => answer(server, name)));
    assert.equal(failed, "503", "values that are no numbers fail the requests for the adapter");
    assert.equal(beside, before, "and nobody else's");
    assert.deepEqual(server.descendants(), engines, "no engine ended");
    await refused("", /must be provided/);
    const onPublic = await post(
      `${server.url}/v1/load_lora_adapter`,
      { lora_name: "x", lora_path: second },
      server.adminKey,
    );
    assert.equal(onPublic.status, 404);
    const user = await post(`${server.opsUrl}/v1/load_lora_adapter`, { lora_name: "x", lora_path: second });
    assert.equal(user.status, 403, "a user loads nothing");
    const noKey = await fetch(`${server.opsUrl}/v1/load_lora_adapter`, { method: "POST", body: "{}" });
    assert.equal(noKey.status, 401);
    assert.notEqual(await answer(server, "model"), "500");
  } finally {
    await server.stop();
  }
});

test("without both switches there is nothing to load over, and a bad adapter stops the start", async () => {
  const half = await startServer({ model, args: ["--allow-runtime-lora-updating", "--max-model-len", "256"] });
  assert.equal((await admin(half, "load", { lora_name: "x", lora_path: second })).status, 404);
  await half.stop();
  for (const [args, text] of [
    [["--lora-modules", `a=${first}`], /needs --enable-lora/],
    [["--enable-lora", "--lora-modules", `a=${model}`], /LoRA adapter a .*not an adapter/],
    [["--enable-lora", "--lora-modules", "a"], /name=path/],
    [["--enable-lora", "--lora-modules", `{"name":"a","path":"${folder}/none"}`], /no such file/],
  ] as const) {
    const server = await startServer({ model, args, waitReady: false });
    assert.equal(await server.exited, 1);
    assert.match(server.stderr(), text);
    await server.stop();
  }
});

test("with the setting for it adapters are loaded over the public listener, by keys that may, for their tenant", async () => {
  const args = ["--enable-lora", "--allow-runtime-lora-updating", "--public-lora-routes", "--lora-roots", root];
  const server = await startServer({ model, args: [...args, "--max-model-len", "256", "--served-model-name", "base"] });
  try {
    const trainer = await makeKey(server.stateDir, "trainer", { tenant: "acme" });
    const other = await makeKey(server.stateDir, "trainer", { tenant: "other" });
    const load = (key?: string) =>
      post(`${server.url}/v1/load_lora_adapter`, { lora_name: "own", lora_path: second }, key);
    assert.equal((await load()).status, 403, "a user loads nothing");
    await until("the keys are known", async () => (await server.fetch("/v1/models", { key: other })).status === 200);
    assert.equal((await load(trainer)).status, 200);
    const listed = async (key: string): Promise<string[]> =>
      ((await (await server.fetch("/v1/models", { key })).json()) as { data: { id: string }[] }).data.map(
        ({ id }) => id,
      );
    assert.deepEqual([await listed(trainer), await listed(other)], [["base", "own"], ["base"]]);
    const unload = (key: string) => post(`${server.url}/v1/unload_lora_adapter`, { lora_name: "own" }, key);
    assert.equal((await unload(other)).status, 404);
    assert.equal((await unload(trainer)).status, 200);
  } finally {
    await server.stop();
  }
});

test("a folder in PEFT form is loaded under its digest, at start and later, and stands in the audit log", async () => {
  const weights = safetensorsOf(randomTensors(tinyModules(4), "BF16"));
  const path = writePeft(join(root, "peft"), PLAIN_CONFIG, weights);
  const sha256 = (bytes: Uint8Array | string): string => createHash("sha256").update(bytes).digest("hex");
  const [config, tensors] = ["adapter_config.json", "adapter_model.safetensors"];
  const lines = [config, tensors].map((name) => `${sha256(readFileSync(join(path, name as string)))}  ${name}\n`);
  const digest = sha256(lines.join(""));
  const args = ["--enable-lora", "--allow-runtime-lora-updating", "--lora-roots", root, "--audit", "on"];
  const modules = ["--lora-modules", JSON.stringify({ name: "at-start", path, sha256: digest })];
  const more = ["--require-lora-digest", "--max-model-len", "256", "--served-model-name", "base"];
  const server = await startServer({ model, args: [...args, ...modules, ...more] });
  try {
    const load = (body: object) => admin(server, "load", { lora_name: "later", lora_path: path, ...body });
    const without = await load({});
    assert.equal(without.status, 400);
    assert.match(await without.text(), /--require-lora-digest/);
    assert.match(await (await load({ sha256: "0".repeat(64) })).text(), /SHA-256 is not the one that was named/);
    assert.match(await (await load({ sha256: "0" })).text(), /is a SHA-256 in hexadecimal/);
    assert.equal((await load({ sha256: digest.toUpperCase() })).status, 200);
    assert.equal(await answer(server, "later"), await answer(server, "at-start"));
    assert.notEqual(await answer(server, "later"), await answer(server, "base"));
    const cards = ((await (await server.fetch("/v1/models")).json()) as { data: { sha256?: string }[] }).data;
    assert.deepEqual(
      cards.map((card) => card.sha256),
      [undefined, digest, digest],
    );
    const records = await fetch(`${server.opsUrl}/admin/audit?limit=1000`, {
      headers: { authorization: `Bearer ${server.adminKey}` },
    });
    assert.equal((await records.text()).split(digest).length - 1, 2);
  } finally {
    await server.stop();
  }
});

test("with a folder by tenant a tenant finds its own files alone, and has so many adapters", async () => {
  const by = join(folder, "by");
  for (const tenant of ["acme", "other"]) mkdirSync(join(by, tenant), { recursive: true, mode: 0o700 });
  const [own, theirs] = [adapter(join(by, "acme/a.gguf"), 31), adapter(join(by, "other/b.gguf"), 32)];
  const switches = ["--enable-lora", "--allow-runtime-lora-updating", "--public-lora-routes"];
  const bounds = ["--lora-roots", join(by, "{tenant}"), "--max-loras-per-tenant", "1", "--max-model-len", "256"];
  const server = await startServer({ model, args: [...switches, ...bounds] });
  try {
    const key = await makeKey(server.stateDir, "trainer", { tenant: "acme" });
    await until("the key is known", async () => (await server.fetch("/v1/models", { key })).status === 200);
    const load = async (name: string, path: string) => {
      const response = await post(`${server.url}/v1/load_lora_adapter`, { lora_name: name, lora_path: path }, key);
      return [response.status, await response.text()] as const;
    };
    const [status, text] = await load("x", theirs);
    assert.equal(status, 400);
    for (const path of [join(by, "other/none.gguf"), join(by, "nobody/b.gguf"), join(by, "acme/../other/b.gguf"), by])
      assert.deepEqual(await load("x", path), [status, text], "as if nothing were there");
    assert.equal((await load("x", own))[0], 200);
    assert.match((await load("y", own))[1], /may have 1 lora adapters loaded/);
    assert.equal((await admin(server, "load", { lora_name: "z", lora_path: theirs })).status, 200);
  } finally {
    await server.stop();
  }
});
