/**
 * What clients see of several engines behind the real server: one dies, the rest serves on.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { startServer, type TestServer, until } from "../harness.ts";

let server: TestServer;
before(async () => {
  server = await startServer({ args: ["--data-parallel-size", "2", "--max-num-seqs", "4"] });
});
after(() => server.stop());

function engines(): number[] {
  return server
    .descendants()
    .filter((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("castellan-engine"));
}

const post = (body: object): Promise<Response> =>
  server.fetch("/v1/completions", {
    method: "POST",
    body: JSON.stringify({ max_tokens: 600, ignore_eos: true, temperature: 0, ...body }),
  });
const metrics = async (): Promise<string> => (await server.fetch("/metrics", { key: server.adminKey })).text();
const valueIn = (text: string, name: string, engine: number): number =>
  Number(new RegExp(`^${name}\\{model_name="[^"]+",engine="${engine}"\\} (\\S+)$`, "m").exec(text)?.[1] ?? Number.NaN);

test("kill -9 of one engine under streams: its streams fail, the others end, new calls are answered all the while", async () => {
  assert.equal(engines().length, 2);
  const streams = await Promise.all(
    Array.from({ length: 6 }, async (_, at) => {
      const response = await post({ prompt: [at + 5, at + 6, at + 7], stream: true });
      return { status: response.status, all: response.text() };
    }),
  );
  assert.ok(streams.every(({ status }) => status === 200));
  const both = await metrics();
  assert.ok(valueIn(both, "vllm:num_requests_running", 0) > 0 && valueIn(both, "vllm:num_requests_running", 1) > 0);
  process.kill(engines()[0] ?? assert.fail("no process"), "SIGKILL");
  const texts = Promise.all(streams.map(({ all }) => all));
  for (let at = 0; at < 10; at++) {
    assert.equal((await post({ prompt: [at + 40], max_tokens: 2 })).status, 200);
    assert.equal((await server.fetch("/health", { key: null })).status, 200);
  }
  const failed = (await texts).filter((text) => /"error"/.test(text));
  const whole = (await texts).filter((text) => /"finish_reason":"length"/.test(text));
  assert.ok(failed.length > 0 && whole.length > 0 && failed.length + whole.length === 6);
  for (const text of failed) assert.match(text, /"code":503\}\}\n\ndata: \[DONE\]\n\n$/);
  await until("both engines are ready", async () => {
    const text = await metrics();
    return [0, 1].every((engine) => valueIn(text, "castellan:engine_ready", engine) === 1);
  });
  const text = await metrics();
  const restarts = [0, 1].map((engine) => valueIn(text, "castellan:engine_restarts_total", engine));
  assert.deepEqual(restarts.sort(), [0, 1]);
  for (const engine of [0, 1]) {
    assert.ok(valueIn(text, "vllm:generation_tokens_total", engine) > 0);
    assert.ok(valueIn(text, "vllm:time_to_first_token_seconds_count", engine) > 0);
  }
});

test("prompts that begin alike meet on one engine and find what was computed", async () => {
  const begin = Array.from({ length: 200 }, (_, at) => 10 + at);
  const hits = async (): Promise<number> => {
    const text = await metrics();
    return [0, 1].reduce((sum, engine) => sum + valueIn(text, "vllm:prefix_cache_hits_total", engine), 0);
  };
  const start = await hits();
  for (let at = 0; at < 5; at++)
    assert.equal((await post({ prompt: [...begin, 300 + at], max_tokens: 1 })).status, 200);
  assert.ok((await hits()) - start >= 4 * 128, "each but the first found most of it");
});
