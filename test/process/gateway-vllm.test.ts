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
      ...["--weight-roots", "/"],
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

test("what an operator writes is read strictly, held against its route, and written anew; no tenant's key does it", async () => {
  const raw = (path: string, body: string, key = gateway.adminKey) =>
    fetch(`${gateway.opsUrl}${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body,
    });
  assert.equal((await raw("/scale_elastic_ep", '{"new_data_parallel_size":100000}')).status, 400);
  assert.equal((await raw("/update_weights", '{"update_info":{},"update_info":{"a":1}}')).status, 400);
  assert.equal((await raw("/update_weights", "[]")).status, 400);
  const theirs = await newKey("admin", { name: "theirs", tenant: "acme" });
  assert.equal((await raw("/scale_elastic_ep", '{"new_data_parallel_size":2}', theirs)).status, 403);
  assert.deepEqual([first.asked, second.asked], [[], []]);
  assert.equal((await raw("/update_weights", '{ "update_info" : {"names":["a"]} }')).status, 200);
  assert.deepEqual(
    [first, second].map(({ asked }) => asked.map(({ body }) => String(body))),
    [['{"update_info":{"names":["a"]}}'], ['{"update_info":{"names":["a"]}}']],
  );
});

test("the tokenizer is told of by one server, as it tells it", async () => {
  for (const fake of [first, second])
    fake.answers.set("/tokenizer_info", (_, response) => json(response, { tokenizer_class: "T", vocab_size: 7 }));
  const key = await newKey("admin", { name: "teller" });
  const answer = await gateway.fetch("/tokenizer_info", { key });
  assert.deepEqual(await answer.json(), { tokenizer_class: "T", vocab_size: 7 });
  assert.equal(first.asked.length + second.asked.length, 1);
});

const SPEECH = Buffer.from("RIFF and what follows");

function speech(fields: Readonly<Record<string, string>>): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.set(name, value);
  form.set("file", new File([SPEECH], "speech.wav", { type: "audio/wav" }));
  return form;
}

const hear = (path: string, form: FormData, key: string) =>
  fetch(gateway.url + path, { method: "POST", body: form, headers: { authorization: `Bearer ${key}` } });

async function formOf({ body, headers }: Recorded): Promise<FormData> {
  return new Response(body, { headers: { "content-type": headers["content-type"] ?? "" } }).formData();
}

test("speech: the form is judged, sent on under the upstream's name, and its answer passed on and booked", async () => {
  const key = await newKey("service", { name: "hears" });
  const answer = { text: "Hello", usage: { type: "duration", seconds: 3 } };
  for (const fake of [first, second])
    for (const path of ["/v1/audio/transcriptions", "/v1/audio/translations"])
      fake.answers.set(path, (_, response) => json(response, answer));
  for (const path of ["/v1/audio/transcriptions", "/v1/audio/translations"]) {
    const heard = await hear(path, speech({ model: "outside", language: "en", cache_salt: "x" }), key);
    assert.deepEqual([heard.status, await heard.json()], [200, answer], path);
  }
  const asked = [...first.asked, ...second.asked];
  assert.equal(asked.length, 2);
  for (const request of asked) {
    const form = await formOf(request);
    assert.deepEqual([...form.keys()], ["model", "language", "file"]);
    assert.equal(form.get("model"), "org/base");
    const file = form.get("file");
    assert.ok(file instanceof File);
    assert.deepEqual([file.name, Buffer.from(await file.arrayBuffer())], ["speech.wav", SPEECH]);
  }
  const usage = await fetch(`${gateway.opsUrl}/admin/usage?by=key`, {
    headers: { authorization: `Bearer ${gateway.adminKey}` },
  });
  const { data } = (await usage.json()) as { data: readonly { prompt_tokens: number }[] };
  assert.ok(
    data.some((row) => row.prompt_tokens === 300),
    JSON.stringify(data),
  );
});

test("speech: a stream keeps the client's model name, and usage that it did not ask for is left out", async () => {
  const key = await newKey("service", { name: "streams" });
  const chunk = (more: object) =>
    `data: ${JSON.stringify({ id: "trsc-1", object: "transcription.chunk", created: 1, model: "org/base", ...more })}\n\n`;
  const text = { choices: [{ delta: { content: "Hello" }, finish_reason: null, stop_reason: null }] };
  const told = { choices: [], usage: { prompt_tokens: 150, completion_tokens: 1, total_tokens: 151 } };
  for (const fake of [first, second])
    fake.answers.set("/v1/audio/transcriptions", (_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end(`${chunk(text)}${chunk(told)}data: [DONE]\n\n`);
    });
  const heard = await hear("/v1/audio/transcriptions", speech({ model: "outside", stream: "true" }), key);
  assert.equal(
    await heard.text(),
    'data: {"id":"trsc-1","object":"transcription.chunk","created":1,"model":"outside","choices":[{"delta":{"content":"Hello"},"finish_reason":null,"stop_reason":null}]}\n\n' +
      "data: [DONE]\n\n",
  );
  const [asked] = [...first.asked, ...second.asked];
  assert.ok(asked !== undefined);
  assert.equal((await formOf(asked)).get("stream_include_usage"), "true");
});

test("speech: what is refused reaches no server", async () => {
  const key = await newKey("service", { name: "refused" });
  for (const [fields, status] of [
    [{ model: "org/base" }, 404],
    [{ model: "outside", temperature: "7" }, 400],
    [{ model: "outside", language: "no such" }, 400],
  ] as const)
    assert.equal((await hear("/v1/audio/transcriptions", speech(fields), key)).status, status, JSON.stringify(fields));
  const user = await newKey("user", { name: "mute", scopes: ["inference", "models:read"] });
  assert.equal((await hear("/v1/audio/transcriptions", speech({ model: "outside" }), user)).status, 403);
  assert.equal(first.asked.length + second.asked.length, 0);
});

test("derender: read back by a server, as its model's name has it", async () => {
  for (const fake of [first, second])
    fake.answers.set("/v1/chat/completions/derender", (_, response) => json(response, CHAT));
  const body = {
    model: "outside",
    chat_request: { model: "outside", messages: MESSAGES, kv_transfer_params: {} },
    generate_response: { choices: [{ index: 0, token_ids: [5, 6], finish_reason: "stop" }] },
    prompt_tokens: 3,
  };
  const answer = await post("/v1/chat/completions/derender", body);
  assert.equal(answer.status, 200, await answer.clone().text());
  assert.deepEqual(await answer.json(), { ...CHAT, model: "outside" });
  const [asked] = [...first.asked, ...second.asked];
  assert.deepEqual(bodyOf(asked), {
    model: "org/base",
    generate_response: body.generate_response,
    prompt_tokens: 3,
    chat_request: { model: "org/base", messages: MESSAGES },
  });
});

test("responses: nothing is kept upstream, and on a server that keeps none nothing is here", async () => {
  for (const fake of [first, second])
    fake.answers.set("/v1/responses", (_, response) => json(response, { id: "resp_1", model: "org/base", output: [] }));
  const ask = (more: object) => post("/v1/responses", { model: "outside", input: "Hi", ...more });
  assert.equal((await ask({})).status, 200);
  assert.equal((await ask({ store: true })).status, 200);
  const { id, model, store } = (await (await ask({})).json()) as { id: string; model: string; store?: boolean };
  assert.match(id, /^resp_[0-9a-f]{32}$/);
  assert.deepEqual([model, store], ["outside", undefined]);
  assert.equal((await ask({ background: true })).status, 400);
  assert.equal((await ask({ previous_response_id: id })).status, 404);
  const bodies = [...first.asked, ...second.asked].map(bodyOf);
  assert.deepEqual(
    bodies.map(({ store, background }) => [store, background]),
    [
      [false, false],
      [false, false],
      [false, false],
    ],
  );
  assert.equal((await gateway.fetch(`/v1/responses/${id}`)).status, 404);
});

test("the gateway tells of itself, without addresses", async () => {
  const told = await ops("/server_info", undefined, gateway.adminKey, "GET");
  const text = await told.text();
  assert.equal(told.status, 200, text);
  assert.match(text, /castellan/);
  assert.ok(!text.includes(first.url) && !text.includes(TEST_KEY));
  assert.equal(first.asked.length + second.asked.length, 0);
});
