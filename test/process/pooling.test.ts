/**
 * The server over models that give numbers: it starts, says what it cannot do, and outlives whoever asks.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { RANK, writeBert } from "../fixtures/gguf-pooling.ts";
import { DEMO_MODEL, startServer, type TestServer } from "../harness.ts";

const directory = mkdtempSync(join(tmpdir(), "castellan-pooling-"));
const encoder = join(directory, "encoder.gguf");
writeBert(encoder, { pooling: RANK, labels: ["a", "b"] });

async function refusesToGenerate(server: TestServer): Promise<void> {
  const model = ((await (await server.fetch("/v1/models")).json()) as { data: { id: string }[] }).data[0]?.id;
  for (const [path, body] of [
    ["/v1/completions", { model, prompt: "hello", max_tokens: 4 }],
    ["/v1/completions", { model, prompt: [3, 4], max_tokens: 4, stream: true }],
    ["/v1/chat/completions", { model, messages: [{ role: "user", content: "hello" }] }],
  ] as const) {
    const headers = { "content-type": "application/json" };
    const answer = await server.fetch(path, { method: "POST", body: JSON.stringify(body), headers });
    const text = await answer.text();
    assert.equal(answer.status, 400, text);
  }
}

test("an encoder is served, and asked for text it says that it has none", async () => {
  const server = await startServer({ model: encoder });
  try {
    const before = server.descendants();
    await refusesToGenerate(server);
    assert.deepEqual(server.descendants(), before, "no process was lost");
    assert.equal((await server.fetch("/health")).status, 200);
    assert.match(server.stdout(), /128 tokens a sequence, 256 sequences at once/);
    const metrics = await (await server.fetch("/metrics", { key: server.adminKey })).text();
    assert.match(metrics, /vllm:num_requests_running\{.*\} 0/);
  } finally {
    await server.stop();
  }
});

test("the demo model is run for its vectors when that is asked for", async () => {
  const config = JSON.stringify({ pooling_type: "MEAN", normalize: false });
  const args = ["--runner", "pooling", "--override-pooler-config", config, "--max-model-len", "256"];
  const server = await startServer({ model: DEMO_MODEL, args });
  try {
    await refusesToGenerate(server);
    assert.equal((await server.fetch("/health")).status, 200);
  } finally {
    await server.stop();
  }
});

test("what cannot be is refused at the start, by its name", async () => {
  for (const [args, message] of [
    [["--runner", "generate"], /bert model does not generate/],
    [["--pooler-config", '{"pooling_type":"STEP"}'], /--pooler-config/],
    [["--pooler-config", '{"pooling_type":"MEAN","dimensions":8}'], /--hf-overrides/],
    [["--max-model-len", "129"], /trained for/],
  ] as const) {
    const server = await startServer({ model: encoder, args, waitReady: false });
    assert.equal(await server.exited, 1);
    await server.stop();
    assert.match(server.stderr(), message);
  }
});
