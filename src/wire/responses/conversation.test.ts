import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChatMessage } from "#core/chat.ts";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import type { KeptResponse } from "#core/responses.ts";
import { answerItems, countItems, inputItems, itemsOf, joinItems, messagesOf } from "./conversation.ts";

const kept = (more: Partial<KeptResponse>): KeptResponse => ({
  ...{ id: "resp_1", status: "completed", body: {}, messages: [] },
  ...more,
});

test("lists are joined as text: what stands in them stays as it was written", () => {
  assert.equal(inputItems('"a\\u0007 \\"b"'), '[{"type":"message","role":"user","content":"a\\u0007 \\"b"}]');
  const list = '[ {"role" : "user", "content":1e0} ]';
  assert.equal(inputItems(list), list);
  assert.equal(joinItems("[]", list, "[ ]", '["]"]'), '[ {"role" : "user", "content":1e0} ,"]"]');
  assert.equal(joinItems(), "[]");
  assert.deepEqual([countItems("[]"), countItems(joinItems(list, list))], [0, 2]);
});

test("an answer is said again in forms that every server takes; what is not known stays as it is", () => {
  const search = { type: "web_search_call", id: "ws_1", status: "completed" };
  assert.deepEqual(
    answerItems([
      {
        type: "reasoning",
        id: "rs_1",
        summary: [],
        content: [{ type: "reasoning_text", text: "hm" }],
        encrypted_content: null,
      },
      { type: "reasoning", id: "rs_2", content: null },
      { type: "message", id: "m", status: "completed", content: [{ text: "a" }, { refusal: "b" }, 7, { text: 1 }] },
      { type: "function_call", id: "fc_1", call_id: "c", name: "f", arguments: "{}", status: "completed" },
      search,
      "text",
    ]),
    [
      { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: "hm" }] },
      { type: "reasoning", id: "rs_2", summary: [] },
      { type: "message", role: "assistant", content: "ab" },
      { type: "function_call", call_id: "c", name: "f", arguments: "{}" },
      search,
    ],
  );
  for (const output of [undefined, null, {}, "x"]) assert.deepEqual(answerItems(output), []);
});

const MESSAGES: readonly ChatMessage[] = [
  { role: "system", content: "Be short." },
  { role: "user", content: "Hi" },
  { role: "assistant", content: "I look.", reasoning: "hm", toolCalls: [{ id: "c", name: "f", arguments: "{}" }] },
  { role: "tool", content: "three", toolCallId: "c" },
  { role: "assistant", content: "Three." },
];

test("what the engine here said is told to a server behind, and comes back the same", () => {
  const items = itemsOf(kept({ messages: MESSAGES }));
  assert.deepEqual(messagesOf(kept({ items }), DEFAULT_CAPS), MESSAGES);
  assert.deepEqual(messagesOf(kept({ messages: MESSAGES }), DEFAULT_CAPS), MESSAGES);
  assert.equal(itemsOf(kept({ items: "[1]" })), "[1]");
});

test("a picture cannot be continued by a model that takes text", () => {
  const items = '[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,AA=="}]}]';
  assert.throws(
    () => messagesOf(kept({ items }), DEFAULT_CAPS),
    (error: unknown) =>
      error instanceof Fault && error.kind === "invalid_request" && error.param === "previous_response_id",
  );
});
