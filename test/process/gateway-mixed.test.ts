/**
 * A model that is computed here beside one that servers behind answer.
 */
import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fakeVllm, json } from "../fixtures/fake-vllm.ts";
import { startServer } from "../harness.ts";

test("each model is answered where it is, and operations are the engine's here", async (t) => {
  const behind = await fakeVllm("org/base");
  t.after(() => behind.close());
  behind.answers.set("/v1/completions", (_, response) => json(response, { model: "org/base", choices: [] }));
  const config = join(mkdtempSync(join(tmpdir(), "castellan-test-")), "castellan.yaml");
  writeFileSync(
    config,
    `models:\n  - { name: here, backend: local }\n  - { name: there, upstream_model: org/base, upstreams: [${behind.url}] }\n`,
  );
  const server = await startServer({ args: ["--config", config] });
  t.after(() => server.stop());
  const complete = async (model: string): Promise<unknown> => {
    const body = JSON.stringify({ model, prompt: "Hi", max_tokens: 1 });
    const answer = await server.fetch("/v1/completions", { method: "POST", body });
    const { model: shown } = (await answer.json()) as { model: string };
    return [answer.status, shown];
  };
  assert.deepEqual(await complete("here"), [200, "here"]);
  assert.equal(behind.asked.length, 0);
  assert.deepEqual(await complete("there"), [200, "there"]);
  assert.equal(behind.asked.length, 1);
  const ops = (path: string) =>
    fetch(server.opsUrl + path, { method: "POST", headers: { authorization: `Bearer ${server.adminKey}` } });
  for (const path of ["/pause", "/resume"]) assert.equal((await ops(path)).status, 200, path);
  assert.equal(behind.asked.length, 1, "it is not asked");
});
