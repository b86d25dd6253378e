import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { decodeChat } from "./chat-decode.ts";
import { encodeChat } from "./chat-encode.ts";
import { ChatBody } from "./chat-schema.ts";
import { chatFrames } from "./chat-stream.ts";
import { decodeCompletion } from "./completion-decode.ts";
import { encodeCompletion } from "./completion-encode.ts";
import { CompletionBody } from "./completion-schema.ts";
import { encodeModels, ModelList } from "./models.ts";
import { ChatChunk, ChatCompletionReply, CompletionReply } from "./replies.ts";

const identity = { id: "chatcmpl-1", created: 7, usage: { cachedTokens: true, reasoningTokens: true, always: false } };
const total: CallEvent = {
  type: "usage",
  final: true,
  usage: { promptTokens: 2, completionTokens: 3, cachedTokens: 1, reasoningTokens: 1 },
};
const start: CallEvent = { type: "start", model: "m", prompts: [{ tokenIds: [1, 2], text: "ab" }] };
const position = (token: number, text: string, logprob = -1) => ({
  token,
  text,
  bytes: [1],
  logprob,
  rank: 1,
  top: [],
});

async function* stream(events: readonly CallEvent[]): AsyncGenerator<CallEvent> {
  yield* events;
}

function chatPrint(body: Record<string, unknown>) {
  return decodeChat(ChatBody.parse({ messages: [{ role: "user", content: "hi" }], ...body }), DEFAULT_CAPS).print;
}

function chat(body: Record<string, unknown>, events: readonly CallEvent[]) {
  return encodeChat(stream([start, ...events, total]), chatPrint(body), identity);
}

test("a chat answer has every field that vLLM dumps", async () => {
  const answer = await chat({}, [
    { type: "text", choice: 0, text: "he" },
    { type: "text", choice: 0, text: "y" },
    { type: "finish", choice: 0, reason: "stop", stop: "END" },
  ]);
  assert.deepEqual(answer, {
    id: "chatcmpl-1",
    object: "chat.completion",
    created: 7,
    model: "m",
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: "hey",
          refusal: null,
          annotations: null,
          audio: null,
          function_call: null,
          reasoning: null,
        },
        logprobs: null,
        finish_reason: "stop",
        stop_reason: "END",
        token_ids: null,
        routed_experts: null,
      },
    ],
    service_tier: null,
    system_fingerprint: null,
    usage: {
      prompt_tokens: 2,
      total_tokens: 5,
      completion_tokens: 3,
      prompt_tokens_details: { cached_tokens: 1 },
      completion_tokens_details: { reasoning_tokens: 1 },
    },
    prompt_logprobs: null,
    prompt_token_ids: null,
    prompt_text: null,
    kv_transfer_params: null,
    ec_transfer_params: null,
    metrics: null,
  });
  ChatCompletionReply.parse(answer);
});

test("tool calls and reasoning leave content null", async () => {
  const answer = ChatCompletionReply.parse(
    await chat({}, [
      { type: "reasoning", choice: 0, text: "hm" },
      { type: "tool-call", choice: 0, index: 0, id: "t0", name: "f", arguments: '{"a"' },
      { type: "tool-call", choice: 0, index: 0, arguments: ":1}" },
      { type: "tool-call", choice: 0, index: 1, id: "t1", name: "g", arguments: "{}" },
      { type: "finish", choice: 0, reason: "tool_calls" },
    ]),
  );
  const message = answer.choices[0]?.message;
  assert.equal(message?.content, null);
  assert.equal(message?.reasoning, "hm");
  assert.deepEqual(message?.tool_calls, [
    { id: "t0", type: "function", function: { name: "f", arguments: '{"a":1}' } },
    { id: "t1", type: "function", function: { name: "g", arguments: "{}" } },
  ]);
});

test("logprobs: the drawn token leads its top list, and stands there once", async () => {
  const drawn = { ...position(5, "a", -3), top: [position(6, "b", -1), position(5, "a", -3), position(7, "c", -4)] };
  const answer = ChatCompletionReply.parse(
    await chat({ logprobs: true, top_logprobs: 2, return_tokens_as_token_ids: true }, [
      { type: "text", choice: 0, text: "a", logprobs: [drawn] },
      { type: "finish", choice: 0, reason: "stop" },
    ]),
  );
  assert.deepEqual(
    answer.choices[0]?.logprobs?.content[0]?.top_logprobs.map((entry) => entry.token),
    ["token_id:5", "token_id:6"],
  );
});

test("prompt logprobs: null first, then id → logprob, rank, text", async () => {
  const answer = ChatCompletionReply.parse(
    await chat({ prompt_logprobs: 1 }, [
      {
        type: "prompt-logprobs",
        prompt: 0,
        positions: [null, { ...position(2, "b", -2), top: [position(9, "z", Number.NEGATIVE_INFINITY)] }],
      },
      { type: "finish", choice: 0, reason: "length" },
    ]),
  );
  assert.deepEqual(answer.prompt_logprobs, [
    null,
    { 2: { logprob: -2, rank: 1, decoded_token: "b" }, 9: { logprob: -9999, rank: 1, decoded_token: "z" } },
  ]);
});

test("a completion: echo, logprobs of prompt and answer, offsets, ids", async () => {
  const { call, print } = decodeCompletion(
    CompletionBody.parse({ prompt: "ab", echo: true, logprobs: 1 }),
    DEFAULT_CAPS,
  );
  const events: CallEvent[] = [
    start,
    { type: "prompt-logprobs", prompt: 0, positions: [null, position(2, "b")] },
    { type: "text", choice: 0, text: "c", logprobs: [{ ...position(3, "c"), top: [position(4, "__proto__", -2)] }] },
    { type: "finish", choice: 0, reason: "length" },
    total,
  ];
  const answer = CompletionReply.parse(
    await encodeCompletion(stream(events), print, { ...identity, id: "cmpl-1" }, call.output.n),
  );
  const choice = answer.choices[0];
  assert.equal(choice?.text, "abc");
  assert.deepEqual(choice?.logprobs?.text_offset, [0, 1, 2]);
  assert.deepEqual(choice?.logprobs?.token_logprobs, [null, -1, -1]);
  assert.deepEqual(choice?.logprobs?.tokens, ["a", "b", "c"]);
  assert.match(JSON.stringify(await encodeCompletion(stream(events), print, identity, 1)), /\{"c":-1,"__proto__":-2\}/);
});

test("with token ids asked for, the echo is the ids", async () => {
  const { print } = decodeCompletion(
    CompletionBody.parse({ prompt: "ab", echo: true, return_token_ids: true }),
    DEFAULT_CAPS,
  );
  const answer = CompletionReply.parse(
    await encodeCompletion(
      stream([
        start,
        { type: "text", choice: 0, text: "c", tokenIds: [3] },
        { type: "finish", choice: 0, reason: "length" },
        total,
      ]),
      print,
      { ...identity, id: "cmpl-1" },
      1,
    ),
  );
  assert.deepEqual(
    [answer.choices[0]?.text, answer.choices[0]?.prompt_token_ids, answer.choices[0]?.token_ids],
    ["c", [1, 2], [3]],
  );
});

test("an errored choice and a stream without its end are failures, not answers", async () => {
  await assert.rejects(
    chat({}, [{ type: "finish", choice: 0, reason: "error" }]),
    (error) => error instanceof Fault && error.kind === "engine_failed",
  );
  await assert.rejects(
    encodeChat(stream([start]), chatPrint({}), identity),
    (error) => error instanceof Fault && error.kind === "internal",
  );
});

test("leaving a stream closes the events under it", async () => {
  let closed = false;
  async function* endless(): AsyncGenerator<CallEvent> {
    try {
      yield start;
      for (;;) yield { type: "text", choice: 0, text: "x" };
    } finally {
      closed = true;
    }
  }
  for await (const frame of chatFrames(endless(), chatPrint({ stream: true }), identity, 1)) {
    ChatChunk.parse(JSON.parse(frame.slice("data: ".length)));
    if (frame.includes('"x"')) break;
  }
  assert.ok(closed);
});

test("models: no path, one permission, what clients look for", () => {
  const list = encodeModels([{ name: "demo", createdAt: 7, contextLength: 512 }]);
  ModelList.parse(list);
  assert.deepEqual(
    { ...list.data[0], permission: undefined },
    {
      id: "demo",
      object: "model",
      created: 7,
      owned_by: "vllm",
      root: "demo",
      parent: null,
      max_model_len: 512,
      permission: undefined,
    },
  );
});
