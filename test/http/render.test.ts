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
import { ChatPartReply, CompletionPartReply } from "#wire/vllm/derender-stream.ts";
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

const TAG = { type: "structural_tag", format: { type: "const_string", value: "yes" } };

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
      [{ stream: true }, 400],
      [{ stream_state: {} }, 400],
      [{ generate_chunk: generated }, 400],
      [{ prompt_tokens: -1 }, 400],
      [{ generate_response: {} }, 400],
      [{ generate_response: { choices: [] } }, 400],
      [{ generate_response: { choices: [{ token_ids: [259] }] } }, 400],
      [{ generate_response: { choices: [{ token_ids: [1], finish_reason: "error" }] } }, 400],
      [{ [name]: undefined }, 400],
    ] as const)
      assert.equal((await ask(`${path}/derender`, { ...given, ...more })).statusCode, status);
  }
});

test("vLLM's own form: a list of responses with a count each, and the model beside the request", async (t) => {
  const { ask } = await server(t, "yes");
  const body = { prompt: ["a", "bc"], max_tokens: 40 };
  const whole = (await ask("/v1/completions", body)).json() as { usage: { prompt_tokens: number }; choices: unknown };
  const rendered = (await ask("/v1/completions/render", body)).json() as { token_ids: number[] }[];
  const generate_responses = await Promise.all(
    rendered.map(async (one) => (await ask("/inference/v1/generate", one)).json()),
  );
  const prompt_tokens = rendered.map(({ token_ids }) => token_ids.length);
  const given = { model: "demo", completion_request: body, generate_responses, prompt_tokens };
  const answer = (await ask("/v1/completions/derender", given)).json() as typeof whole;
  assert.deepEqual([answer.choices, answer.usage], [whole.choices, whole.usage]);
  for (const [more, status] of [
    [{ prompt_tokens: [1] }, 400],
    [{ prompt_tokens: [1, "2"] }, 400],
    [{ generate_responses: generate_responses[0] }, 400],
    [{ model: "nobody" }, 404],
  ] as const)
    assert.equal((await ask("/v1/completions/derender", { ...given, ...more })).statusCode, status);
});

interface Delta {
  readonly role?: string;
  readonly content?: string;
  readonly reasoning?: string;
  readonly tool_calls?: readonly { id?: string; index: number; function: { name?: string; arguments: string } }[];
}
interface Chunk {
  readonly id: string;
  readonly choices: readonly { index: number; delta: Delta; text?: string; finish_reason: string | null }[];
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number };
}

/** What chunks of a chat say together. */
function together(chunks: readonly Chunk[]) {
  const said = { role: "", content: "", reasoning: "", calls: "", ids: new Set<string>(), finish: "" };
  for (const { choices } of chunks)
    for (const { delta, finish_reason } of choices) {
      said.role += delta.role ?? "";
      said.content += delta.content ?? "";
      said.reasoning += delta.reasoning ?? "";
      for (const call of delta.tool_calls ?? []) {
        said.calls += (call.function.name ?? "") + call.function.arguments;
        if (call.id !== undefined) said.ids.add(call.id);
      }
      said.finish += finish_reason ?? "";
    }
  return said;
}

function framesOf(text: string): Record<string, unknown>[] {
  return text
    .split("\n\n")
    .filter((frame) => frame.startsWith("data: {"))
    .map((frame) => JSON.parse(frame.slice("data: ".length)) as Record<string, unknown>);
}

const CALLS = '<tool_call>\n{"name": "f", "arguments": {"a": "é"}}\n</tool_call>';

for (const text of ["<think>hm 😀</think>Grüße.", `<think>hm</think>${CALLS}\n${CALLS}`])
  test(`in pieces: every chunk of ${text.slice(15, 30)} derenders to what the chat's own stream says`, async (t) => {
    const { ask } = await server(t, text);
    const tools = [{ type: "function", function: { name: "f" } }];
    const chat_request = { messages: [{ role: "user", content: "hi" }], max_tokens: 200, tools };
    const streamed = { ...chat_request, stream: true, stream_options: { include_usage: true } };
    const want = together(framesOf((await ask("/v1/chat/completions", streamed)).body) as unknown as Chunk[]);
    const rendered = (await ask("/v1/chat/completions/render", streamed)).json() as { token_ids: number[] };
    const generated = framesOf((await ask("/inference/v1/generate", rendered)).body);
    assert.ok(generated.length > 10);
    let stream_state: unknown;
    const chunks: Chunk[] = [];
    for (const generate_chunk of generated) {
      const given = { stream: true, chat_request, generate_chunk, stream_state };
      const answer = await ask("/v1/chat/completions/derender", given, "tokens");
      assert.equal(answer.statusCode, 200, answer.body);
      const { chunk, ...rest } = ChatPartReply.parse(answer.json());
      stream_state = rest.stream_state;
      chunks.push(chunk as Chunk);
    }
    const got = together(chunks);
    assert.deepEqual({ ...got, ids: got.ids.size }, { ...want, ids: want.ids.size });
    assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
    assert.deepEqual(chunks.at(-1)?.usage?.prompt_tokens, rendered.token_ids.length);
    const { last_tool_call_ids } = stream_state as { last_tool_call_ids: string[] };
    assert.deepEqual(last_tool_call_ids, [...got.ids]);
  });

test("in pieces: a completion, and what is wrong by its field", async (t) => {
  const { ask } = await server(t);
  const path = "/v1/completions/derender";
  const completion_request = { prompt: "a" };
  let stream_state: unknown;
  let said = "";
  for (const [token_ids, finish_reason] of [
    [[...Buffer.from("é")].slice(0, 1), null],
    [[...Buffer.from("é")].slice(1), null],
    [[...Buffer.from("!")], "stop"],
  ] as const) {
    const generate_chunk = { request_id: "x", choices: [{ index: 0, token_ids, finish_reason }] };
    const answer = await ask(path, { stream: true, completion_request, generate_chunk, stream_state }, "tokens");
    const part = CompletionPartReply.parse(answer.json());
    stream_state = part.stream_state;
    said += `${part.chunk.choices[0]?.text}|`;
    assert.equal(part.chunk.id, "cmpl-x");
  }
  assert.equal(said, "|é|!|");
  const choice = { index: 0, token_ids: [1] };
  const good = { stream: true, completion_request, generate_chunk: { choices: [choice] } };
  assert.equal((await ask(path, good, "tokens")).statusCode, 200);
  for (const [more, status, param] of [
    [{ generate_chunk: null }, 400, "generate_chunk"],
    [{ generate_chunk: { choices: [choice, choice] } }, 400, "generate_chunk.choices"],
    [{ generate_chunk: { choices: [{ index: -1, token_ids: [1] }] } }, 400, "generate_chunk.choices.0.index"],
    [{ generate_chunk: { choices: [{ token_ids: [9999] }] } }, 400, "generate_chunk.choices.0.token_ids.0"],
    [
      { generate_chunk: { choices: [{ token_ids: [1], finish_reason: "x" }] } },
      400,
      "generate_chunk.choices.0.finish_reason",
    ],
    [{ generate_chunk: { choices: [], usage: { prompt_tokens: "1" } } }, 400, "generate_chunk.usage.prompt_tokens"],
    [{ prompt_tokens: -1 }, 400, "prompt_tokens"],
    [{ prompt_tokens: 0.5 }, 400, "prompt_tokens"],
    [{ stream_state: 5 }, 400, "stream_state"],
    [{ stream_state: { role_sent: 1 } }, 400, "stream_state.role_sent"],
    [{ stream_state: { output_token_ids: [9999] } }, 400, "stream_state.output_token_ids.0"],
    [{ stream_state: { last_tool_call_ids: ["x".repeat(257)] } }, 400, "stream_state.last_tool_call_ids.0"],
    [{ stream_state: { output_token_ids: new Array(262_144).fill(1) } }, 400, "generate_chunk.choices.0.token_ids"],
    [{ completion_request: { prompt: "a", echo: true } }, 501, "completion_request.echo"],
  ] as const) {
    const answer = await ask(path, { ...good, ...more }, "tokens");
    assert.equal(answer.statusCode, status, answer.body);
    assert.equal((ErrorReply.parse(answer.json()).error as { param: string }).param, param);
  }
});

test("formats of the output go along", async (t) => {
  const { ask, setting } = await server(t);
  const messages = [{ role: "user", content: "hi" }];
  for (const [more, carried] of [
    [{ response_format: { type: "json_object" } }, { json_object: true }],
    [{ structured_outputs: { regex: "a+" } }, { regex: "a+" }],
    [{ structured_outputs: { choice: ["a", "b"] } }, { choice: ["a", "b"] }],
    [{ response_format: TAG }, { structural_tag: JSON.stringify(TAG) }],
    [{ structured_outputs: { structural_tag: JSON.stringify(TAG) } }, { structural_tag: JSON.stringify(TAG) }],
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
  for (const [more, status, param] of [
    [{ tools, tool_choice: "required" }, 501, "tool_choice"],
    [{ use_beam_search: true }, 501, "use_beam_search"],
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
