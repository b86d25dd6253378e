/**
 * LoRA adapters over the real server: named at start, loaded and unloaded while it runs, out of reach of clients.
 */
import assert from "node:assert/strict";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeAdapter, writeModel } from "../fixtures/gguf.ts";
import { makeKey, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

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
