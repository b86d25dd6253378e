import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { type DerenderField, derenderBody, judgeDerender } from "./derender.ts";

const caps = { ...DEFAULT_CAPS, derenderTokens: 10 };
const judged = (body: unknown, field: DerenderField = "chat_request") =>
  judgeDerender(Buffer.from(JSON.stringify(body)), field, caps);
const drawn = (...ids: readonly number[]) => ({ choices: [{ index: 0, token_ids: ids, finish_reason: "stop" }] });
const request = {
  model: "m",
  messages: [
    {
      role: "user",
      content: [
        { type: "text", text: "Hi" },
        { type: "image_url", image_url: { url: "http://inside/" } },
      ],
    },
  ],
  temperature: 0,
  cache_salt: "s",
  priority: -3,
  vllm_xargs: { a: 1 },
  not_known: true,
  prompt_embeds: "x",
};

test("what goes on is what was judged, by the upstream's name, without media and what decides for others", () => {
  const verdict = judged({ chat_request: request, generate_response: drawn(1, 2, 3), prompt_tokens: 4, more: 1 });
  assert.deepEqual([verdict.model, verdict.tokens], ["m", 3]);
  assert.deepEqual(JSON.parse(String(derenderBody(verdict, "org/m"))), {
    model: "org/m",
    generate_response: drawn(1, 2, 3),
    prompt_tokens: 4,
    chat_request: {
      model: "org/m",
      messages: [{ role: "user", content: [{ type: "text", text: "Hi" }] }],
      temperature: 0,
    },
  });
});

test("pieces and completions", () => {
  const piece = { choices: [{ index: 0, token_ids: [5], finish_reason: null }] };
  const part = judged({
    chat_request: request,
    stream: true,
    generate_chunk: piece,
    stream_state: { role_sent: true },
  });
  assert.equal(part.tokens, 1);
  const sent = JSON.parse(String(derenderBody(part))) as Record<string, unknown>;
  assert.deepEqual([sent["stream_state"], sent["generate_chunk"], sent["model"]], [{ role_sent: true }, piece, "m"]);
  const body = { completion_request: { model: "m", prompt: "Hi" }, generate_responses: [drawn(1)], prompt_tokens: [2] };
  const verdict = judged(body, "completion_request");
  assert.deepEqual(JSON.parse(String(derenderBody(verdict))), {
    model: "m",
    generate_responses: [drawn(1)],
    prompt_tokens: [2],
    completion_request: { model: "m", prompt: "Hi" },
  });
});

test("what the route here refuses is refused", () => {
  for (const [body, param] of [
    [
      { chat_request: request, generate_response: drawn(...Array(11).fill(1)) },
      "generate_response.choices.0.token_ids",
    ],
    [{ chat_request: request, generate_response: drawn(-1) }, "generate_response.choices.0.token_ids"],
    [{ chat_request: { ...request, n: 1000 }, generate_response: drawn(1) }, "n"],
    [{ chat_request: request, generate_response: drawn(1), stream_state: {} }, "stream_state"],
  ] as const)
    assert.throws(
      () => judged(body),
      (error) => error instanceof Fault && error.param?.startsWith(param) === true,
      JSON.stringify(param),
    );
  for (const text of ["[]", "null", "{", '{"chat_request":1}'])
    assert.throws(() => judgeDerender(Buffer.from(text), "chat_request", caps), Fault, text);
});
