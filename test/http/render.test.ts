/**
 * Rendering over the scripted model: what is rendered and then generated asks the engine for what the call itself does.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { GenerateRequest } from "#core/generate.ts";
import { createHttp } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture, says } from "#serving/_fixture.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ErrorReply } from "#wire/openai/replies.ts";
import { RenderReply } from "#wire/vllm/render.ts";

async function server(t: TestContext, text = "yes") {
  const setting = fixture({ reply: says(text) });
  const admin = principalOf({ id: "k", tenant: "t", role: "admin" });
  const http = await createHttp({
    routes,
    services: servicesOf(setting),
    gate: gateOf({ key: admin, tokens: { ...admin, scopes: new Set(["tokenize"] as const) } }),
    dialect: openai,
  });
  t.after(() => http.close(0));
  const ask = async (url: string, body: object, token = "key") =>
    http.inject("public", {
      method: "POST",
      url,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      payload: JSON.stringify(body),
    });
  return { ask, setting };
}

/** What of a request does not differ from call to call. */
const asked = ({ id: _, callId: __, group: ___, ...rest }: GenerateRequest) => rest;

const SAMPLING = {
  temperature: 0.7,
  top_k: 5,
  top_p: 0.9,
  min_p: 0.1,
  presence_penalty: 0.5,
  frequency_penalty: 0.25,
  repetition_penalty: 1.5,
  logit_bias: { 5: 2 },
  seed: 9,
  min_tokens: 1,
  stop: ["zz"],
  stop_token_ids: [7],
  ignore_eos: true,
  allowed_token_ids: [120, 121, 101, 115],
  bad_words: ["no"],
  repetition_detection: { max_pattern_size: 4, min_pattern_size: 1, min_count: 3 },
  cache_salt: "mine",
};

test("a chat, a completion and a message, rendered and generated, ask the engine for the same", async (t) => {
  const { ask, setting } = await server(t);
  const messages = [{ role: "user", content: "hi" }];
  const message = { model: "demo", messages, max_tokens: 5, stop_sequences: ["q"], temperature: 0.5, top_k: 4 };
  for (const [path, body] of [
    ["/v1/chat/completions", { messages, max_tokens: 8, logprobs: true, top_logprobs: 2, n: 2, ...SAMPLING }],
    ["/v1/chat/completions", { messages }],
    ["/v1/chat/completions", { messages, truncate_prompt_tokens: 4, max_tokens: 2 }],
    ["/v1/completions", { prompt: ["a", "b"], max_tokens: 8, logprobs: 1, prompt_logprobs: 1, ...SAMPLING }],
    ["/v1/completions", { prompt: [1, 2, 3] }],
    ["/v1/messages", message],
  ] as const) {
    setting.backend.requests.length = 0;
    assert.equal((await ask(path, body)).statusCode, 200);
    const whole = setting.backend.requests.splice(0).map(asked);
    const answer = await ask(`${path}/render`, body, "tokens");
    assert.equal(answer.statusCode, 200, answer.body);
    assert.equal(setting.backend.requests.length, 0, "no engine's work");
    for (const rendered of [answer.json()].flat()) {
      RenderReply.parse(rendered);
      assert.equal((await ask("/inference/v1/generate", rendered)).statusCode, 200);
    }
    const parts = setting.backend.requests.map(asked);
    assert.deepEqual(parts, whole, path);
  }
});

test("what was rendered and generated derenders to the call's own answer", async (t) => {
  const { ask } = await server(t, "<think>hm</think>Yes.");
  const bare = ({ id: _, created: __, usage, ...rest }: Record<string, unknown>) => ({ ...rest, usage });
  for (const [path, name, body] of [
    ["/v1/chat/completions", "chat_request", { messages: [{ role: "user", content: "hi" }], max_tokens: 40 }],
    ["/v1/chat/completions", "chat_request", { messages: [{ role: "user", content: "hi" }], max_tokens: 3, n: 2 }],
    ["/v1/completions", "completion_request", { prompt: [1, 2, 3], max_tokens: 40 }],
  ] as const) {
    const whole = (await ask(path, body)).json() as Record<string, unknown>;
    const [rendered] = [(await ask(`${path}/render`, body)).json()].flat();
    const generated = (await ask("/inference/v1/generate", rendered)).json() as Record<string, unknown>;
    const given = { [name]: body, generate_response: generated };
    const answer = await ask(`${path}/derender`, given, "tokens");
    assert.equal(answer.statusCode, 200, answer.body);
    assert.deepEqual(bare(answer.json()), bare(whole), path);
    for (const [more, status] of [
      [{ stream: true }, 501],
      [{ generate_response: {} }, 400],
      [{ generate_response: { choices: [] } }, 400],
      [{ generate_response: { choices: [{ token_ids: [259] }] } }, 400],
      [{ generate_response: { choices: [{ token_ids: [1], finish_reason: "error" }] } }, 400],
      [{ [name]: undefined }, 400],
    ] as const)
      assert.equal((await ask(`${path}/derender`, { ...given, ...more })).statusCode, status);
  }
});

test("formats of the output go along", async (t) => {
  const { ask, setting } = await server(t);
  const messages = [{ role: "user", content: "hi" }];
  for (const [more, carried] of [
    [{ response_format: { type: "json_object" } }, { json_object: true }],
    [{ structured_outputs: { regex: "a+" } }, { regex: "a+" }],
    [{ structured_outputs: { choice: ["a", "b"] } }, { choice: ["a", "b"] }],
    [{ structured_outputs: { grammar: 'root ::= "a"' } }, { grammar: 'root ::= "a"' }],
    [
      { structured_outputs: { json: { type: "object" }, disable_any_whitespace: true } },
      { json: { type: "object" }, disable_any_whitespace: true },
    ],
  ] as const) {
    const rendered = RenderReply.parse((await ask("/v1/chat/completions/render", { messages, ...more })).json());
    assert.deepEqual(rendered.sampling_params["structured_outputs"], carried);
    assert.equal((await ask("/inference/v1/generate", rendered)).statusCode, 200);
  }
  assert.ok(setting.backend.requests.every(({ sampling }) => sampling.constraint !== undefined));
});

test("what a rendered request cannot carry is refused by name", async (t) => {
  const { ask } = await server(t);
  const body = { messages: [{ role: "user", content: "hi" }], max_tokens: 5 };
  const tools = [{ type: "function", function: { name: "f" } }];
  const tag = { type: "structural_tag", format: { type: "any_text" } };
  for (const [more, status, param] of [
    [{ tools, tool_choice: "required" }, 501, "tool_choice"],
    [{ use_beam_search: true }, 501, "use_beam_search"],
    [{ response_format: tag }, 501, "structured_outputs"],
    [{ messages: [] }, 400, "messages"],
    [{ max_tokens: 100_000 }, 400, "max_tokens"],
    [{ stop_token_ids: [4000] }, 400, "stop_token_ids.0"],
    [{ model: "nobody's" }, 404, "model"],
    [{ chat_template: "x" }, 400, "chat_template"],
  ] as const) {
    const answer = await ask("/v1/chat/completions/render", { ...body, ...more }, "tokens");
    assert.equal(answer.statusCode, status, answer.body);
    assert.equal((ErrorReply.parse(answer.json()).error as { param: string }).param, param);
  }
  assert.equal((await ask("/inference/v1/generate", { token_ids: [1] }, "tokens")).statusCode, 403);
});
