/**
 * Speculative decoding over the real server: the same answers, guesses counted, nonsense refused at start.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { DEMO_MODEL, startServer, type TestServer } from "../harness.ts";

async function answers(server: TestServer): Promise<string[]> {
  const asked = ["Say red, blue, red, blue, red, blue.", "What is the capital of France?"].map(async (content) => {
    const body = { messages: [{ role: "user", content }], max_tokens: 40, temperature: 0.5, seed: 7 };
    const headers = { "content-type": "application/json" };
    const response = await server.fetch("/v1/chat/completions", {
      method: "POST",
      headers,
      body: JSON.stringify(body),
    });
    const reply = (await response.json()) as { choices: { message: { content: string } }[] };
    return reply.choices[0]?.message.content ?? "";
  });
  return Promise.all(asked);
}

async function total(server: TestServer, name: string): Promise<number> {
  const text = await (await server.fetch("/metrics", { key: server.adminKey })).text();
  return Number(new RegExp(`^vllm:${name}{.*} (\\d+)$`, "m").exec(text)?.[1]);
}

test("guesses by lookup and by a draft model change no answer", async () => {
  const plain = await startServer({});
  const expected = await answers(plain);
  assert.equal(await total(plain, "spec_decode_num_drafts_total"), 0);
  await plain.stop();
  for (const config of [
    { method: "ngram", num_speculative_tokens: 4, prompt_lookup_max: 3, prompt_lookup_min: 1 },
    { model: DEMO_MODEL, num_speculative_tokens: 3 },
  ]) {
    const server = await startServer({ args: ["--speculative-config", JSON.stringify(config)] });
    try {
      assert.deepEqual(await answers(server), expected);
      const [drafts, guessed, accepted] = await Promise.all(
        ["drafts", "draft_tokens", "accepted_tokens"].map((what) => total(server, `spec_decode_num_${what}_total`)),
      );
      assert.ok(drafts !== undefined && guessed !== undefined && accepted !== undefined);
      assert.ok(
        0 < drafts && drafts <= guessed && 0 < accepted && accepted <= guessed,
        `${drafts} ${guessed} ${accepted}`,
      );
    } finally {
      await server.stop();
    }
  }
});

test("a configuration that makes no sense stops the start with the reason", async () => {
  for (const [config, reason] of [
    ["{}", /--speculative-config: /],
    ['{"model":"/none.gguf","num_speculative_tokens":2}', /none\.gguf: there is no such file/],
  ] as const) {
    const server = await startServer({ args: ["--speculative-config", config], waitReady: false });
    assert.equal(await server.exited, 1);
    assert.match(server.stderr(), reason);
    await server.stop();
  }
});
