/**
 * Pins: the bytes of the streams of /v1/responses. Literals only: nothing here is imported from src but what is under
 * test.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import type { ResponseEvent } from "#core/responses.ts";
import { beginBody } from "#wire/responses/body.ts";
import { decodeResponse } from "#wire/responses/decode.ts";
import { responses, tell } from "#wire/responses/dialect.ts";
import { responseFrames } from "#wire/responses/frames.ts";
import { replay } from "#wire/responses/replay.ts";
import { ResponsesBody } from "#wire/responses/schema.ts";
import { Writer, type WriterOptions } from "#wire/responses/writer.ts";

const START: CallEvent = { type: "start", model: "m", prompts: [{ tokenIds: [1, 2, 3] }] };
const usage = (completionTokens: number, reasoningTokens = 0): CallEvent => ({
  type: "usage",
  final: true,
  usage: { promptTokens: 3, completionTokens, cachedTokens: 2, reasoningTokens },
});
const OPTIONS = { cachedTokens: false, tokensAsIds: false, reasoningEvents: "openai", logs: true } as WriterOptions;

function writer(body: Record<string, unknown> = {}, options = OPTIONS): Writer {
  const { echo } = decodeResponse(ResponsesBody.parse({ input: "hi", stream: true, ...body }), DEFAULT_CAPS);
  const begin = { id: "resp_1", created: 7, model: "m", temperature: 1, topP: 1, stored: false };
  return new Writer(beginBody(begin, echo), options);
}

async function bytes(events: readonly ResponseEvent[]): Promise<string> {
  async function* all() {
    yield* events;
  }
  let text = "";
  for await (const frame of responseFrames(all())) text += frame;
  return text;
}

function run(own: Writer, events: readonly CallEvent[]): readonly ResponseEvent[] {
  return [...own.begin(), ...events.flatMap((event) => own.push(event))];
}

const HEAD = '{"id":"resp_1","created_at":7,"error":null,"incomplete_details":';
const ECHO = ',"instructions":null,"metadata":null,"model":"m","object":"response","output":';
const TAIL =
  ',"parallel_tool_calls":true,"temperature":1,"tool_choice":"auto","tools":[],"top_p":1,"background":false,"max_output_tokens":null,"max_tool_calls":null,"previous_response_id":null,"prompt":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"auto","status":';
const TEXT = ',"store":false,"text":{"format":{"type":"text"}},"top_logprobs":0,"truncation":"disabled","usage":';
const object = (status: string, output: string, usage = "null", incomplete = "null"): string =>
  `${HEAD}${incomplete}${ECHO}${output}${TAIL}"${status}"${TEXT}${usage},"user":null}`;
const used = (output: number, reasoning = 0): string =>
  `{"input_tokens":3,"input_tokens_details":{"cached_tokens":0,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]},"output_tokens":${output},"output_tokens_details":{"reasoning_tokens":${reasoning},"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]},"total_tokens":${3 + output}}`;
const OPENING =
  `event: response.created\ndata: {"response":${object("in_progress", "[]")},"sequence_number":0,"type":"response.created"}\n\n` +
  `event: response.in_progress\ndata: {"response":${object("in_progress", "[]")},"sequence_number":1,"type":"response.in_progress"}\n\n`;

test("a text", async () => {
  const events: CallEvent[] = [
    START,
    { type: "text", choice: 0, text: "Hel" },
    { type: "text", choice: 0, text: "lo\n" },
    { type: "finish", choice: 0, reason: "stop" },
    usage(2),
  ];
  const item =
    '{"id":"msg_1_0","content":[{"annotations":[],"text":"Hello\\n","type":"output_text","logprobs":[]}],"role":"assistant","status":"completed","type":"message"}';
  assert.equal(
    await bytes(run(writer(), events)),
    `${OPENING}event: response.output_item.added\ndata: {"item":{"id":"msg_1_0","content":[],"role":"assistant","status":"in_progress","type":"message"},"output_index":0,"sequence_number":2,"type":"response.output_item.added"}\n\n` +
      `event: response.content_part.added\ndata: {"content_index":0,"item_id":"msg_1_0","output_index":0,"part":{"annotations":[],"text":"","type":"output_text","logprobs":[]},"sequence_number":3,"type":"response.content_part.added"}\n\n` +
      `event: response.output_text.delta\ndata: {"content_index":0,"delta":"Hel","item_id":"msg_1_0","logprobs":[],"output_index":0,"sequence_number":4,"type":"response.output_text.delta"}\n\n` +
      `event: response.output_text.delta\ndata: {"content_index":0,"delta":"lo\\n","item_id":"msg_1_0","logprobs":[],"output_index":0,"sequence_number":5,"type":"response.output_text.delta"}\n\n` +
      `event: response.output_text.done\ndata: {"content_index":0,"item_id":"msg_1_0","logprobs":[],"output_index":0,"text":"Hello\\n","sequence_number":6,"type":"response.output_text.done"}\n\n` +
      `event: response.content_part.done\ndata: {"content_index":0,"item_id":"msg_1_0","output_index":0,"part":{"annotations":[],"text":"Hello\\n","type":"output_text","logprobs":[]},"sequence_number":7,"type":"response.content_part.done"}\n\n` +
      `event: response.output_item.done\ndata: {"item":${item},"output_index":0,"sequence_number":8,"type":"response.output_item.done"}\n\n` +
      `event: response.completed\ndata: {"response":${object("completed", `[${item}]`, used(2))},"sequence_number":9,"type":"response.completed"}\n\n`,
  );
});

test("reasoning, then two calls", async () => {
  const events: CallEvent[] = [
    START,
    { type: "reasoning", choice: 0, text: "hm" },
    { type: "tool-call", choice: 0, index: 0, id: "call-a", name: "f", arguments: "" },
    { type: "tool-call", choice: 0, index: 0, arguments: '{"a":1}' },
    { type: "tool-call", choice: 0, index: 1, id: "call-b", name: "g", arguments: "{}" },
    { type: "finish", choice: 0, reason: "tool_calls" },
    usage(9, 3),
  ];
  const thought =
    '{"id":"rs_1_0","summary":[],"type":"reasoning","content":[{"text":"hm","type":"reasoning_text"}],"encrypted_content":null,"status":"completed"}';
  const call = (n: number, id: string, name: string, text: string, status = "completed"): string =>
    `{"arguments":"${text}","call_id":"${id}","name":"${name}","type":"function_call","id":"fc_1_${n}","status":"${status}"}`;
  const first = call(1, "call-a", "f", '{\\"a\\":1}');
  const second = call(2, "call-b", "g", "{}");
  assert.equal(
    await bytes(run(writer(), events)),
    `${OPENING}event: response.output_item.added\ndata: {"item":{"id":"rs_1_0","summary":[],"type":"reasoning","content":[],"encrypted_content":null,"status":"in_progress"},"output_index":0,"sequence_number":2,"type":"response.output_item.added"}\n\n` +
      `event: response.content_part.added\ndata: {"content_index":0,"item_id":"rs_1_0","output_index":0,"part":{"text":"","type":"reasoning_text"},"sequence_number":3,"type":"response.content_part.added"}\n\n` +
      `event: response.reasoning_text.delta\ndata: {"content_index":0,"delta":"hm","item_id":"rs_1_0","output_index":0,"sequence_number":4,"type":"response.reasoning_text.delta"}\n\n` +
      `event: response.reasoning_text.done\ndata: {"content_index":0,"item_id":"rs_1_0","output_index":0,"text":"hm","sequence_number":5,"type":"response.reasoning_text.done"}\n\n` +
      `event: response.content_part.done\ndata: {"content_index":0,"item_id":"rs_1_0","output_index":0,"part":{"text":"hm","type":"reasoning_text"},"sequence_number":6,"type":"response.content_part.done"}\n\n` +
      `event: response.output_item.done\ndata: {"item":${thought},"output_index":0,"sequence_number":7,"type":"response.output_item.done"}\n\n` +
      `event: response.output_item.added\ndata: {"item":${call(1, "call-a", "f", "", "in_progress")},"output_index":1,"sequence_number":8,"type":"response.output_item.added"}\n\n` +
      `event: response.function_call_arguments.delta\ndata: {"delta":"{\\"a\\":1}","item_id":"fc_1_1","output_index":1,"sequence_number":9,"type":"response.function_call_arguments.delta"}\n\n` +
      `event: response.function_call_arguments.done\ndata: {"arguments":"{\\"a\\":1}","item_id":"fc_1_1","name":"f","output_index":1,"sequence_number":10,"type":"response.function_call_arguments.done"}\n\n` +
      `event: response.output_item.done\ndata: {"item":${first},"output_index":1,"sequence_number":11,"type":"response.output_item.done"}\n\n` +
      `event: response.output_item.added\ndata: {"item":${call(2, "call-b", "g", "", "in_progress")},"output_index":2,"sequence_number":12,"type":"response.output_item.added"}\n\n` +
      `event: response.function_call_arguments.delta\ndata: {"delta":"{}","item_id":"fc_1_2","output_index":2,"sequence_number":13,"type":"response.function_call_arguments.delta"}\n\n` +
      `event: response.function_call_arguments.done\ndata: {"arguments":"{}","item_id":"fc_1_2","name":"g","output_index":2,"sequence_number":14,"type":"response.function_call_arguments.done"}\n\n` +
      `event: response.output_item.done\ndata: {"item":${second},"output_index":2,"sequence_number":15,"type":"response.output_item.done"}\n\n` +
      `event: response.completed\ndata: {"response":${object("completed", `[${thought},${first},${second}]`, used(9, 3))},"sequence_number":16,"type":"response.completed"}\n\n`,
  );
});

test("reasoning in vLLM's words, then a text", async () => {
  const events: CallEvent[] = [
    START,
    { type: "reasoning", choice: 0, text: "h" },
    { type: "reasoning", choice: 0, text: "m" },
    { type: "text", choice: 0, text: "a" },
    { type: "finish", choice: 0, reason: "stop" },
    usage(3, 2),
  ];
  const thought =
    '{"id":"rs_1_0","summary":[],"type":"reasoning","content":[{"text":"hm","type":"reasoning_text"}],"encrypted_content":null,"status":"completed"}';
  const item =
    '{"id":"msg_1_1","content":[{"annotations":[],"text":"a","type":"output_text","logprobs":[]}],"role":"assistant","status":"completed","type":"message"}';
  const own = writer({}, { ...OPTIONS, reasoningEvents: "vllm" });
  const expected =
    `${OPENING}event: response.output_item.added\ndata: {"item":{"id":"rs_1_0","summary":[],"type":"reasoning","content":null,"encrypted_content":null,"status":"in_progress"},"output_index":0,"sequence_number":2,"type":"response.output_item.added"}\n\n` +
    `event: response.reasoning_part.added\ndata: {"content_index":0,"item_id":"rs_1_0","output_index":0,"part":{"text":"","type":"reasoning_text"},"sequence_number":3,"type":"response.reasoning_part.added"}\n\n` +
    `event: response.reasoning_text.delta\ndata: {"content_index":0,"delta":"h","item_id":"rs_1_0","output_index":0,"sequence_number":4,"type":"response.reasoning_text.delta"}\n\n` +
    `event: response.reasoning_text.delta\ndata: {"content_index":0,"delta":"m","item_id":"rs_1_0","output_index":0,"sequence_number":5,"type":"response.reasoning_text.delta"}\n\n` +
    `event: response.reasoning_text.done\ndata: {"content_index":0,"item_id":"rs_1_0","output_index":0,"text":"hm","sequence_number":6,"type":"response.reasoning_text.done"}\n\n` +
    `event: response.reasoning_part.done\ndata: {"content_index":0,"item_id":"rs_1_0","output_index":0,"part":{"text":"hm","type":"reasoning_text"},"sequence_number":7,"type":"response.reasoning_part.done"}\n\n` +
    `event: response.output_item.done\ndata: {"item":${thought},"output_index":0,"sequence_number":8,"type":"response.output_item.done"}\n\n` +
    `event: response.output_item.added\ndata: {"item":{"id":"msg_1_1","content":[],"role":"assistant","status":"in_progress","type":"message"},"output_index":1,"sequence_number":9,"type":"response.output_item.added"}\n\n` +
    `event: response.content_part.added\ndata: {"content_index":0,"item_id":"msg_1_1","output_index":1,"part":{"annotations":[],"text":"","type":"output_text","logprobs":[]},"sequence_number":10,"type":"response.content_part.added"}\n\n` +
    `event: response.output_text.delta\ndata: {"content_index":0,"delta":"a","item_id":"msg_1_1","logprobs":[],"output_index":1,"sequence_number":11,"type":"response.output_text.delta"}\n\n` +
    `event: response.output_text.done\ndata: {"content_index":0,"item_id":"msg_1_1","logprobs":[],"output_index":1,"text":"a","sequence_number":12,"type":"response.output_text.done"}\n\n` +
    `event: response.content_part.done\ndata: {"content_index":0,"item_id":"msg_1_1","output_index":1,"part":{"annotations":[],"text":"a","type":"output_text","logprobs":[]},"sequence_number":13,"type":"response.content_part.done"}\n\n` +
    `event: response.output_item.done\ndata: {"item":${item},"output_index":1,"sequence_number":14,"type":"response.output_item.done"}\n\n` +
    `event: response.completed\ndata: {"response":${object("completed", `[${thought},${item}]`, used(3, 2))},"sequence_number":15,"type":"response.completed"}\n\n`;
  assert.equal(await bytes(run(own, events)), expected);
});

test("cut off by the budget: incomplete, item and response", async () => {
  const events: CallEvent[] = [
    START,
    { type: "text", choice: 0, text: "a" },
    { type: "finish", choice: 0, reason: "length" },
    usage(1),
  ];
  const item =
    '{"id":"msg_1_0","content":[{"annotations":[],"text":"a","type":"output_text","logprobs":[]}],"role":"assistant","status":"incomplete","type":"message"}';
  const whole = await bytes(run(writer(), events));
  assert.ok(
    whole.endsWith(
      `event: response.incomplete\ndata: {"response":${object("incomplete", `[${item}]`, used(1), '{"reason":"max_output_tokens"}')},"sequence_number":8,"type":"response.incomplete"}\n\n`,
    ),
    whole,
  );
});

test("a failure closes what is open; nothing comes after it", async () => {
  const own = writer();
  const events = run(own, [START, { type: "text", choice: 0, text: "a" }]);
  const last = own.stop("failed", { code: "server_error", message: "The engine died." });
  assert.deepEqual(
    [...events, ...last].map(({ type, sequence_number }) => `${sequence_number} ${type}`),
    [
      "0 response.created",
      "1 response.in_progress",
      "2 response.output_item.added",
      "3 response.content_part.added",
      "4 response.output_text.delta",
      "5 response.output_text.done",
      "6 response.content_part.done",
      "7 response.output_item.done",
      "8 response.failed",
    ],
  );
  assert.match(await bytes(last), /"error":\{"code":"server_error","message":"The engine died."\}/);
  assert.deepEqual(own.stop("cancelled"), []);
});

test("logprobs stand on deltas and on the part; what the cache held and ids are as the server says", async () => {
  const position = { token: 5, text: "a", bytes: [97], logprob: -0.5, rank: 1, top: [] };
  const events: CallEvent[] = [
    START,
    { type: "text", choice: 0, text: "a", logprobs: [position] },
    { type: "finish", choice: 0, reason: "stop" },
    usage(1),
  ];
  const asked = { include: ["message.output_text.logprobs"], top_logprobs: 1 };
  const plain = await bytes(run(writer(asked), events));
  const entry = '{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]}';
  assert.equal(plain.split(`"logprobs":[${entry}]`).length - 1, 5);
  const loose = await bytes(run(writer(asked, { ...OPTIONS, cachedTokens: true, tokensAsIds: true }), events));
  assert.match(loose, /"token":"token_id:5"/);
  assert.match(loose, /"input_tokens_details":\{"cached_tokens":2,/);
});

test("a stored background response is replayed to the byte", async () => {
  const own = writer({ background: true }, { ...OPTIONS, cachedTokens: true });
  const events: CallEvent[] = [
    START,
    { type: "reasoning", choice: 0, text: "h" },
    { type: "text", choice: 0, text: "a" },
    { type: "finish", choice: 0, reason: "stop" },
    usage(2, 1),
  ];
  const first = await bytes(run(own, events));
  const kept = JSON.parse(
    JSON.stringify({ id: "resp_1", status: own.status, body: own.body(), messages: [], log: own.log() }),
  );
  assert.equal(await bytes([...replay(kept, "openai")]), first);
  assert.match(first, /^event: response.created\ndata: .*"status":"queued"/);
});

test("a failure that no event has told is one; a told one is silent", () => {
  const late = new Fault("request_timeout", "Too slow.", { param: "x" });
  assert.equal(
    responses.streamFault(late, "id"),
    'event: error\ndata: {"type":"error","code":"408","message":"Too slow.","param":"x"}\n\n',
  );
  tell(late);
  assert.equal(responses.streamFault(late, "id"), "");
});
