import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { ResponseEvents } from "./response-events.ts";

const frame = (type: string, fields: object = {}): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
const at = (place: number) => ({ output_index: place, content_index: 0, item_id: "x" });
const START: CallEvent = { type: "start", model: "m", prompts: [] };
const usage = (promptTokens: number, completionTokens: number): CallEvent => ({
  type: "usage",
  usage: { promptTokens, completionTokens, cachedTokens: 1, reasoningTokens: 2 },
  final: true,
});
const END = frame("response.completed", {
  response: {
    output: [{ type: "message", content: [{ text: "not again" }] }],
    usage: {
      ...{ input_tokens: 5, output_tokens: 3, input_tokens_details: { cached_tokens: 1 } },
      output_tokens_details: { reasoning_tokens: 2 },
    },
  },
});
const FINISH: CallEvent = { type: "finish", choice: 0, reason: "stop" };

function read(text: string, lengths: readonly number[] = [1 << 20]): CallEvent[] {
  const reader = new ResponseEvents("m");
  const bytes = Buffer.from(text);
  const events: CallEvent[] = [];
  for (let from = 0, i = 0; from < bytes.length; i++) {
    const length = lengths[i % lengths.length] ?? 1;
    events.push(...reader.take(bytes.subarray(from, from + length)));
    from += length;
  }
  return events;
}

const STREAM = [
  frame("response.created", { response: {} }),
  frame("response.reasoning_text.delta", { ...at(0), delta: "hm" }),
  frame("response.output_text.delta", { ...at(1), delta: "né\n" }),
  frame("response.output_item.added", { ...at(2), item: { type: "function_call", call_id: "c", name: "f" } }),
  frame("response.function_call_arguments.delta", { ...at(2), delta: "{" }),
  frame("response.function_call_arguments.delta", { ...at(2), delta: "}" }),
  frame("response.output_item.done", {
    ...at(2),
    item: { type: "function_call", call_id: "c", name: "f", arguments: "{}" },
  }),
  END.replace('"output":[', '"output":[{},'),
].join("");
const EVENTS: readonly CallEvent[] = [
  START,
  { type: "reasoning", choice: 0, text: "hm" },
  { type: "text", choice: 0, text: "né\n" },
  { type: "tool-call", choice: 0, index: 0, id: "c", name: "f", arguments: "" },
  { type: "tool-call", choice: 0, index: 0, arguments: "{" },
  { type: "tool-call", choice: 0, index: 0, arguments: "}" },
  FINISH,
  usage(5, 3),
];

test("wherever the chunks end, in either kind of line: the same events", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(lengths, fc.boolean(), (pieces, crlf) => {
      assert.deepEqual(read(crlf ? STREAM.replaceAll("\n", "\r\n") : STREAM, pieces), EVENTS);
    }),
  );
});

test("what was not told in pieces is taken from the item, or from the end", () => {
  const item = { type: "message", content: [{ type: "output_text", text: "all" }] };
  const done = frame("response.output_item.done", { ...at(0), item });
  const text: CallEvent = { type: "text", choice: 0, text: "all" };
  assert.deepEqual(read(done + END), [START, text, FINISH, usage(5, 3)]);
  const told = frame("response.incomplete", {
    response: { output: [item, { type: "function_call", call_id: "c", name: "f", arguments: "{}" }] },
  });
  assert.deepEqual(read(told), [
    START,
    text,
    { type: "tool-call", choice: 0, index: 0, id: "c", name: "f", arguments: "" },
    { type: "tool-call", choice: 0, index: 0, arguments: "{}" },
    { type: "finish", choice: 0, reason: "length" },
    {
      type: "usage",
      usage: { promptTokens: 0, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 },
      final: true,
    },
  ]);
});

test("logprobs come with their texts, without numbers of tokens", () => {
  const entry = {
    token: "a",
    logprob: -0.5,
    bytes: [97],
    top_logprobs: [{ token: "a", logprob: -0.5, bytes: [97] }, { token: "b", logprob: -1 }, { token: 7 }],
  };
  const [, event] = read(frame("response.output_text.delta", { ...at(0), delta: "a", logprobs: [entry, 5] }));
  const a = { token: 0, text: "a", bytes: [97], logprob: -0.5 };
  assert.deepEqual(event, {
    ...{ type: "text", choice: 0, text: "a" },
    logprobs: [
      {
        ...a,
        rank: 0,
        top: [
          { ...a, rank: 1 },
          { token: 2, text: "b", bytes: [98], logprob: -1, rank: 2 },
        ],
      },
    ],
  });
});

test("garbage is left out; nothing comes behind the end; a failure that is told is one, and says nothing of itself", () => {
  for (const text of [
    "data: x\n\n",
    "data: [1]\n\n",
    'data: {"type":7}\n\n',
    frame("ping"),
    ": comment\n\n",
    "\n\n\n",
    "event: response.created\n\n",
    frame("response.completed", { response: null }).replace("response.completed", "x"),
  ])
    assert.deepEqual(
      read(text).filter(({ type }) => type !== "start"),
      [],
      text,
    );
  assert.deepEqual(read(END + STREAM), [START, { type: "text", choice: 0, text: "not again" }, FINISH, usage(5, 3)]);
  for (const type of ["error", "response.failed"])
    assert.throws(
      () => read(frame(type, { message: "10.0.0.1 is down" })),
      (error: unknown) => error instanceof Fault && error.kind === "upstream_failed" && !/10\.0/.test(error.message),
    );
});

test("an event without an end is bounded", () => {
  const reader = new ResponseEvents("m");
  const mib = Buffer.alloc(1024 * 1024, 0x61);
  assert.throws(() => {
    for (let i = 0; i < 34; i++) reader.take(mib);
  }, Fault);
  const lines = new ResponseEvents("m");
  const line = Buffer.from(`data: ${"a".repeat(1024 * 1024)}\n`);
  assert.throws(() => {
    for (let i = 0; i < 34; i++) lines.take(line);
  }, Fault);
});
