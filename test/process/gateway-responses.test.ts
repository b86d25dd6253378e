/**
 * The Responses API of a model behind gateways, by the official client: gateways of one store, before a server of this
 * program with an engine of its own, which keeps nothing.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { APIError, NotFoundError, type OpenAI, PermissionDeniedError } from "openai";
import { postgresMissing } from "../fixtures/postgres.ts";
import { keyFile, UPSTREAM_KEY } from "../fixtures/recording-upstream.ts";
import { clientOf, overOneDatabase, turnsOf } from "../fixtures/response-servers.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

let upstream: TestServer;
let gateway: TestServer;
let client: OpenAI;

const { input, short, endless: ENDLESS } = turnsOf("outside");
const ARGS = ["--served-model-name", "outside", "--upstream-model", "inside", "--responses-store"];
const toUpstream = (): string[] => ["--upstream", upstream.url, "--upstream-key-file", keyFile(), ...ARGS];
const OURS = /^resp_[0-9a-f]{32}$/;

before(async () => {
  upstream = await startServer({ apiKey: UPSTREAM_KEY, args: ["--served-model-name", "inside"] });
  gateway = await startServer({ args: [...toUpstream(), "--max-messages", "12"] });
  client = clientOf(gateway);
});
after(async () => {
  await gateway.stop();
  await upstream.stop();
});

async function over(id: string, of: OpenAI = client): Promise<OpenAI.Responses.Response> {
  await until(
    "it is over",
    async () => !["queued", "in_progress"].includes((await of.responses.retrieve(id)).status ?? ""),
  );
  return of.responses.retrieve(id);
}

test("the client's whole round: create, stream, continue, tools, input items, background, cancel, delete", async () => {
  const whole = await client.responses.create(short);
  assert.match(whole.id, OURS);
  assert.equal((whole as { store?: boolean }).store, true);
  assert.equal(whole.model, "outside");
  assert.ok(whole.output_text.length > 0);
  assert.deepEqual(await client.responses.retrieve(whole.id), whole);
  const ids = new Set<string>();
  const stream = client.responses.stream(short);
  stream.on("event", (event) => {
    if ("response" in event) ids.add(event.response.id);
  });
  const streamed = await stream.finalResponse();
  assert.deepEqual([...ids], [streamed.id]);
  assert.match(streamed.id, OURS);
  assert.equal(streamed.output_text, whole.output_text);
  assert.equal((await client.responses.retrieve(streamed.id)).output_text, whole.output_text);
  const next = await client.responses.create({ ...short, input: "And then?", previous_response_id: whole.id });
  assert.equal(next.previous_response_id, whole.id);
  assert.ok((next.usage?.input_tokens ?? 0) > (whole.usage?.input_tokens ?? 0));
  const third = await client.responses.create({ ...short, input: "So?", previous_response_id: next.id });
  const items = await client.responses.inputItems.list(third.id, { order: "asc" });
  assert.deepEqual(
    items.data.map((item) => ("role" in item ? item.role : item.type)),
    ["user", "assistant", "user", "assistant", "user"],
  );
  await client.responses.delete(whole.id);
  await assert.rejects(client.responses.retrieve(whole.id), NotFoundError);
  await assert.rejects(client.responses.create({ ...short, previous_response_id: whole.id }), NotFoundError);
  await client.responses.create({ ...short, previous_response_id: third.id });
});

test("a function is called, and its output continues the response", async () => {
  const called = await client.responses.create({
    model: "outside",
    input,
    tools: [
      {
        type: "function",
        name: "count",
        parameters: { type: "object", properties: {}, additionalProperties: false },
        strict: true,
      },
    ],
    tool_choice: "required",
  });
  // As many as the model likes: it is drawn from.
  const calls = called.output.filter((item) => item.type === "function_call");
  const [call] = calls;
  assert.ok(call !== undefined && call.name === "count");
  const next = await client.responses.create({
    ...short,
    previous_response_id: called.id,
    input: [{ type: "function_call_output", call_id: call.call_id, output: "three" }],
  });
  const items = await client.responses.inputItems.list(next.id, { order: "asc" });
  assert.deepEqual(
    items.data.map(({ type }) => type),
    ["message", ...calls.map(({ type }) => type), "function_call_output"],
  );
});

test("in the background: polled, streamed and streamed again, continued, cancelled", async () => {
  const whole = await client.responses.create(short);
  const begun = await client.responses.create({ ...short, background: true });
  assert.equal(begun.status, "queued");
  assert.match(begun.id, OURS);
  const done = await over(begun.id);
  assert.equal(done.output_text, whole.output_text);
  assert.deepEqual(done.usage, whole.usage);
  const seen: string[] = [];
  const numbers: number[] = [];
  let id = "";
  for await (const event of await client.responses.create({ ...short, background: true, stream: true })) {
    seen.push(JSON.stringify(event));
    numbers.push(event.sequence_number);
    if (event.type === "response.created") id = event.response.id;
  }
  assert.deepEqual(numbers, [...numbers.keys()]);
  const again: string[] = [];
  for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: 1 }))
    again.push(JSON.stringify(event));
  assert.deepEqual(again, seen.slice(2));
  const next = await client.responses.create({ ...short, previous_response_id: id, background: true });
  assert.ok(((await over(next.id)).usage?.input_tokens ?? 0) > (whole.usage?.input_tokens ?? 0));
  const endless = await client.responses.create({ ...ENDLESS, background: true });
  await until("it has begun", async () => (await client.responses.retrieve(endless.id)).status === "in_progress");
  assert.equal((await client.responses.cancel(endless.id)).status, "cancelled");
  await until("nothing runs at the upstream", async () => (await running()) === "0");
  await assert.rejects(client.responses.cancel(endless.id), APIError);
  await client.responses.delete(endless.id);
});

async function running(): Promise<string | undefined> {
  const answer = await fetch(`${upstream.opsUrl}/metrics`, {
    headers: { authorization: `Bearer ${upstream.adminKey}` },
  });
  return /^vllm:num_requests_running\{[^}]*\} (\d+)/m.exec(await answer.text())?.[1];
}

test("store: false leaves nothing, and its id is not the upstream's", async () => {
  const whole = await client.responses.create({ ...short, store: false });
  assert.match(whole.id, OURS);
  assert.equal((whole as { store?: boolean }).store, false);
  await assert.rejects(client.responses.retrieve(whole.id), NotFoundError);
  await assert.rejects(client.responses.create({ ...short, store: false, background: true }), {
    status: 400,
    param: "background",
  });
  // What continues a stored one need not be stored.
  const kept = await client.responses.create(short);
  const loose = await client.responses.create({ ...short, previous_response_id: kept.id, store: false });
  await assert.rejects(client.responses.retrieve(loose.id), NotFoundError);
});

test("another tenant finds none of it, nor a key without the scope", async () => {
  const kept = await client.responses.create(short);
  const endless = await client.responses.create({ ...ENDLESS, background: true });
  const stranger = clientOf(gateway, await makeKey(gateway.stateDir, "user", { tenant: "stranger" }));
  const trainer = clientOf(gateway, await makeKey(gateway.stateDir, "trainer"));
  for (const one of [stranger, trainer])
    await until("the key is known", async () => {
      const { status } = await gateway.fetch("/v1/models", { key: one.apiKey });
      return status === 200;
    });
  for (const { id } of [kept, endless, { id: "resp_00000000000000000000000000000000" }]) {
    await assert.rejects(stranger.responses.retrieve(id), NotFoundError);
    await assert.rejects(stranger.responses.cancel(id), NotFoundError);
    await assert.rejects(stranger.responses.delete(id), NotFoundError);
    await assert.rejects(stranger.responses.inputItems.list(id), NotFoundError);
    await assert.rejects(stranger.responses.create({ ...short, previous_response_id: id }), NotFoundError);
    await assert.rejects(trainer.responses.retrieve(id), PermissionDeniedError);
    await assert.rejects(trainer.responses.create({ ...short, previous_response_id: id }), PermissionDeniedError);
  }
  await assert.rejects(trainer.responses.create({ ...short, store: true }), PermissionDeniedError);
  assert.equal(((await trainer.responses.create(short)) as { store?: boolean }).store, false);
  await client.responses.delete(endless.id);
});

test("turns together are held to what one request may bring", async () => {
  let last = await client.responses.create({
    ...short,
    input: Array.from({ length: 9 }, () => ({ role: "user", content: "Hi" })),
  });
  last = await client.responses.create({ ...short, previous_response_id: last.id });
  await assert.rejects(client.responses.create({ ...short, previous_response_id: last.id }), {
    status: 400,
    param: "previous_response_id",
  });
});

test("a background response is reserved before it begins, and settled to the token when nobody waits for it", async () => {
  const key = await makeKey(gateway.stateDir, "user", { tenant: "metered", limits: { tokensPerDay: 100 } });
  const metered = clientOf(gateway, key);
  await until("the key is known", async () => (await gateway.fetch("/v1/models", { key })).status === 200);
  const begun = await metered.responses.create({ ...short, background: true });
  const { usage } = await over(begun.id, metered);
  assert.ok((usage?.total_tokens ?? 0) >= 24);
  const booked = await fetch(`${gateway.opsUrl}/admin/usage?by=tenant`, {
    headers: { authorization: `Bearer ${gateway.adminKey}` },
  });
  const { data } = (await booked.json()) as {
    data: readonly { tenant: string; prompt_tokens: number; completion_tokens: number }[];
  };
  const row = data.find(({ tenant }) => tenant === "metered");
  assert.deepEqual([row?.prompt_tokens, row?.completion_tokens], [usage?.input_tokens, usage?.output_tokens]);
  await assert.rejects(metered.responses.create({ ...short, max_output_tokens: 80, background: true }), {
    status: 429,
  });
  // Nothing stays reserved: what is left is what a response that fits may have.
  const left = 100 - (usage?.total_tokens ?? 0) - 10;
  const next = await metered.responses.create({ ...short, input: "Hi", max_output_tokens: left });
  assert.ok((next.usage?.output_tokens ?? 0) > 0);
});

test("an orderly end lets a background response finish, or says that it did not", async () => {
  const first = await startServer({ args: [...toUpstream(), "--shutdown-timeout", "60"] });
  let second: TestServer | undefined;
  try {
    const begun = await clientOf(first).responses.create({ ...short, background: true });
    first.child.kill("SIGTERM");
    assert.equal(await first.exited, 0);
    second = await startServer({ args: [...toUpstream(), "--shutdown-timeout", "0"], stateDir: first.stateDir });
    const finished = await clientOf(second).responses.retrieve(begun.id);
    assert.ok(["completed", "incomplete"].includes(finished.status ?? ""), `${finished.status}`);
    const endless = await clientOf(second).responses.create({ ...ENDLESS, background: true });
    second.child.kill("SIGTERM");
    assert.equal(await second.exited, 0);
    await until("nothing runs at the upstream", async () => (await running()) === "0");
    second = await startServer({ args: toUpstream(), stateDir: first.stateDir });
    const cut = await clientOf(second).responses.retrieve(endless.id);
    assert.deepEqual([cut.status, cut.error?.message], ["failed", "The server was shut down."]);
  } finally {
    await first.stop();
    await second?.stop();
  }
});

test(
  "two gateways over one database: read, streamed, cancelled and continued through the other",
  {
    skip: postgresMissing ?? false,
  },
  () =>
    overOneDatabase(toUpstream(), "outside", () =>
      until("nothing runs at the upstream", async () => (await running()) === "0"),
    ),
);
