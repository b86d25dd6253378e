import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { collect, type Fixture, fixture, grant, IM_END, says, summary } from "./_fixture.ts";
import { chat } from "./chat.ts";

const signal = new AbortController().signal;
const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];

function run({ serving }: Fixture, body: Record<string, unknown> = {}): Promise<CallEvent[]> {
  const { call } = decodeChat(ChatBody.parse({ messages: [{ role: "user", content: "hi" }], ...body }), DEFAULT_CAPS);
  return collect(chat(grant("inference"), serving, call, signal));
}

async function refuses(promise: Promise<unknown>, param: string | undefined, kind = "invalid_request"): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof Fault, String(error));
    assert.deepEqual([error.kind, error.param], [kind, param]);
    return true;
  });
}

test("answers in the model's first name, and counts the end-of-turn token", async () => {
  const setting = fixture({ reply: says("hello") });
  const events = await run(setting, { model: "demo-alias" });
  const [start] = events;
  assert.ok(start?.type === "start" && start.model === "demo");
  assert.match(start.prompts[0]?.text ?? "", /^<\|im_start\|>user\nhi<\|im_end\|>\n<\|im_start\|>assistant\n$/);
  assert.deepEqual(summary(events), { text: "hello", reasoning: "", calls: [], finish: "stop", stop: undefined });
  const last = events.at(-1);
  assert.ok(last?.type === "usage" && last.final);
  assert.equal(last.usage.completionTokens, 6);
  assert.equal(last.usage.promptTokens, start.prompts[0]?.tokenIds.length);
});

test("what the request leaves open comes from the model, then from vLLM", async () => {
  const setting = fixture(
    { reply: says("x") },
    { defaults: { temperature: 0.7, topK: 20, maxTokens: 50, stopTokenIds: [9] } },
  );
  await run(setting, { top_k: 5, stop_token_ids: [7] });
  const sampling = setting.backend.requests[0]?.sampling;
  assert.deepEqual([sampling?.temperature, sampling?.topK, sampling?.topP, sampling?.maxTokens], [0.7, 5, 1, 50]);
  assert.deepEqual(sampling?.stopTokenIds, [7, 9]);
});

test("without a budget the rest of the window is the budget", async () => {
  const setting = fixture({ reply: says("x") });
  const events = await run(setting);
  const [start] = events;
  assert.ok(start?.type === "start");
  assert.equal(setting.backend.requests[0]?.sampling.maxTokens, 512 - (start.prompts[0]?.tokenIds.length ?? 0));
});

test("greedy takes no top_k, top_p or min_p along", async () => {
  const setting = fixture({ reply: says("x") });
  await run(setting, { temperature: 0, top_k: 5, top_p: 0.5, min_p: 0.5 });
  const sampling = setting.backend.requests[0]?.sampling;
  assert.deepEqual([sampling?.topK, sampling?.topP, sampling?.minP], [0, 1, 0]);
});

test("the salt is the tenant's, whatever the client sends", async () => {
  const setting = fixture({ reply: says("x") });
  const { call } = decodeChat(
    ChatBody.parse({ messages: [{ role: "user", content: "hi" }], cache_salt: "s" }),
    DEFAULT_CAPS,
  );
  await collect(chat(grant("inference", "a"), setting.serving, call, signal));
  await collect(chat(grant("inference", "b"), setting.serving, call, signal));
  const salts = setting.backend.requests.map((request) => request.cacheSalt);
  assert.equal(new Set(salts).size, 2);
});

test("a stop string ends the choice, is cut, and is reported", async () => {
  const setting = fixture({ reply: says("one STOP two"), batch: 3 });
  const events = await run(setting, { stop: ["STOP"] });
  assert.deepEqual(summary(events), { text: "one ", reasoning: "", calls: [], finish: "stop", stop: "STOP" });
  assert.equal(setting.backend.open, 0);
  const kept = await run(fixture({ reply: says("one STOP two") }), { stop: "STOP", include_stop_str_in_output: true });
  assert.equal(summary(kept).text, "one STOP");
});

test("a stop token of the request is reported, the model's own is not", async () => {
  const events = await run(fixture({ reply: says("ab") }), { stop_token_ids: [0x62] });
  assert.deepEqual([summary(events).finish, summary(events).stop], ["stop", 0x62]);
});

test("reasoning is split off, counted, and can be left out with all that would show it", async () => {
  const reply = says("<think>hm</think>yes");
  const events = await run(fixture({ reply }));
  assert.deepEqual([summary(events).reasoning, summary(events).text], ["hm", "yes"]);
  const last = events.at(-1);
  assert.ok(last?.type === "usage" && last.usage.reasoningTokens > 0);

  const hidden = await run(fixture({ reply }), { include_reasoning: false, logprobs: true, return_token_ids: true });
  assert.deepEqual([summary(hidden).reasoning, summary(hidden).text], ["", "yes"]);
  assert.ok(!hidden.some((event) => "logprobs" in event || "tokenIds" in event));
  const plain = await run(
    fixture({ reply }, { parsers: { reasoning: undefined, tools: undefined, holdCalls: false } }),
  );
  assert.equal(summary(plain).text, "<think>hm</think>yes");
});

test("tool calls are parsed when tools are there and the choice is auto", async () => {
  const reply = says(
    '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
  );
  const events = await run(fixture({ reply }), { tools });
  const { calls, finish } = summary(events);
  assert.deepEqual(
    calls.map((call) => [call.name, JSON.parse(call.arguments)]),
    [
      ["f", { a: 1 }],
      ["g", {}],
    ],
  );
  assert.match(calls[0]?.id ?? "", /^chatcmpl-tool-[0-9a-f]+$/);
  assert.equal(finish, "tool_calls");

  const one = await run(fixture({ reply }), { tools, parallel_tool_calls: false });
  assert.deepEqual(
    summary(one).calls.map((call) => call.name),
    ["f"],
  );
  const required = await run(fixture({ reply }), { tools, tool_choice: "required" });
  assert.equal(summary(required).finish, "tool_calls");
  const named = await run(fixture({ reply }), { tools, tool_choice: { type: "function", function: { name: "f" } } });
  assert.deepEqual([summary(named).calls[0]?.name, summary(named).finish], ["f", "stop"]);
  const none = await run(fixture({ reply }), { tools, tool_choice: "none" });
  assert.deepEqual([summary(none).calls.length, summary(none).finish], [0, "stop"]);
  assert.match(summary(none).text, /<tool_call>/);
});

test("without a parser, tools with auto are refused: the answer would come unparsed", async () => {
  const setting = fixture(
    { reply: says("x") },
    { parsers: { reasoning: undefined, tools: undefined, holdCalls: false } },
  );
  await refuses(run(setting, { tools }), "tool_choice");
  assert.equal(setting.backend.requests.length, 0);
});

test("logprobs and token ids cover every token once", async () => {
  const events = await run(fixture({ reply: says("abc"), batch: 2 }), {
    logprobs: true,
    top_logprobs: 1,
    return_token_ids: true,
  });
  const ids = events.flatMap((event) => ("tokenIds" in event ? (event.tokenIds ?? []) : []));
  const positions = events.flatMap((event) => ("logprobs" in event ? (event.logprobs ?? []) : []));
  assert.deepEqual(ids, [0x61, 0x62, 0x63, IM_END]);
  assert.deepEqual(
    positions.map((position) => position.token),
    ids,
  );
  assert.deepEqual([positions[0]?.text, positions[0]?.bytes, positions[0]?.logprob], ["a", [0x61], -0.5]);
});

test("bad words are barred at the start and after a space", async () => {
  const setting = fixture({ reply: says("x") });
  await run(setting, { bad_words: ["no", " no"] });
  // A byte-level tokenizer: the spaced form has one token more, so it is no form of its own (vLLM's rule).
  assert.deepEqual(setting.backend.requests[0]?.sampling.badWords, [
    [0x6e, 0x6f],
    [0x6e, 0x6f],
  ]);
});

test("refusals that need the model name the field", async () => {
  const setting = fixture({ reply: says("x") });
  await refuses(run(setting, { model: "other" }), "model", "model_not_found");
  await refuses(run(setting, { stop_token_ids: [1, 259] }), "stop_token_ids.1");
  await refuses(run(setting, { allowed_token_ids: [100_000] }), "allowed_token_ids.0");
  await refuses(run(setting, { logit_bias: { 9999: 1 } }), "logit_bias.9999");
  await refuses(run(setting, { max_tokens: 600 }), "max_tokens");
  await refuses(run(setting, { min_tokens: 2 ** 50 }), "min_tokens");
  await refuses(run(setting, { bad_words: ["x".repeat(1025)] }), "bad_words");
  await refuses(run(setting, { truncate_prompt_tokens: 513 }), "truncate_prompt_tokens");
  await refuses(run(setting, { messages: [{ role: "user", content: "x".repeat(600) }] }), "messages");
  await refuses(run(fixture({}, { defaults: { temperature: 0 } }), { n: 2 }), "n");
  assert.equal(setting.backend.requests.length, 0);
});

test("the window's refusal is in vLLM's words", async () => {
  await assert.rejects(
    run(fixture(), { max_tokens: 600 }),
    /This model's maximum context length is 512 tokens\. However, you requested 600 output tokens and your prompt contains \d+ input tokens/,
  );
});

test("truncation keeps the end of the prompt unless told otherwise", async () => {
  const setting = fixture({ reply: says("x") });
  await run(setting, { truncate_prompt_tokens: 3 });
  await run(setting, { truncate_prompt_tokens: 3, truncation_side: "right" });
  const [left, right] = setting.backend.requests.map((request) =>
    Buffer.from(request.prompt.filter((id) => id < 256)).toString(),
  );
  assert.deepEqual([left, right], ["nt\n", "us"]);
  await refuses(run(setting, { truncate_prompt_tokens: 0 }), "messages");
});

test("naughty strings: as messages, stops and tools' names they are text, and come back whole", async (t) => {
  const { corpus } = await import(new URL("../../test/corpora.ts", import.meta.url).href);
  const folder = corpus(t, "naughty-strings");
  if (folder === undefined) return;
  const strings: string[] = JSON.parse(readFileSync(join(folder, "blns.json"), "utf8"));
  assert.ok(strings.length > 400);
  for (const text of strings) {
    const setting = fixture({ reply: says(text), model: { contextLength: 1 << 20 } });
    let events: CallEvent[];
    try {
      events = await run(setting, { messages: [{ role: "user", content: text }] });
    } catch (error) {
      assert.ok(error instanceof Fault && error.kind === "invalid_request", `${JSON.stringify(text)}: ${error}`);
      continue;
    }
    const { text: said, reasoning, finish } = summary(events);
    assert.equal(finish, "stop");
    assert.equal(said + reasoning, text.toWellFormed());
    const specials = setting.backend.requests[0]?.prompt.filter((id) => id >= 256).length;
    assert.equal(specials, 3, `${JSON.stringify(text)} made control tokens`);
  }
});
