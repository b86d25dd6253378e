/**
 * Pins: the bytes of Messages streams, and the whole message of the same events. Literals only: nothing here is
 * imported from src but what is under test.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { encodeMessage } from "#wire/anthropic/messages-encode.ts";
import { messageFrames } from "#wire/anthropic/messages-stream.ts";
import { MessageEvent, MessageReply } from "#wire/anthropic/replies.ts";

const START: CallEvent = { type: "start", model: "m", prompts: [{ tokenIds: [1, 2, 3] }] };
const text = (said: string): CallEvent => ({ type: "text", choice: 0, text: said });
const thought = (said: string): CallEvent => ({ type: "reasoning", choice: 0, text: said });
const fragment = (written: string, index = 0): CallEvent => ({
  type: "tool-call",
  choice: 0,
  index,
  arguments: written,
});
const call = (id: string, name: string, written: string, index = 0): CallEvent => ({
  type: "tool-call",
  choice: 0,
  index,
  id,
  name,
  arguments: written,
});
type Reason = Extract<CallEvent, { type: "finish" }>["reason"];
const finish = (reason: Reason, stop?: string | number): CallEvent => ({
  type: "finish",
  choice: 0,
  reason,
  ...(stop === undefined ? {} : { stop }),
});
const USED: CallEvent = {
  type: "usage",
  final: true,
  usage: { promptTokens: 3, completionTokens: 5, cachedTokens: 2, reasoningTokens: 0 },
};

async function* stream(events: readonly CallEvent[]): AsyncGenerator<CallEvent> {
  yield* events;
}

const identity = { id: "msg_1", cachedTokens: false, signature: () => "seal" };

async function bytes(events: readonly CallEvent[], cachedTokens = false): Promise<string> {
  let all = "";
  for await (const frame of messageFrames(stream([START, ...events, USED]), { ...identity, cachedTokens }))
    all += frame;
  for (const line of all.split("\n"))
    if (line.startsWith("data: ")) MessageEvent.parse(JSON.parse(line.slice("data: ".length)));
  return all;
}

async function whole(events: readonly CallEvent[], cachedTokens = false): Promise<unknown> {
  const message = await encodeMessage(stream([START, ...events, USED]), { ...identity, cachedTokens });
  return MessageReply.parse(JSON.parse(JSON.stringify(message)));
}

const OPENING =
  'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":0,"cache_creation_input_tokens":null,"cache_read_input_tokens":null}}}\n\n';
const PING = 'event: ping\ndata: {"type":"ping"}\n\n';
const STOP = 'event: message_stop\ndata: {"type":"message_stop"}\n\n';
const ended = (reason: string, sequence = "null"): string =>
  `event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":${reason},"stop_sequence":${sequence}},"usage":{"input_tokens":3,"output_tokens":5,"cache_creation_input_tokens":null,"cache_read_input_tokens":null}}\n\n${STOP}`;
const begin = (index: number, block: string): string =>
  `event: content_block_start\ndata: {"type":"content_block_start","index":${index},"content_block":${block}}\n\n`;
const delta = (index: number, piece: string): string =>
  `event: content_block_delta\ndata: {"type":"content_block_delta","index":${index},"delta":${piece}}\n\n`;
const end = (index: number): string =>
  `event: content_block_stop\ndata: {"type":"content_block_stop","index":${index}}\n\n`;
const message = (content: readonly unknown[], reason: string | null, sequence: string | null = null): unknown => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "m",
  content,
  stop_reason: reason,
  stop_sequence: sequence,
  usage: { input_tokens: 3, output_tokens: 5, cache_creation_input_tokens: null, cache_read_input_tokens: null },
});

test("text in pieces is one block; a ping follows its start", async () => {
  const events = [text("Hel"), text("lo"), text(""), finish("stop")];
  assert.equal(
    await bytes(events),
    OPENING +
      begin(0, '{"type":"text","text":""}') +
      PING +
      delta(0, '{"type":"text_delta","text":"Hel"}') +
      delta(0, '{"type":"text_delta","text":"lo"}') +
      end(0) +
      ended('"end_turn"'),
  );
  assert.deepEqual(await whole(events), message([{ type: "text", text: "Hello" }], "end_turn"));
});

test("a thought is sealed before its block stops; calls are blocks of their own", async () => {
  const events = [
    thought("hm"),
    text("I look."),
    call("t1", "f", ""),
    fragment('{"a":'),
    fragment("1}"),
    call("t2", "g", "{}", 1),
    finish("tool_calls"),
  ];
  assert.equal(
    await bytes(events),
    OPENING +
      begin(0, '{"type":"thinking","thinking":"","signature":""}') +
      PING +
      delta(0, '{"type":"thinking_delta","thinking":"hm"}') +
      delta(0, '{"type":"signature_delta","signature":"seal"}') +
      end(0) +
      begin(1, '{"type":"text","text":""}') +
      delta(1, '{"type":"text_delta","text":"I look."}') +
      end(1) +
      begin(2, '{"type":"tool_use","id":"t1","name":"f","input":{}}') +
      delta(2, '{"type":"input_json_delta","partial_json":"{\\"a\\":"}') +
      delta(2, '{"type":"input_json_delta","partial_json":"1}"}') +
      end(2) +
      begin(3, '{"type":"tool_use","id":"t2","name":"g","input":{}}') +
      delta(3, '{"type":"input_json_delta","partial_json":"{}"}') +
      end(3) +
      ended('"tool_use"'),
  );
  assert.deepEqual(
    await whole(events),
    message(
      [
        { type: "thinking", thinking: "hm", signature: "seal" },
        { type: "text", text: "I look." },
        { type: "tool_use", id: "t1", name: "f", input: { a: 1 } },
        { type: "tool_use", id: "t2", name: "g", input: {} },
      ],
      "tool_use",
    ),
  );
});

test("an empty answer has no block", async () => {
  assert.equal(await bytes([finish("stop")]), OPENING + ended('"end_turn"'));
  assert.deepEqual(await whole([finish("stop")]), message([], "end_turn"));
});

const STOPS: readonly (readonly [events: readonly CallEvent[], reason: string | null, sequence: string | null])[] = [
  [[text("a"), finish("stop")], "end_turn", null],
  [[text("a"), finish("stop", 7)], "end_turn", null],
  [[text("a"), finish("stop", "END\n")], "stop_sequence", "END\n"],
  [[text("a"), finish("length")], "max_tokens", null],
  [[call("t", "f", "{}"), finish("tool_calls", "END")], "tool_use", null],
  // The client named the tool: the core calls that an ordinary stop.
  [[call("t", "f", "{}"), finish("stop")], "tool_use", null],
  [[call("t", "f", "{}"), finish("length")], "max_tokens", null],
  [[text("a"), finish("abort")], null, null],
];

test("why it stopped", async () => {
  for (const [events, reason, sequence] of STOPS) {
    const printed = await bytes(events);
    assert.ok(printed.endsWith(ended(JSON.stringify(reason), JSON.stringify(sequence))), printed);
    assert.partialDeepStrictEqual(await whole(events), { stop_reason: reason, stop_sequence: sequence });
  }
});

test("a call that is no JSON object is text, and nobody is told to run it", async () => {
  for (const written of ['{"a": "cut', "[1]", '{"a": 1, "a": 2}', "null"]) {
    assert.deepEqual(
      await whole([call("t", "f", written), finish("tool_calls")]),
      message([{ type: "text", text: `{"name": "f", "arguments": ${written}` }], "end_turn"),
    );
  }
  assert.deepEqual(
    await whole([call("t", "f", ""), finish("tool_calls")]),
    message([{ type: "tool_use", id: "t", name: "f", input: {} }], "tool_use"),
  );
});

test("cached tokens are told apart where the server says so", async () => {
  const usage = { input_tokens: 1, output_tokens: 5, cache_creation_input_tokens: null, cache_read_input_tokens: 2 };
  assert.partialDeepStrictEqual(await whole([finish("stop")], true), { usage });
  const printed = await bytes([finish("stop")], true);
  assert.ok(printed.startsWith(OPENING), "at the start nothing is known of the cache");
  assert.ok(printed.includes(`"usage":${JSON.stringify(usage)}`), printed);
});

test("a line break in what the model says forges no event", async () => {
  const printed = await bytes([text("a\n\nevent: message_stop\ndata: {}\n\n"), finish("stop")]);
  assert.equal(printed.split("\n\n").filter((frame) => frame.startsWith("event: message_stop")).length, 1);
});

test("an answer that ends in an error is a failure, and one that just ends is a bug", async () => {
  await assert.rejects(
    whole([text("a"), finish("error")]),
    (error) => error instanceof Fault && error.kind === "engine_failed",
  );
  await assert.rejects(
    bytes([text("a"), finish("error")]),
    (error) => error instanceof Fault && error.kind === "engine_failed",
  );
  await assert.rejects(
    encodeMessage(stream([START]), identity),
    (error) => error instanceof Fault && error.kind === "internal",
  );
});
