/**
 * What clients see when the engine process dies or hangs, over the real server.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { startServer, type TestServer, until } from "../harness.ts";

let server: TestServer;
before(async () => {
  server = await startServer({
    args: ["--engine-stall-timeout", "1", "--engine-kill-timeout", "3", "--max-num-seqs", "4"],
  });
});
after(() => server.stop());

const body = (more: object = {}): string =>
  JSON.stringify({ prompt: [5, 6, 7], max_tokens: 1900, ignore_eos: true, temperature: 0, ...more });
const post = (more: object = {}): Promise<Response> =>
  server.fetch("/v1/completions", { method: "POST", body: body(more) });
const health = async (): Promise<number> => (await server.fetch("/health", { key: null })).status;
const healthy = (): Promise<void> => until("/health is 200", async () => (await health()) === 200);

function engine(): number {
  const found = server
    .descendants()
    .find((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("castellan-engine"));
  assert.ok(found, "there is an engine process");
  return found;
}

/** The stream's text once it began, as it grows. */
async function openStream(): Promise<{ all: Promise<string> }> {
  const response = await post({ stream: true });
  assert.equal(response.status, 200);
  return { all: response.text() };
}

test("a killed engine fails its streams with an event and its calls with 503, and comes back", async () => {
  const streams = await Promise.all([openStream(), openStream()]);
  const whole = post();
  const first = engine();
  process.kill(first, "SIGKILL");
  for (const { all } of streams) {
    const text = await all;
    assert.match(
      text,
      /data: \{"error":\{"message":"[^"]+","type":"[^"]+","param":null,"code":503\}\}\n\ndata: \[DONE\]\n\n$/,
    );
  }
  const failed = await whole;
  assert.equal(failed.status, 503);
  await healthy();
  assert.notEqual(engine(), first);
  assert.equal((await post({ max_tokens: 4 })).status, 200);
  const metrics = await (await server.fetch("/metrics", { key: server.adminKey })).text();
  assert.match(metrics, /castellan:engine_restarts_total\{[^}]+\} 1/);
  assert.match(metrics, /vllm:num_requests_running\{[^}]+\} 0/);
});

test("while the engine is away, /health is 503 and calls are refused with Retry-After", async () => {
  process.kill(engine(), "SIGKILL");
  await until("/health is 503", async () => (await health()) === 503);
  const refused = await post({ max_tokens: 1 });
  if (refused.status !== 200) {
    assert.equal(refused.status, 503);
    assert.ok(refused.headers.get("retry-after"));
  }
  await healthy();
});

test("an engine that stops stepping while work waits turns /health to 503, and is replaced", async () => {
  const { all } = await openStream();
  const stopped = engine();
  process.kill(stopped, "SIGSTOP");
  await until("/health is 503", async () => (await health()) === 503);
  assert.match(await all, /"error"/);
  await healthy();
  assert.notEqual(engine(), stopped);
});

test("a stopped engine that goes on again is healthy again, and its work is done", async () => {
  const { all } = await openStream();
  const stopped = engine();
  process.kill(stopped, "SIGSTOP");
  await until("/health is 503", async () => (await health()) === 503);
  process.kill(stopped, "SIGCONT");
  await healthy();
  assert.match(await all, /"finish_reason":"length"/);
  assert.equal(engine(), stopped);
});

test("no engine outlives its server", async () => {
  const orphan = await startServer({});
  const [pid] = orphan.descendants();
  assert.ok(pid);
  orphan.child.kill("SIGKILL");
  await orphan.exited;
  await until("the engine is gone", () => {
    try {
      process.kill(pid, 0);
      return readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
    } catch {
      return true;
    }
  });
  await orphan.stop();
});
