/**
 * A gateway that keeps responses, before an upstream that answers as it likes: what is kept, under which id, what the
 * upstream is asked, and what becomes of answers that are none.
 */
import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { dataUrl } from "#egress/media/data-url.ts";
import { type FakeVllm, fakeVllm, json } from "../fixtures/fake-vllm.ts";
import { png } from "../fixtures/images.ts";
import { startServer, type TestServer, until } from "../harness.ts";

let upstream: FakeVllm;
let gateway: TestServer;

before(async () => {
  upstream = await fakeVllm("org/base");
  gateway = await startServer({
    args: [
      "--upstream",
      upstream.url,
      "--served-model-name",
      "outside",
      "--upstream-model",
      "org/base",
      "--responses-store",
    ],
  });
});
after(async () => {
  await gateway.stop();
  await upstream.close();
});
beforeEach(() => {
  upstream.asked.length = 0;
});

type Fields = Readonly<Record<string, unknown>>;
const OURS = /^resp_[0-9a-f]{32}$/;
const MESSAGE = {
  id: "msg_theirs",
  type: "message",
  role: "assistant",
  status: "completed",
  content: [{ type: "output_text", text: "Hello", annotations: [], logprobs: [] }],
};
const USAGE = { input_tokens: 5, output_tokens: 2, total_tokens: 7 };
const response = (more: Fields = {}): Fields => ({
  id: "resp_theirs",
  object: "response",
  created_at: 1,
  status: "completed",
  model: "org/base",
  output: [MESSAGE],
  store: false,
  previous_response_id: null,
  usage: USAGE,
  ...more,
});
const frame = (type: string, fields: Fields = {}): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: 0, ...fields })}\n\n`;
const created = (id: string): string =>
  frame("response.created", { response: response({ id, status: "in_progress", output: [], usage: null }) });
const delta = (text: string): string =>
  frame("response.output_text.delta", { item_id: "msg_theirs", output_index: 0, content_index: 0, delta: text });
const completed = (id: string): string => frame("response.completed", { response: response({ id }) });
const WHOLE = created("resp_theirs") + delta("Hel") + delta("lo") + completed("resp_theirs");

/** From now on the upstream answers so. */
function answers(act: (response: ServerResponse) => void): void {
  upstream.answers.set("/v1/responses", (_, to) => act(to));
}
const streams = (text: string, ends: (to: ServerResponse) => void = (to) => to.end()): void =>
  answers((to) => {
    to.writeHead(200, { "content-type": "text/event-stream" });
    to.write(text, () => ends(to));
  });
const post = (more: Fields = {}) =>
  gateway.fetch("/v1/responses", { method: "POST", body: JSON.stringify({ model: "outside", input: "Hi", ...more }) });
const get = async (
  id: string,
): Promise<Fields & { readonly status: string; readonly error: { readonly message: string } }> =>
  (await (await gateway.fetch(`/v1/responses/${id}`)).json()) as never;
const statusOf = async (id: string): Promise<number> => (await gateway.fetch(`/v1/responses/${id}`)).status;
const askedBodies = (): readonly Fields[] => upstream.asked.map(({ body }) => JSON.parse(String(body)) as Fields);
const idsIn = (text: string): readonly string[] => [...new Set(text.match(/resp_[A-Za-z0-9]+/g) ?? [])];

test("whatever ids an upstream says, the client sees one of ours, and what is kept is under it", async () => {
  streams(created("resp_one") + delta("Hel") + created("resp_two") + delta("lo") + completed("chatcmpl-three"));
  const text = await (await post({ stream: true })).text();
  const [id = "", ...others] = idsIn(text);
  assert.match(id, OURS);
  assert.deepEqual(others, []);
  assert.ok(!text.includes("chatcmpl-three") && !text.includes("org/base"));
  const { id: shown, model, store, output } = await get(id);
  assert.deepEqual([shown, model, store, output], [id, "outside", true, [MESSAGE]]);
  answers((to) => json(to, response({ id: 7, model: "hers", store: "no", previous_response_id: "resp_else" })));
  const whole = (await (await post()).json()) as { readonly id: string };
  assert.match(whole.id, OURS);
  assert.deepEqual(await get(whole.id), { ...whole });
  assert.deepEqual(
    [...Object.entries(whole)].filter(([name]) => ["model", "store"].includes(name)),
    [
      ["model", "outside"],
      ["store", true],
    ],
  );
});

test("the same answer twice is kept once, under two ids", async () => {
  answers((to) => json(to, response()));
  const [one, two] = await Promise.all(
    [post(), post()].map(async (each) => ((await (await each).json()) as { id: string }).id),
  );
  assert.notEqual(one, two);
  assert.deepEqual([await statusOf(one ?? ""), await statusOf(two ?? "")], [200, 200]);
  assert.equal(await statusOf("resp_theirs"), 404);
});

test("a stream that is not kept is passed on byte for byte, but for its id and model", async () => {
  streams(WHOLE);
  const text = await (await post({ stream: true, store: false })).text();
  const [id = ""] = idsIn(text);
  assert.equal(text, WHOLE.replaceAll("resp_theirs", id).replaceAll("org/base", "outside"));
  assert.equal(await statusOf(id), 404);
});

test("the upstream is asked for a whole conversation that it does not keep", async () => {
  const picture = dataUrl("image/png", png(8, 8));
  answers((to) => json(to, response()));
  const first = (await (
    await post({ input: [{ role: "user", content: [{ type: "input_image", image_url: picture, detail: "auto" }] }] })
  ).json()) as { id: string };
  const second = (await (
    await post({ input: "And\u0007 then?", previous_response_id: first.id, instructions: "Be short.", store: true })
  ).json()) as { id: string; previous_response_id: string };
  assert.equal(second.previous_response_id, first.id);
  const [, body] = upstream.asked.map(({ body: bytes }) => String(bytes));
  const asked = JSON.parse(body ?? "") as Fields;
  assert.deepEqual(asked["input"], [
    { role: "user", content: [{ type: "input_image", image_url: picture, detail: "auto" }] },
    { type: "message", role: "assistant", content: "Hello" },
    { type: "message", role: "user", content: "And\u0007 then?" },
  ]);
  assert.deepEqual(
    [asked["store"], asked["background"], asked["instructions"], Object.hasOwn(asked, "previous_response_id")],
    [false, false, "Be short.", false],
  );
  const list = (await (await gateway.fetch(`/v1/responses/${second.id}/input_items?order=asc`)).json()) as {
    data: readonly Fields[];
  };
  assert.deepEqual(
    list.data.map(({ role, status }) => [role, status]),
    [
      ["user", "completed"],
      ["assistant", "completed"],
      ["user", "completed"],
    ],
  );
});

/** What an earlier turn brought is judged with the rest: it may have been allowed then. */
test("a medium that may not be fetched is refused, whichever turn it came with", async () => {
  answers((to) => json(to, response()));
  const local = { type: "input_image", image_url: "http://127.0.0.1/x.png" };
  assert.equal((await post({ input: [{ role: "user", content: [local] }] })).status, 400);
  assert.equal(upstream.asked.length, 0);
});

test("an answer that should be kept and is no response is a failure, and nothing is kept", async () => {
  const bad: readonly ((to: ServerResponse) => void)[] = [
    (to) => json(to, { hello: 1 }),
    (to) => json(to, [response()]),
    (to) => to.writeHead(200, { "content-type": "application/json" }).end('{"id":"a","id":"b","output":[]}'),
    (to) => to.writeHead(200, { "content-type": "text/plain" }).end("Hello"),
    (to) => to.writeHead(200, { "content-type": "application/json" }).end(),
  ];
  for (const act of bad) {
    answers(act);
    const answer = await post({ store: true });
    assert.equal(answer.status, 502, String(act));
    assert.deepEqual(idsIn(await answer.text()), []);
  }
  answers((to) => json(to, response({ status: "failed", error: { code: "server_error", message: "x" } })));
  const failed = (await (await post({ store: true })).json()) as { id: string };
  assert.equal(await statusOf(failed.id), 404);
});

test("a stream whose end cannot be read, or never comes, ends with an error, and nothing is kept", async () => {
  const begun = created("resp_theirs") + delta("Hel");
  const bad: readonly (readonly [text: string, ends?: (to: ServerResponse) => void])[] = [
    [begun],
    [begun, (to) => to.destroy()],
    [`${begun}event: response.completed\ndata: {"type":\n\n`],
    [`${begun}event: response.completed\ndata: {"type":"response.completed","response":7}\n\n`],
    [`${begun}event: response.completed\ndata: {"type":"response.completed","response":{"id":"x"}}\n\n`],
    [`${begun}event: response.completed\n\n`],
  ];
  for (const [text, ends] of bad) {
    streams(text, ends);
    const answer = await post({ stream: true });
    const seen = await answer.text();
    const ids = idsIn(seen);
    // What fails before anything has left has its own status.
    if (answer.status === 200)
      assert.match(seen, /event: (error\ndata: \{"type":"error","code":"50[23]"|response\.failed\n)/, text);
    else assert.deepEqual([answer.status, ids], [502, []], text);
    assert.ok(
      ids.every((id) => OURS.test(id)),
      seen,
    );
    assert.ok(!seen.includes("response.completed"), text);
    for (const id of ids) assert.equal(await statusOf(id), 404, text);
  }
  // Where it is not kept nobody is promised anything.
  streams(`${begun}event: response.completed\ndata: {"type":"response.completed","response":7}\n\n`);
  assert.match(await (await post({ stream: true, store: false })).text(), /"response":7/);
});

test("a stream that breaks off says so in its own words, once, under its id", async () => {
  const begun = created("resp_theirs") + delta("Hel");
  const written = Promise.withResolvers<ServerResponse>();
  streams(begun, written.resolve);
  const answer = await post({ stream: true });
  const reader = answer.body?.getReader() ?? assert.fail();
  let seen = Buffer.from((await reader.read()).value ?? []).toString();
  (await written.promise).destroy();
  for (let step = await reader.read(); !step.done; step = await reader.read())
    seen += Buffer.from(step.value).toString();
  const [id = "", ...others] = idsIn(seen);
  assert.match(id, OURS);
  assert.deepEqual(others, []);
  const shown = begun.replaceAll("resp_theirs", id).replaceAll("org/base", "outside");
  const kept = shown.replaceAll('"store":false', '"store":true');
  const { error, ...rest } = {
    ...response({ id, model: "outside", store: true, output: [], usage: null }),
    error: { code: "server_error", message: "The model's server broke off." },
    status: "failed",
  };
  assert.equal(
    seen,
    `${kept}event: response.failed\ndata: ${JSON.stringify({ response: { ...rest, error }, sequence_number: 2, type: "response.failed" })}\n\n`,
  );
  assert.equal(await statusOf(id), 404);
});

async function ended(id: string) {
  await until("it is over", async () => !["queued", "in_progress"].includes((await get(id)).status));
  return get(id);
}

test("in the background garbage is left out, and what comes behind the end", async () => {
  streams(
    [
      "data: hello\n\n",
      ": a comment\n\n",
      created("resp_one").replaceAll("\n", "\r\n"),
      'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":7,"output_index":0}\n\n',
      'data: {"type":"response.output_text.delta","type":"x","delta":"twice"}\n\n',
      frame("response.novelty", { anything: [1] }),
      delta("Hel"),
      'data: {"type":"response.output_text.delta",\ndata: "delta":"lo"}\n\n',
      completed("resp_two"),
      delta("!"),
      completed("resp_three"),
    ].join(""),
  );
  const { id, status } = (await (await post({ background: true })).json()) as { id: string; status: string };
  assert.equal(status, "queued");
  const done = await ended(id);
  assert.equal(done.status, "completed");
  assert.deepEqual(
    (done["output"] as readonly { content: readonly { text: string }[] }[]).map(({ content }) => content[0]?.text),
    ["Hello"],
  );
  assert.deepEqual((done["usage"] as Fields)["total_tokens"], 7);
  const again = await (await gateway.fetch(`/v1/responses/${id}?stream=true`)).text();
  assert.deepEqual(idsIn(again), [id]);
  const numbers = [...again.matchAll(/"sequence_number":(\d+)/g)].map(([, digits]) => Number(digits));
  assert.deepEqual(numbers, [...numbers.keys()]);
  const [asked] = askedBodies();
  assert.deepEqual([asked?.["stream"], asked?.["store"], asked?.["background"]], [true, false, false]);
});

test("in the background: what an upstream refuses at once is the answer; what fails later is in the response", async () => {
  answers((to) => json(to, { error: { message: "This model's window is 4096 tokens.", type: "x", param: null } }, 400));
  const refused = await post({ background: true });
  assert.equal(refused.status, 400);
  assert.match(await refused.text(), /This model's window is 4096 tokens\./);
  const begun = created("resp_theirs") + delta("Hel");
  const bad: readonly (readonly [text: string, ends?: (to: ServerResponse) => void])[] = [
    [begun, (to) => to.destroy()],
    [begun],
    [begun + frame("response.failed", { response: response({ status: "failed" }) })],
    [begun + frame("error", { message: "secret of the upstream" })],
    [`${begun}event: response.completed\ndata: {"type":\n\n`],
  ];
  for (const [text, ends] of bad) {
    streams(text, ends);
    const { id } = (await (await post({ background: true })).json()) as { id: string };
    const failed = await ended(id);
    assert.equal(failed.status, "failed", text);
    assert.match(failed.error.message, /^The model's server /);
    assert.equal((await post({ previous_response_id: id })).status, 400);
  }
  for (const act of [
    (to: ServerResponse) => json(to, response()),
    (to: ServerResponse) => to.destroy(),
    (to: ServerResponse) => json(to, {}, 500),
  ]) {
    answers(act);
    assert.ok([502, 503].includes((await post({ background: true })).status), String(act));
  }
  const tools = [{ type: "code_interpreter", container: { type: "auto" } }];
  const unknown = await post({ background: true, tools });
  assert.deepEqual(
    [unknown.status, ((await unknown.json()) as { error: Fields }).error["param"]],
    [501, "tools.0.type"],
  );
});

test("an upstream that says nothing holds up no answer, and is left when the response is deleted", async () => {
  let left = false;
  answers((to) => to.on("close", () => (left = true)));
  const { id, status } = (await (await post({ background: true })).json()) as { id: string; status: string };
  assert.equal(status, "queued");
  assert.equal((await gateway.fetch(`/v1/responses/${id}`, { method: "DELETE" })).status, 200);
  await until("the upstream is left", () => left);
  assert.equal(await statusOf(id), 404);
});
