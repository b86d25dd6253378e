/**
 * Pins: the bytes of representative streams, as vLLM sends them. Literals only: nothing here is imported from src
 * but what is under test.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallEvent } from "#core/calls.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { chatFrames } from "#wire/openai/chat-stream.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { completionFrames } from "#wire/openai/completion-stream.ts";

const details = { cachedTokens: false, reasoningTokens: false, always: false };
const start = (tokenIds: number[], text?: string): CallEvent => ({
  type: "start",
  model: "m",
  prompts: [{ tokenIds, ...(text === undefined ? {} : { text }) }],
});
const usage = (promptTokens: number, completionTokens: number, reasoningTokens = 0): CallEvent => ({
  type: "usage",
  final: true,
  usage: { promptTokens, completionTokens, cachedTokens: 1, reasoningTokens },
});
const running = (completionTokens: number, choice = 0): CallEvent => ({
  type: "usage",
  final: false,
  choice,
  usage: { promptTokens: 3, completionTokens, cachedTokens: 0, reasoningTokens: 0 },
});

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function* stream(events: readonly CallEvent[]): AsyncGenerator<CallEvent> {
  yield* events;
}

async function chat(
  body: Record<string, unknown>,
  events: readonly CallEvent[],
  usageDetails = details,
): Promise<string> {
  const { call, print } = decodeChat(
    ChatBody.parse({ messages: [{ role: "user", content: "hi" }], stream: true, ...body }),
    DEFAULT_CAPS,
  );
  const identity = { id: "chatcmpl-1", created: 7, usage: usageDetails };
  return (await collect(chatFrames(stream(events), print, identity, call.output.n))).join("");
}

async function completion(body: Record<string, unknown>, events: readonly CallEvent[]): Promise<string> {
  const { call, print } = decodeCompletion(CompletionBody.parse({ prompt: "ab", stream: true, ...body }), DEFAULT_CAPS);
  const identity = { id: "cmpl-1", created: 7, usage: details };
  return (await collect(completionFrames(stream(events), print, identity, call.output.n))).join("");
}

const CHAT = 'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m",';
const CMPL = 'data: {"id":"cmpl-1","object":"text_completion","created":7,"model":"m",';

test("chat: role, deltas, finish, done", async () => {
  const bytes = await chat({}, [
    start([1, 2, 3]),
    { type: "text", choice: 0, text: "Hel" },
    { type: "text", choice: 0, text: "lo" },
    { type: "finish", choice: 0, reason: "stop" },
    usage(3, 2),
  ]);
  assert.equal(
    bytes,
    `${CHAT}"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":"lo"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}]}\n\n` +
      "data: [DONE]\n\n",
  );
});

test("chat: usage at the end, and what the server's settings add to it", async () => {
  const events: CallEvent[] = [start([1, 2, 3]), { type: "finish", choice: 0, reason: "length" }, usage(3, 2, 1)];
  const plain = await chat({ stream_options: { include_usage: true } }, events);
  assert.ok(
    plain.endsWith(
      `${CHAT}"choices":[],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}}\n\ndata: [DONE]\n\n`,
    ),
  );
  const all = await chat({ stream_options: { include_usage: true } }, events, {
    cachedTokens: true,
    reasoningTokens: true,
    always: false,
  });
  assert.ok(
    all.endsWith(
      '"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1},"completion_tokens_details":{"reasoning_tokens":1}}}\n\ndata: [DONE]\n\n',
    ),
  );
  const none = await chat({ stream_options: { include_usage: false } }, events);
  assert.ok(!none.includes("usage"));
  assert.ok((await chat({}, events, { ...details, always: true })).includes('"usage":{"prompt_tokens":3'));
});

test("chat: continuous usage stands on every chunk", async () => {
  const bytes = await chat({ stream_options: { include_usage: true, continuous_usage_stats: true } }, [
    start([1, 2, 3]),
    { type: "text", choice: 0, text: "a" },
    running(1),
    { type: "finish", choice: 0, reason: "stop", stop: "END" },
    running(2),
    usage(3, 2),
  ]);
  assert.equal(
    bytes,
    `${CHAT}"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":3,"total_tokens":3,"completion_tokens":0,"completion_tokens_details":null},"prompt_token_ids":null,"prompt_text":null}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":3,"total_tokens":4,"completion_tokens":1,"completion_tokens_details":null}}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":"END","token_ids":null}],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,"completion_tokens_details":null}}\n\n` +
      `${CHAT}"choices":[],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}}\n\n` +
      "data: [DONE]\n\n",
  );
});

test("chat: two choices, each with a role chunk and a finish", async () => {
  const bytes = await chat({ n: 2 }, [
    start([1]),
    { type: "text", choice: 1, text: "b" },
    { type: "text", choice: 0, text: "a" },
    { type: "finish", choice: 1, reason: "stop", stop: 9 },
    { type: "finish", choice: 0, reason: "length" },
    usage(1, 2),
  ]);
  assert.equal(
    bytes,
    `${CHAT}"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}\n\n` +
      `${CHAT}"choices":[{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}\n\n` +
      `${CHAT}"choices":[{"index":1,"delta":{"content":"b"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":1,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":9,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]}\n\n` +
      "data: [DONE]\n\n",
  );
});

test("chat: reasoning, then a tool call in fragments", async () => {
  const bytes = await chat({}, [
    start([1]),
    { type: "reasoning", choice: 0, text: "hm" },
    { type: "tool-call", choice: 0, index: 0, id: "chatcmpl-tool-1", name: "f", arguments: "" },
    { type: "tool-call", choice: 0, index: 0, arguments: '{"a":' },
    { type: "tool-call", choice: 0, index: 0, arguments: "1}" },
    { type: "finish", choice: 0, reason: "tool_calls" },
    usage(1, 9),
  ]);
  assert.equal(
    bytes.split("\n\n").slice(1).join("\n\n"),
    `${CHAT}"choices":[{"index":0,"delta":{"reasoning":"hm"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"tool_calls":[{"id":"chatcmpl-tool-1","type":"function","index":0,"function":{"name":"f"}}]},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":"}}]},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls","stop_reason":null,"token_ids":null}]}\n\n` +
      "data: [DONE]\n\n",
  );
});

test("chat: token ids, logprobs and echo", async () => {
  const position = {
    token: 5,
    text: "a",
    bytes: [97],
    logprob: -0.5,
    rank: 2,
    top: [{ token: 6, text: "b", bytes: [98], logprob: Number.NEGATIVE_INFINITY, rank: 1 }],
  };
  const bytes = await chat(
    {
      logprobs: true,
      top_logprobs: 2,
      return_token_ids: true,
      return_prompt_text: true,
      echo: true,
      messages: [{ role: "assistant", content: "So" }],
      continue_final_message: true,
    },
    [
      start([1, 2], "<p>"),
      { type: "text", choice: 0, text: "a", tokenIds: [5], logprobs: [position] },
      { type: "finish", choice: 0, reason: "stop" },
      usage(2, 1),
    ],
  );
  assert.equal(
    bytes,
    `${CHAT}"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":[1,2],"prompt_text":"<p>"}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":"So"},"logprobs":null,"finish_reason":null}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]},{"token":"b","logprob":-9999,"bytes":[98]}]}]},"finish_reason":null,"token_ids":[5]}]}\n\n` +
      `${CHAT}"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}]}\n\n` +
      "data: [DONE]\n\n",
  );
});

test("completion: deltas, finish, usage, done", async () => {
  const bytes = await completion({ stream_options: { include_usage: true } }, [
    start([1, 2]),
    { type: "text", choice: 0, text: "x" },
    { type: "finish", choice: 0, reason: "length" },
    usage(2, 1),
  ]);
  assert.equal(
    bytes,
    `${CMPL}"choices":[{"index":0,"text":"x","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n` +
      `${CMPL}"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n` +
      `${CMPL}"choices":[],"usage":{"prompt_tokens":2,"total_tokens":3,"completion_tokens":1}}\n\n` +
      "data: [DONE]\n\n",
  );
});

test("completion: the echo is in front of the first delta, with the prompt's logprobs, and offsets go on", async () => {
  const at = (token: number, text: string) => ({ token, text, bytes: [], logprob: -1, rank: 1, top: [] });
  const bytes = await completion({ echo: true, logprobs: 0 }, [
    start([1, 2], "ab"),
    { type: "prompt-logprobs", prompt: 0, positions: [null, at(2, "b")] },
    { type: "text", choice: 0, text: "😀", logprobs: [at(3, "😀")] },
    { type: "text", choice: 0, text: "d", logprobs: [at(4, "d")] },
    { type: "finish", choice: 0, reason: "length" },
    usage(2, 2),
  ]);
  assert.equal(
    bytes,
    `${CMPL}"choices":[{"index":0,"text":"ab😀","logprobs":{"text_offset":[0,1,2],"token_logprobs":[null,-1,-1],"tokens":["a","b","😀"],"top_logprobs":[null,{"b":-1},{"😀":-1}]},"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n` +
      `${CMPL}"choices":[{"index":0,"text":"d","logprobs":{"text_offset":[3],"token_logprobs":[-1],"tokens":["d"],"top_logprobs":[{"d":-1}]},"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n` +
      `${CMPL}"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n` +
      "data: [DONE]\n\n",
  );
});

test("completion: two prompts, ids on the first chunk of each", async () => {
  const bytes = await completion({ prompt: ["a", "b"], return_token_ids: true }, [
    { type: "start", model: "m", prompts: [{ tokenIds: [1] }, { tokenIds: [2, 3] }] },
    { type: "text", choice: 1, text: "y", tokenIds: [8] },
    { type: "text", choice: 0, text: "x", tokenIds: [7] },
    { type: "finish", choice: 1, reason: "length" },
    { type: "finish", choice: 0, reason: "length" },
    usage(3, 2),
  ]);
  assert.equal(
    bytes,
    `${CMPL}"choices":[{"index":1,"text":"y","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":[2,3],"token_ids":[8]}]}\n\n` +
      `${CMPL}"choices":[{"index":0,"text":"x","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":[1],"token_ids":[7]}]}\n\n` +
      `${CMPL}"choices":[{"index":1,"text":"","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,"token_ids":[]}]}\n\n` +
      `${CMPL}"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length","stop_reason":null,"prompt_token_ids":null,"token_ids":[]}]}\n\n` +
      "data: [DONE]\n\n",
  );
});
