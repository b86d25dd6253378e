/**
 * POST /inference/v1/generate over the scripted model: ids in, ids out, and the bytes of its stream.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { createHttp } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture, IM_END, says } from "#serving/_fixture.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ErrorReply } from "#wire/openai/replies.ts";
import { GenerateReply } from "#wire/vllm/generate-encode.ts";

async function server(t: TestContext) {
  const setting = fixture({ reply: says("yes") });
  const http = await createHttp({
    routes,
    services: servicesOf(setting),
    gate: gateOf({ key: principalOf({ id: "k", tenant: "t", role: "user" }) }),
    dialect: openai,
  });
  t.after(() => http.close(0));
  const ask = async (body: object) =>
    http.inject("public", {
      method: "POST",
      url: "/inference/v1/generate",
      headers: { authorization: "Bearer key", "content-type": "application/json" },
      payload: JSON.stringify({ request_id: "mine", ...body }),
    });
  return { ask, setting };
}

const YES = [121, 101, 115, IM_END];

test("ids go to the engine as they are, and come back", async (t) => {
  const { ask, setting } = await server(t);
  const answer = await ask({ token_ids: [104, 105, 257], sampling_params: { max_tokens: 9, logprobs: 1, n: 2 } });
  assert.equal(answer.statusCode, 200, answer.body);
  const reply = GenerateReply.parse(answer.json());
  assert.equal(reply.request_id, "mine");
  assert.deepEqual(
    reply.choices.map(({ token_ids, finish_reason, text, logprobs }) => [
      token_ids,
      finish_reason,
      text,
      logprobs?.content.length,
    ]),
    [
      [YES, "stop", undefined, 4],
      [YES, "stop", undefined, 4],
    ],
  );
  assert.deepEqual(reply.usage.completion_tokens, 8);
  assert.equal(reply.prompt_token_ids, null);
  const request = setting.backend.requests[0];
  assert.deepEqual([...(request?.prompt ?? [])], [104, 105, 257]);
  assert.equal(request?.sampling.maxTokens, 9);
  // The client's name for it is the tenant's own.
  assert.equal(request?.callId, "t\0mine");
});

test("text, the prompt's ids and its logprobs where they are asked for", async (t) => {
  const { ask } = await server(t);
  const sampling_params = { max_tokens: 9, prompt_logprobs: 0, stop: ["s"] };
  const answer = await ask({ token_ids: [104, 105], output_mode: "text", return_token_ids: true, sampling_params });
  const reply = GenerateReply.parse(answer.json());
  assert.deepEqual(
    [reply.choices[0]?.text, reply.choices[0]?.token_ids, reply.choices[0]?.stop_reason, reply.output_mode],
    ["ye", YES.slice(0, 3), "s", "text"],
  );
  assert.deepEqual(reply.prompt_token_ids, [104, 105]);
  assert.equal(reply.prompt_logprobs?.length, 2);
});

test("the bytes of a stream", async (t) => {
  const { ask } = await server(t);
  const body = {
    token_ids: [104],
    stream: true,
    stream_options: { include_usage: true },
    sampling_params: { max_tokens: 9 },
  };
  const { body: bytes, headers } = await ask(body);
  assert.match(String(headers["content-type"]), /^text\/event-stream/);
  const head = 'data: {"request_id":"mine","model":"demo","created":7,"choices":[';
  const delta = (id: number): string =>
    `${head}{"index":0,"token_ids":[${id}],"logprobs":null,"finish_reason":null}]}\n\n`;
  assert.equal(
    bytes.replaceAll(/"created":\d+/g, '"created":7'),
    `${YES.map(delta).join("")}${head}{"index":0,"token_ids":[],"logprobs":null,"finish_reason":"stop"}]}\n\n` +
      `${head}],"usage":{"prompt_tokens":1,"total_tokens":5,"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":0}}}\n\n` +
      "data: [DONE]\n\n",
  );
});

test("what it does not take is refused by name, and starts no work", async (t) => {
  const { ask, setting } = await server(t);
  for (const [more, param] of [
    [{ token_ids: undefined }, "token_ids"],
    [{ token_ids: [] }, "token_ids"],
    [{ token_ids: "hi" }, "token_ids"],
    [{ token_ids: ["hi"] }, "token_ids.0"],
    [{ token_ids: [[1]] }, "token_ids.0"],
    [{ token_ids: [1, -1] }, "token_ids.1"],
    [{ token_ids: [1, 259] }, "token_ids.1"],
    [{ token_ids: [1.5] }, "token_ids.0"],
    [{ token_ids: [2 ** 40] }, "token_ids.0"],
    [{ token_ids: Array.from({ length: 600 }, () => 1) }, "token_ids"],
    [{ features: { mm_hashes: {} } }, "features"],
    [{ content_parts: [1] }, "content_parts"],
    [{ reasoning_parser_kwargs: { a: 1 } }, "reasoning_parser_kwargs"],
    [{ kv_transfer_params: { remote_host: "x" } }, "kv_transfer_params"],
    [{ ec_transfer_params: { a: 1 } }, "ec_transfer_params"],
    [{ cache_salt: "a@b" }, "cache_salt"],
    [{ priority: -1 }, "priority"],
    [{ output_mode: "both" }, "output_mode"],
    [{ sampling_params: { extra_args: { a: 1 } } }, "sampling_params.extra_args"],
    [{ sampling_params: { logits_processors: ["os.system"] } }, "sampling_params.logits_processors"],
    [{ sampling_params: { temperature: 3 } }, "sampling_params.temperature"],
    [{ sampling_params: { n: 17 } }, "sampling_params.n"],
    [{ sampling_params: { stop: ["", "a"] } }, "sampling_params.stop.0"],
    [{ sampling_params: { structured_outputs: { regex: 5 } } }, "sampling_params.structured_outputs.regex"],
  ] as const) {
    const answer = await ask({ token_ids: [1], ...more });
    assert.equal(answer.statusCode, 400, `${param} ${answer.body}`);
    assert.equal((ErrorReply.parse(answer.json()).error as { param: string }).param, param, answer.body);
  }
  assert.equal(setting.backend.requests.length, 0);
});
