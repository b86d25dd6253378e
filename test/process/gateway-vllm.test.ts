/**
 * A gateway in front of two servers that answer as vLLM does and keep what they were asked.
 */
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { type FakeVllm, fakeVllm, json, type Recorded } from "../fixtures/fake-vllm.ts";
import { makeKey, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

let first: FakeVllm;
let second: FakeVllm;
let gateway: TestServer;

const CHAT = {
  id: "chatcmpl-1",
  object: "chat.completion",
  model: "org/base",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 },
};

before(async () => {
  [first, second] = [await fakeVllm("org/base"), await fakeVllm("org/base")];
  first.adapters.set("sql", "/adapters/sql");
  gateway = await startServer({
    args: [
      ...["--upstream", first.url, "--upstream", second.url],
      ...["--served-model-name", "outside", "--upstream-model", "org/base", "--upstream-health-interval", "1"],
      ...["--enable-sleep-mode", "--enable-lora", "--allow-runtime-lora-updating", "--enable-tokenizer-info-endpoint"],
    ],
  });
});
beforeEach(() => {
  for (const fake of [first, second]) {
    fake.asked.length = 0;
    fake.answers.set("/v1/chat/completions", (_, response) => json(response, CHAT));
  }
});
after(async () => {
  await gateway.stop();
  await first.close();
  await second.close();
});

const post = (path: string, body: unknown, key: string = TEST_KEY) =>
  gateway.fetch(path, { method: "POST", body: JSON.stringify(body), key });
const ops = (path: string, body?: unknown, key: string = gateway.adminKey, method = "POST") =>
  fetch(`${gateway.opsUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
const MESSAGES = [{ role: "user", content: "Hi" }];
const ask = (model: string, key?: string) => post("/v1/chat/completions", { model, messages: MESSAGES }, key);
const bodyOf = (request: Recorded | undefined) => JSON.parse(String(request?.body)) as Record<string, unknown>;

async function cards(key: string = TEST_KEY) {
  const answer = await gateway.fetch("/v1/models", { key });
  const { data } = (await answer.json()) as { data: readonly { id: string; parent: string | null }[] };
  return Object.fromEntries((data ?? []).map(({ id, parent }) => [id, parent]));
}

/** A key that was made a moment ago. */
async function newKey(...given: Parameters<typeof makeKey> extends [string, ...infer R] ? R : never): Promise<string> {
  const key = await makeKey(gateway.stateDir, ...given);
  await until("the key is known", async () => (await gateway.fetch("/v1/models", { key })).status === 200);
  return key;
}

test("an adapter that one server has is a model, and only that server is asked for it", async () => {
  assert.deepEqual(await cards(), { outside: null, sql: "outside" });
  for (let i = 0; i < 4; i++) {
    const answer = await ask("sql");
    assert.equal(answer.status, 200, await answer.text());
  }
  assert.equal(second.asked.length, 0);
  assert.deepEqual(new Set(first.asked.map((request) => bodyOf(request)["model"])), new Set(["sql"]));
});

test("a key sees adapters as far as its reach goes", async () => {
  const none = await newKey("user", { name: "none", reach: { adapters: [] } });
  assert.deepEqual(await cards(none), { outside: null });
  assert.equal((await ask("sql", none)).status, 404);
  const only = await newKey("user", { name: "only", reach: { models: [], adapters: ["sql"] } });
  assert.deepEqual(await cards(only), { sql: null });
  first.asked.length = 0;
  const unnamed = await post("/v1/chat/completions", { messages: MESSAGES }, only);
  assert.equal(unnamed.status, 200, await unnamed.text());
  assert.equal(bodyOf(first.asked[0])["model"], "sql", "the model that is behind it is not asked in its place");
});

test("an adapter is loaded at every server, served at once, and unloaded", async () => {
  const load = { lora_name: "new", lora_path: "/adapters/new" };
  const loaded = await ops("/v1/load_lora_adapter", load);
  assert.equal(loaded.status, 200, await loaded.clone().text());
  assert.equal(await loaded.text(), "Success: LoRA adapter 'new' added successfully.");
  assert.deepEqual([first.adapters.get("new"), second.adapters.get("new")], ["/adapters/new", "/adapters/new"]);
  assert.deepEqual(await cards(), { outside: null, sql: "outside", new: "outside" });
  assert.equal((await ask("new")).status, 200);
  assert.equal((await ops("/v1/load_lora_adapter", load)).status, 400, "it is loaded");
  // Where it is missing it is loaded.
  first.asked.length = 0;
  assert.equal((await ops("/v1/load_lora_adapter", { ...load, lora_name: "sql" })).status, 200);
  assert.deepEqual([first.asked.length, second.adapters.get("sql")], [0, "/adapters/new"]);
  for (const name of ["new", "sql"])
    assert.equal((await ops("/v1/unload_lora_adapter", { lora_name: name })).status, 200, name);
  assert.deepEqual(await cards(), { outside: null });
  assert.equal((await ask("new")).status, 404);
  assert.equal((await ops("/v1/unload_lora_adapter", { lora_name: "new" })).status, 404);
});

test("what is refused about adapters reaches no server", async () => {
  const load = { lora_name: "x", lora_path: "/adapters/x" };
  const trainer = await newKey("trainer", { name: "trainer", tenant: "acme" });
  for (const [body, status, key] of [
    [load, 403, trainer],
    [{ ...load, lora_name: "outside" }, 400],
    [{ ...load, lora_name: "../x" }, 400],
    [{ ...load, sha256: "a".repeat(64) }, 501],
    [{ ...load, base_model_name: "other" }, 404],
    [{ lora_name: "x" }, 400],
  ] as const)
    assert.equal((await ops("/v1/load_lora_adapter", body, key)).status, status, JSON.stringify(body));
  assert.deepEqual([first.asked.length, second.asked.length], [0, 0]);
  assert.equal((await post("/v1/load_lora_adapter", load)).status, 404, "not on the public listener");
  const failed = await ops("/v1/load_lora_adapter", { ...load, lora_path: "/missing/x" });
  assert.deepEqual([failed.status, (await failed.text()).includes("/missing")], [400, false]);
  assert.equal("x" in (await cards()), false);
});

test("asleep: nobody is asked, and awake again", async () => {
  assert.equal((await ops("/sleep?level=1")).status, 200);
  const refused = await ask("outside");
  assert.equal(refused.status, 503);
  assert.match(await refused.text(), /asleep/);
  assert.deepEqual(
    [first, second].map(({ asked }) => asked.map(({ url }) => url)),
    [["/sleep?level=1"], ["/sleep?level=1"]],
  );
  assert.equal((await ops("/wake_up")).status, 200);
  assert.equal((await ask("outside")).status, 200);
});

test("the tokenizer is told of by one server, as it tells it", async () => {
  for (const fake of [first, second])
    fake.answers.set("/tokenizer_info", (_, response) => json(response, { tokenizer_class: "T", vocab_size: 7 }));
  const key = await newKey("admin", { name: "teller" });
  const answer = await gateway.fetch("/tokenizer_info", { key });
  assert.deepEqual(await answer.json(), { tokenizer_class: "T", vocab_size: 7 });
  assert.equal(first.asked.length + second.asked.length, 1);
});
