/**
 * A gateway as a user starts it, in front of a server of this program with an engine of its own: two processes, sockets
 * between them.
 */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { makeKey, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

const UPSTREAM_KEY = "key-of-the-upstream";
let upstream: TestServer;
let gateway: TestServer;

before(async () => {
  upstream = await startServer({ apiKey: UPSTREAM_KEY, args: ["--served-model-name", "inside"] });
  const keyFile = join(mkdtempSync(join(tmpdir(), "castellan-test-")), "key");
  writeFileSync(keyFile, UPSTREAM_KEY);
  chmodSync(keyFile, 0o600);
  gateway = await startServer({
    args: [
      ...["--upstream", upstream.url, "--upstream-key-file", keyFile],
      ...["--served-model-name", "outside", "--served-model-name", "alias", "--upstream-model", "inside"],
    ],
  });
});
after(async () => {
  await gateway.stop();
  await upstream.stop();
});

const post = (path: string, body: unknown, key: string | null = TEST_KEY) =>
  gateway.fetch(path, { method: "POST", body: JSON.stringify(body), key });
const QUESTION = [{ role: "user" as const, content: "What is Castellan?" }];

test("the official client is answered by the upstream, under the gateway's names", async () => {
  const client = new OpenAI({ apiKey: TEST_KEY, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
  const names = (await client.models.list()).data.map(({ id }) => id);
  assert.deepEqual(names, ["outside", "alias"]);
  const whole = await client.chat.completions.create({ model: "alias", messages: QUESTION, temperature: 0 });
  assert.equal(whole.model, "alias");
  assert.match(whole.choices[0]?.message.content ?? "", /Castellan/);
  const stream = await client.chat.completions.create({
    model: "outside",
    messages: QUESTION,
    temperature: 0,
    stream: true,
  });
  let text = "";
  for await (const chunk of stream) {
    assert.equal(chunk.model, "outside");
    assert.equal(chunk.choices.length, 1, "the chunk of usage was asked for by the server, not by the client");
    text += chunk.choices[0]?.delta.content ?? "";
  }
  assert.equal(text, whole.choices[0]?.message.content);
});

test("every kind of route is passed on, in its own dialect", async () => {
  const messages = await gateway.fetch("/v1/messages", {
    method: "POST",
    body: JSON.stringify({ model: "outside", max_tokens: 8, messages: QUESTION }),
    headers: { "x-api-key": TEST_KEY },
    key: null,
  });
  assert.equal(((await messages.json()) as { type: string }).type, "message");
  for (const [path, body, field] of [
    ["/v1/completions", { model: "outside", prompt: "Hi", max_tokens: 4 }, "choices"],
    ["/v1/responses", { model: "outside", input: "Hi", max_output_tokens: 4 }, "output"],
    ["/invocations", { model: "outside", prompt: "Hi", max_tokens: 4 }, "choices"],
    ["/tokenize", { model: "outside", prompt: "Hi" }, "tokens"],
    ["/inference/v1/generate", { model: "outside", token_ids: [5, 6], sampling_params: { max_tokens: 2 } }, "choices"],
  ] as const) {
    const answer = await post(path, body);
    assert.equal(answer.status, 200, path);
    assert.ok(Object.hasOwn((await answer.json()) as object, field), path);
  }
});

test("what the gateway refuses, the upstream never sees", async () => {
  const served = async (): Promise<string> => {
    const text = await (
      await fetch(`${upstream.opsUrl}/metrics`, { headers: { authorization: `Bearer ${upstream.adminKey}` } })
    ).text();
    return /^vllm:request_success_total\{[^}]*\} (\d+)/m.exec(text)?.[0] ?? "";
  };
  const before = await served();
  for (const [path, body, status] of [
    ["/v1/chat/completions", { model: "inside", messages: QUESTION }, 404],
    ["/v1/chat/completions", { model: "outside", messages: QUESTION, n: 100_000 }, 400],
    ["/v1/chat/completions", { model: "outside", messages: QUESTION, prompt_embeds: "x" }, 400],
    ["/v1/chat/completions", { model: "outside", messages: QUESTION, priority: -5 }, 400],
    ["/v1/no/such/route", {}, 404],
    ["/pause", {}, 404],
  ] as const)
    assert.equal((await post(path, body)).status, status, `${path} ${JSON.stringify(body)}`);
  assert.equal((await post("/v1/chat/completions", { model: "outside", messages: QUESTION }, null)).status, 401);
  assert.equal(await served(), before);
});

test("what was used is booked to the key that asked, to the token", async () => {
  const key = await makeKey(gateway.stateDir, "user", { name: "counted" });
  const ask = async (stream: boolean) => {
    const body = { model: "outside", messages: QUESTION, max_tokens: 5, temperature: 0, ignore_eos: true, stream };
    const answer = await until2(() => post("/v1/chat/completions", body, key));
    return answer.text();
  };
  const whole = JSON.parse(await ask(false)) as { usage: { prompt_tokens: number; completion_tokens: number } };
  assert.match(await ask(true), /\[DONE\]/);
  const usage = await fetch(`${gateway.opsUrl}/admin/usage?by=key`, {
    headers: { authorization: `Bearer ${gateway.adminKey}` },
  });
  const text = await usage.text();
  const { data } = JSON.parse(text) as {
    data: readonly { prompt_tokens: number; completion_tokens: number; requests: number }[];
  };
  const row = data.find(({ requests, completion_tokens }) => requests === 2 && completion_tokens === 10);
  assert.ok(row !== undefined, text);
  assert.equal(row.prompt_tokens, 2 * whole.usage.prompt_tokens);
});

test("a client that leaves ends the work at the upstream", async () => {
  const abort = new AbortController();
  const body = { model: "outside", prompt: [5, 6], max_tokens: 2000, ignore_eos: true, stream: true };
  const answer = await gateway.fetch("/v1/completions", {
    method: "POST",
    body: JSON.stringify(body),
    signal: abort.signal,
  });
  await answer.body?.getReader().read();
  abort.abort();
  await until("nothing runs at the upstream", async () => {
    const text = await (
      await fetch(`${upstream.opsUrl}/metrics`, { headers: { authorization: `Bearer ${upstream.adminKey}` } })
    ).text();
    return /^vllm:num_requests_running\{[^}]*\} 0/m.test(text);
  });
});

test("operations: each server behind is asked, and a tenant's key is not", async () => {
  const ops = (path: string, method = "POST") =>
    fetch(`${gateway.opsUrl}${path}`, { method, headers: { authorization: `Bearer ${gateway.adminKey}` } });
  // The upstream has its operations on a listener of its own: what it says of them is said here.
  assert.equal((await ops("/is_paused", "GET")).status, 404);
  const health = await gateway.fetch("/health", { key: null });
  assert.equal(health.status, 200);
});

/** A key that was made a moment ago is known within the server's next look. */
async function until2(ask: () => Promise<Response>): Promise<Response> {
  let answer = await ask();
  await until("the key is known", async () => {
    if (answer.status !== 401) return true;
    answer = await ask();
    return answer.status !== 401;
  });
  return answer;
}
