/**
 * A model that is computed here beside one that servers behind answer.
 */
import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { dataUrl } from "#egress/media/data-url.ts";
import { fakeVllm, json } from "../fixtures/fake-vllm.ts";
import { png } from "../fixtures/images.ts";
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
  assert.match(server.stdout(), / model {3}here .*; behind others: there\n/);
  assert.deepEqual(await complete("here"), [200, "here"]);
  assert.equal(behind.asked.length, 0);
  assert.deepEqual(await complete("there"), [200, "there"]);
  assert.equal(behind.asked.length, 1);
  const ops = (path: string) =>
    fetch(server.opsUrl + path, { method: "POST", headers: { authorization: `Bearer ${server.adminKey}` } });
  for (const path of ["/pause", "/resume"]) assert.equal((await ops(path)).status, 200, path);
  assert.equal(behind.asked.length, 1, "it is not asked");
});

test("a conversation goes on where the other model is", async (t) => {
  const behind = await fakeVllm("org/base");
  t.after(() => behind.close());
  const output = [{ type: "message", role: "assistant", content: [{ type: "output_text", text: "There." }] }];
  behind.answers.set("/v1/responses", (_, response) =>
    json(response, { id: "r", object: "response", status: "completed", model: "org/base", output }),
  );
  const config = join(mkdtempSync(join(tmpdir(), "castellan-test-")), "castellan.yaml");
  writeFileSync(
    config,
    `models:\n  - { name: here, backend: local }\n  - { name: there, upstream_model: org/base, upstreams: [${behind.url}] }\n`,
  );
  const server = await startServer({ args: ["--config", config, "--responses-store"] });
  t.after(() => server.stop());
  interface Answered {
    readonly id: string;
    readonly output: readonly { readonly content: readonly { readonly text: string }[] }[];
    readonly error?: { readonly param: string } | null;
  }
  const ask = async (model: string, input: unknown, previous?: string): Promise<Answered> => {
    const body = {
      model,
      input,
      max_output_tokens: 4,
      ...(previous === undefined ? {} : { previous_response_id: previous }),
    };
    const answer = await server.fetch("/v1/responses", { method: "POST", body: JSON.stringify(body) });
    return (await answer.json()) as Answered;
  };
  const here = await ask("here", "One?");
  const there = await ask("there", "Two?", here.id);
  const { input } = JSON.parse(String(behind.asked[0]?.body)) as { readonly input: unknown };
  assert.deepEqual(input, [
    { type: "message", role: "user", content: "One?" },
    { type: "message", role: "assistant", content: here.output[0]?.content[0]?.text },
    { type: "message", role: "user", content: "Two?" },
  ]);
  const back = await ask("here", "Three?", there.id);
  const items = await (await server.fetch(`/v1/responses/${back.id}/input_items?order=asc`)).json();
  assert.deepEqual(
    (items as { data: readonly { content: readonly { text: string }[] }[] }).data.map(
      ({ content }) => content[0]?.text,
    ),
    ["One?", here.output[0]?.content[0]?.text, "Two?", "There.", "Three?"],
  );
  const image_url = dataUrl("image/png", png(8, 8));
  const picture = await ask("there", [{ role: "user", content: [{ type: "input_image", image_url }] }]);
  assert.equal((await ask("there", "What is it?", picture.id)).error, undefined);
  assert.equal((await ask("here", "What is it?", picture.id)).error?.param, "previous_response_id");
});
