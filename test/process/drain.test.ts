/**
 * How the server ends: SIGTERM drains, a second signal does not wait.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startServer, type TestServer, until } from "../harness.ts";

const stream = (server: TestServer): Promise<Response> =>
  server.fetch("/v1/completions", {
    method: "POST",
    body: JSON.stringify({ prompt: [5, 6], max_tokens: 1500, ignore_eos: true, temperature: 0, stream: true }),
  });

const status = async (server: TestServer, path: string, key: string | null | undefined): Promise<number | undefined> =>
  (await server.fetch(path, key === undefined ? {} : { key }).catch(() => undefined))?.status;

test("SIGTERM: /health turns 503, new work is refused, the running stream finishes, exit 0", async () => {
  const server = await startServer({});
  const running = await stream(server);
  assert.equal(running.status, 200);
  const all = running.text();
  server.child.kill("SIGTERM");
  let failing = false;
  // An idle connection that the server closed just now looks like a shut door: ask again.
  await until("/health is 503, or the server has ended", async () => {
    failing = (await status(server, "/health", null)) === 503;
    return failing || server.child.exitCode !== null;
  });
  assert.ok(failing, "the failing health check came before the end");
  const refused = await status(server, "/v1/models", undefined);
  assert.ok(refused === 503 || refused === undefined);
  const text = await all;
  assert.match(text, /"finish_reason":"length"/);
  assert.ok(text.endsWith("data: [DONE]\n\n"));
  assert.equal(await server.exited, 0);
  await server.stop();
});

test("with no time to drain the stream is cut with an error event", async () => {
  const server = await startServer({ args: ["--shutdown-timeout", "0"] });
  const all = (await stream(server)).text();
  server.child.kill("SIGTERM");
  assert.match(await all, /"error".*\n\ndata: \[DONE\]\n\n$/s);
  assert.equal(await server.exited, 0);
  await server.stop();
});

test("a second signal ends at once", async () => {
  const server = await startServer({ args: ["--shutdown-timeout", "600"] });
  const held = await stream(server);
  server.child.kill("SIGTERM");
  await until("draining", async () => (await status(server, "/health", null)) !== 200);
  server.child.kill("SIGTERM");
  const how = await server.exited;
  assert.notEqual(how, 0);
  await held.body?.cancel().catch(() => {});
  await server.stop();
});
