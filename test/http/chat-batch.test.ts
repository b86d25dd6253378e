/**
 * POST /v1/chat/completions/batch over the scripted model: one answer a conversation, bounded, reserved at once.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { Meter, Work } from "#core/metering.ts";
import { createHttp } from "#http/server.ts";
import type { Gate } from "#policy/gate.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture, IM_END } from "#serving/_fixture.ts";
import type { Script } from "#serving/_scripted-backend.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ChatCompletionReply, ErrorReply } from "#wire/openai/replies.ts";

const PATH = "/v1/chat/completions/batch";
const says = (text: string) => [{ role: "user", content: text }];

/** The last letter that the user wrote, said back: an answer tells whose it is. */
const echoes: Script = {
  reply: ({ prompt }) => {
    const text = Buffer.from([...prompt].filter((id) => id < 256)).toString();
    return [...Buffer.from(`<think>hm</think>${/user\n(\w+)/.exec(text)?.[1]}`), IM_END];
  },
};

async function server(t: TestContext, script: Script = echoes, caps = {}) {
  const setting = fixture(script);
  const reserved: Work[] = [];
  const settled: number[] = [];
  const meter: Meter = {
    reserve: (work) => {
      if (work.sequences > 5) throw new Fault("rate_limited", "Too much.");
      reserved.push(work);
      return { settle: async ({ completionTokens }) => void settled.push(completionTokens) };
    },
  };
  const plain = gateOf({ key: { ...principalOf({ id: "k", tenant: "t", role: "user" }), caps } });
  const gate: Gate = { identify: plain.identify, open: (call) => ({ ...plain.open(call), meter }) };
  const http = await createHttp({ routes, services: servicesOf(setting), gate, dialect: openai });
  t.after(() => http.close(0));
  const ask = async (body: object) =>
    http.inject("public", {
      method: "POST",
      url: PATH,
      headers: { authorization: "Bearer key", "content-type": "application/json" },
      payload: JSON.stringify(body),
    });
  return { ask, setting, reserved, settled };
}

test("each conversation has its answer, in order, and one usage", async (t) => {
  const { ask, reserved, settled } = await server(t);
  const messages = ["one", "two", "three"].map(says);
  const answer = await ask({ messages, max_tokens: 40, logprobs: true, return_token_ids: true, request_id: "mine" });
  assert.equal(answer.statusCode, 200, answer.body);
  const reply = ChatCompletionReply.parse(answer.json());
  assert.equal(reply.id, "chatcmpl-mine");
  assert.deepEqual(
    reply.choices.map(({ index, message, finish_reason }) => [
      index,
      message.content,
      message.reasoning,
      finish_reason,
    ]),
    ["one", "two", "three"].map((word, i) => [i, word, "hm", "stop"]),
  );
  assert.equal(reply.usage.completion_tokens, 3 * 18 + 3 + 3 + 5);
  assert.deepEqual(reply.choices[0]?.token_ids?.length, reply.choices[0]?.logprobs?.content.length);
  assert.equal(reply.prompt_token_ids, null);
  assert.deepEqual(
    reserved.map(({ sequences, completionTokens, promptTokens }) => [sequences, completionTokens, promptTokens]),
    [[3, 120, reply.usage.prompt_tokens]],
  );
  assert.equal(settled[0], reply.usage.completion_tokens);
});

test("echo and the role are those of each conversation", async (t) => {
  const { ask } = await server(t, { reply: () => [...Buffer.from("."), IM_END] });
  const turn = (content: string, role: string) => [...says("hi"), { role, content }];
  const answer = await ask({
    messages: [turn("So", "assistant"), turn("Or", "tool")],
    echo: true,
    continue_final_message: false,
    add_generation_prompt: false,
  });
  const { choices } = ChatCompletionReply.parse(answer.json());
  assert.deepEqual(
    choices.map(({ message }) => [message.role, message.content]),
    [
      ["assistant", "So."],
      ["tool", "Or."],
    ],
  );
});

test("what a batch cannot have is refused by name, and starts no work", async (t) => {
  const { ask, setting } = await server(t, echoes, { messages: 2 });
  const tool = { type: "function", function: { name: "f" } };
  const good = { messages: [says("a"), says("b")], max_tokens: 20 };
  for (const [more, param] of [
    [{ stream: true }, "stream"],
    [{ tools: [tool] }, "tools"],
    [{ tool_choice: "auto" }, "tool_choice"],
    [{ tool_choice: { type: "function", function: { name: "f" } } }, "tool_choice"],
    [{ use_beam_search: true }, "use_beam_search"],
    [{ n: 2 }, "n"],
    [{ n: 0 }, "n"],
    [{ prompt_logprobs: 1 }, "prompt_logprobs"],
    [{ return_prompt_text: true }, "return_prompt_text"],
    [{ messages: undefined }, "messages"],
    [{ messages: [] }, "messages"],
    [{ messages: says("a") }, "messages.0"],
    [{ messages: [says("a"), []] }, "messages.1"],
    [{ messages: [says("a"), "b"] }, "messages.1"],
    [{ messages: [says("a"), [{ content: "b" }]] }, "messages.1.0.role"],
    [{ messages: [says("a"), [...says("b"), ...says("b"), ...says("b")]] }, "messages.1"],
    [{ messages: [says("a"), says("b".repeat(1000))] }, "messages.1"],
    [{ messages: Array.from({ length: 65 }, () => says("a")) }, "messages"],
    [{ temperature: 3 }, "temperature"],
    [{ kv_transfer_params: { a: 1 } }, "kv_transfer_params"],
  ] as const) {
    const answer = await ask({ ...good, ...more });
    assert.equal(answer.statusCode, 400, `${param} ${answer.body}`);
    assert.equal((ErrorReply.parse(answer.json()).error as { param: string }).param, param, answer.body);
  }
  assert.equal(setting.backend.requests.length, 0);
  assert.equal((await ask({ ...good, tool_choice: "none", n: 1, stream: false })).statusCode, 200);
});

test("conversations are choices, and have their cap", async (t) => {
  const { ask, setting } = await server(t, echoes, { choices: 2 });
  const answer = await ask({ messages: [says("a"), says("b"), says("c")], max_tokens: 20 });
  assert.equal(answer.statusCode, 400, answer.body);
  assert.equal((ErrorReply.parse(answer.json()).error as { param: string }).param, "messages");
  assert.equal(setting.backend.requests.length, 0);
});

test("all or none: what a limit does not let in whole starts nothing; what dies frees all", async (t) => {
  const { ask, setting } = await server(t);
  assert.equal((await ask({ messages: Array.from({ length: 6 }, () => says("a")) })).statusCode, 429);
  assert.equal(setting.backend.requests.length, 0);
  const dying = await server(t, { ...echoes, failAfter: 3 });
  assert.equal((await dying.ask({ messages: [says("a"), says("b")] })).statusCode, 503);
  assert.equal(dying.setting.backend.open, 0);
  assert.deepEqual(dying.settled[0], 0);
});
