import assert from "node:assert/strict";
import { test } from "node:test";
import {
  array,
  constantFrom,
  dictionary,
  assert as holds,
  jsonValue,
  oneof,
  property,
  string,
  tuple,
} from "fast-check";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { decodeResponse } from "./decode.ts";
import { ResponsesBody } from "./schema.ts";

const tool = { type: "function", name: "f", parameters: { type: "object" } };

function decode(body: Record<string, unknown>) {
  return decodeResponse(ResponsesBody.parse({ input: "hi", ...body }), DEFAULT_CAPS);
}

const messagesOf = (input: unknown) => decode({ input }).call.chat.messages;

/** Where a body fails: by the schema, or by decode. */
function refusal(body: Record<string, unknown>): string {
  const parsed = ResponsesBody.safeParse({ input: "hi", ...body });
  if (!parsed.success) return `invalid_request ${parsed.error.issues[0]?.path.join(".")}`;
  try {
    decodeResponse(parsed.data, DEFAULT_CAPS);
  } catch (error) {
    if (error instanceof Fault) return `${error.kind} ${error.param}`;
    throw error;
  }
  throw new assert.AssertionError({ message: `nothing refused ${JSON.stringify(body).slice(0, 200)}` });
}

test("says nothing: the API's defaults", () => {
  const { call, echo } = decode({});
  assert.deepEqual(call.chat.messages, [{ role: "user", content: "hi" }]);
  assert.deepEqual(
    [call.background, call.stream, call.store, call.previousId, call.instructions],
    [false, false, undefined, undefined, undefined],
  );
  assert.deepEqual(call.chat.sampling, {});
  assert.deepEqual([call.chat.toolChoice, call.chat.parallelToolCalls], ["none", true]);
  assert.deepEqual([echo.tool_choice, echo.text, echo.truncation], ["auto", { format: { type: "text" } }, "disabled"]);
});

test("null stands for nothing wherever a field is optional", () => {
  const names = Object.keys(ResponsesBody.shape).filter(
    (name) =>
      ![
        "input",
        "include_stop_str_in_output",
        "ignore_eos",
        "min_tokens",
        "skip_special_tokens",
        "priority",
        "request_id",
      ].includes(name),
  );
  assert.deepEqual(decode(Object.fromEntries(names.map((name) => [name, null]))), decode({}));
});

test("items: an assistant's turn of several is one message", () => {
  const call = (n: number) => ({ type: "function_call", call_id: `c${n}`, name: "f", arguments: `{"a":${n}}` });
  const output = (n: number) => ({ type: "function_call_output", call_id: `c${n}`, output: `${n}` });
  assert.deepEqual(
    messagesOf([
      { role: "developer", content: "be brief" },
      {
        type: "message",
        role: "user",
        content: [
          { type: "input_text", text: "a" },
          { type: "input_text", text: "b" },
        ],
      },
      { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: "hm" }] },
      {
        type: "message",
        id: "msg_1",
        role: "assistant",
        status: "completed",
        content: [{ type: "output_text", text: "I call", annotations: [] }],
      },
      call(1),
      call(2),
      output(1),
      { ...output(2), output: [{ type: "input_text", text: "2" }] },
      { role: "assistant", content: "done" },
    ]),
    [
      { role: "developer", content: "be brief" },
      {
        role: "user",
        content: [
          { type: "text", text: "a" },
          { type: "text", text: "b" },
        ],
      },
      {
        role: "assistant",
        content: [{ type: "text", text: "I call" }],
        reasoning: "hm",
        toolCalls: [
          { id: "c1", name: "f", arguments: '{"a":1}' },
          { id: "c2", name: "f", arguments: '{"a":2}' },
        ],
      },
      { role: "tool", content: "1", toolCallId: "c1" },
      { role: "tool", content: [{ type: "text", text: "2" }], toolCallId: "c2" },
      { role: "assistant", content: "done" },
    ],
  );
});

test("two turns of an assistant stay two", () => {
  const said = (text: string) => ({ role: "assistant", content: text });
  assert.deepEqual(messagesOf([said("a"), said("b")]), [said("a"), said("b")]);
  const thinks = { type: "reasoning", summary: [{ type: "summary_text", text: "t" }] };
  assert.deepEqual(messagesOf([said("a"), thinks, said("b")]), [said("a"), { ...said("b"), reasoning: "t" }]);
});

test("tools of the flat form become what templates print; allowed_tools narrows them", () => {
  const nested = { type: "function", function: { name: "f", parameters: { type: "object" } } };
  const { call } = decode({ tools: [tool] });
  assert.deepEqual(
    [call.chat.tools, call.chat.toolChoice],
    [[{ name: "f", parameters: { type: "object" }, raw: nested }], "auto"],
  );
  assert.deepEqual(decode({ tools: [tool], tool_choice: { type: "function", name: "f" } }).call.chat.toolChoice, {
    name: "f",
  });
  const two = [tool, { ...tool, name: "g" }];
  const allowed = decode({
    tools: two,
    tool_choice: { type: "allowed_tools", mode: "required", tools: [{ type: "function", name: "g" }] },
  });
  assert.deepEqual(
    [allowed.call.chat.tools.map(({ name }) => name), allowed.call.chat.toolChoice],
    [["g"], "required"],
  );
  assert.deepEqual(allowed.echo.tools, two);
});

test("text.format, include, truncation, effort and sampling arrive", () => {
  const schema = { type: "object" };
  const { call } = decode({
    text: { format: { type: "json_schema", name: "s", schema, strict: true }, verbosity: "low" },
    include: ["message.output_text.logprobs", "reasoning.encrypted_content"],
    top_logprobs: 3,
    truncation: "auto",
    reasoning: { effort: "low", summary: "auto" },
    max_output_tokens: 9,
    temperature: 0.5,
    top_k: 4,
    seed: 7,
    stop: ["x"],
    cache_salt: "s",
  });
  assert.deepEqual(call.chat.output.structured, { kind: "json_schema", schema });
  assert.deepEqual([call.chat.output.logprobs, call.chat.output.cacheSalt, call.chat.output.stop], [3, "s", ["x"]]);
  assert.deepEqual(call.chat.output.truncatePrompt, { tokens: -1, side: "left" });
  assert.deepEqual(call.chat.template.kwargs, { enable_thinking: true, reasoning_effort: "low" });
  assert.deepEqual(call.chat.sampling, { temperature: 0.5, topK: 4, seed: 7, maxTokens: 9 });
});

const REFUSED: readonly (readonly [body: Record<string, unknown>, refusal: string])[] = [
  [{ input: undefined }, "invalid_request input"],
  [{ input: [] }, "invalid_request input"],
  [{ input: 5 }, "invalid_request input"],
  [{ input: Array.from({ length: 4097 }, () => 1) }, "invalid_request input"],
  [{ input: [null] }, "invalid_request input.0"],
  [{ input: [{ role: "tool", content: "a" }] }, "invalid_request input.0.role"],
  [{ input: [{ role: "user" }] }, "invalid_request input.0.content"],
  [
    { input: [{ role: "user", content: [{ type: "input_image", image_url: "x" }] }] },
    "not_implemented input.0.content.0.type",
  ],
  [{ input: [{ role: "user", content: [{ type: "constructor" }] }] }, "not_implemented input.0.content.0.type"],
  [{ input: [{ role: "user", content: [{ type: "input_text" }] }] }, "invalid_request input.0.content.0.text"],
  [{ input: [{ type: "function_call", name: "f", arguments: "{}" }] }, "invalid_request input.0.call_id"],
  [{ input: [{ type: "function_call", name: "f", call_id: "c", arguments: {} }] }, "invalid_request input.0.arguments"],
  [{ input: [{ type: "function_call_output", call_id: "c" }] }, "invalid_request input.0.output"],
  [{ input: [{ type: "function_call_output", output: "" }] }, "invalid_request input.0.call_id"],
  [{ input: [{ type: "reasoning", content: [{}] }] }, "invalid_request input.0.content.0.text"],
  [{ input: [{ type: "item_reference", id: "x" }] }, "invalid_request input.0.type"],
  [{ input: [{ type: "mcp_call" }] }, "not_implemented input.0.type"],
  [{ input: [{ type: 5 }] }, "invalid_request input.0.type"],
  [
    {
      input: Array.from({ length: 129 }, (_, i) => ({
        type: "function_call",
        call_id: `${i}`,
        name: "f",
        arguments: "{}",
      })),
    },
    "invalid_request input",
  ],
  [{ model: 5 }, "invalid_request model"],
  [{ instructions: 5 }, "invalid_request instructions"],
  [{ previous_response_id: "x".repeat(201) }, "invalid_request previous_response_id"],
  [{ store: "yes" }, "invalid_request store"],
  [{ background: 1 }, "invalid_request background"],
  [{ tools: [{ type: "web_search" }] }, "not_implemented tools.0.type"],
  [{ tools: [{ type: "mcp", server_url: "http://127.0.0.1" }] }, "not_implemented tools.0.type"],
  [{ tools: [{ name: "f" }] }, "invalid_request tools.0.type"],
  [{ tools: [{ type: "function", name: "" }] }, "invalid_request tools.0.name"],
  [{ tools: [{ type: "function", name: "f", parameters: [] }] }, "invalid_request tools.0.parameters"],
  [{ tools: Array.from({ length: 129 }, () => tool) }, "invalid_request tools"],
  [{ tool_choice: "required" }, "invalid_request tool_choice"],
  [{ tool_choice: "any" }, "invalid_request tool_choice"],
  [{ tools: [tool], tool_choice: { type: "function", name: "g" } }, "invalid_request tool_choice"],
  [{ tools: [tool], tool_choice: { type: "mcp" } }, "not_implemented tool_choice.type"],
  [
    { tools: [tool], tool_choice: { type: "allowed_tools", mode: "none", tools: [] } },
    "invalid_request tool_choice.mode",
  ],
  [
    { tools: [tool], tool_choice: { type: "allowed_tools", mode: "auto", tools: [{ name: "g" }] } },
    "invalid_request tool_choice.tools.0",
  ],
  [{ text: { format: { type: "xml" } } }, "invalid_request text.format.type"],
  [{ text: { format: { type: "json_schema", schema: {} } } }, "invalid_request text.format.name"],
  [{ text: { format: { type: "json_schema", name: "s", schema: 5 } } }, "invalid_request text.format.schema"],
  [{ text: { verbosity: "loud" } }, "invalid_request text.verbosity"],
  [
    { text: { format: { type: "json_object" } }, structured_outputs: { regex: "a" } },
    "invalid_request structured_outputs",
  ],
  [{ reasoning: { effort: "huge" } }, "invalid_request reasoning.effort"],
  [{ max_output_tokens: 0 }, "invalid_request max_output_tokens"],
  [{ max_tool_calls: 0 }, "invalid_request max_tool_calls"],
  [{ temperature: 2.1 }, "invalid_request temperature"],
  [{ top_p: 0 }, "invalid_request top_p"],
  [{ top_logprobs: 3 }, "invalid_request top_logprobs"],
  [{ top_logprobs: 21, include: ["message.output_text.logprobs"] }, "invalid_request top_logprobs"],
  [{ include: ["everything"] }, "not_implemented include.0"],
  [{ include: [5] }, "invalid_request include.0"],
  [{ truncation: "middle" }, "invalid_request truncation"],
  [{ metadata: { a: 5 } }, "invalid_request metadata.a"],
  [{ metadata: { a: "x".repeat(513) } }, "invalid_request metadata.a"],
  [{ metadata: { ["k".repeat(65)]: "" } }, "invalid_request metadata"],
  [{ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, ""])) }, "invalid_request metadata"],
  [{ service_tier: "gold" }, "invalid_request service_tier"],
  [{ prompt: { id: "p" } }, "invalid_request prompt"],
  [{ conversation: "conv_1" }, "invalid_request conversation"],
  [{ response_format: { type: "json_object" } }, "invalid_request response_format"],
  [{ context_management: [{ type: "compaction" }] }, "not_implemented context_management"],
  [{ moderation: { model: "x" } }, "not_implemented moderation"],
  [{ previous_input_messages: [{}] }, "not_implemented previous_input_messages"],
  [{ enable_response_messages: true }, "not_implemented enable_response_messages"],
  [{ stream_options: { include_obfuscation: false } }, "invalid_request stream_options"],
  [
    { stream: true, stream_options: { include_obfuscation: true } },
    "not_implemented stream_options.include_obfuscation",
  ],
  [{ cache_salt: "a/b" }, "invalid_request cache_salt"],
  [{ kv_transfer_params: { host: "x" } }, "invalid_request kv_transfer_params"],
  [{ mm_processor_kwargs: { code_revision: "x" } }, "invalid_request mm_processor_kwargs"],
  [{ guided_json: {} }, "invalid_request guided_json"],
  [{ logits_processors: ["os.system"] }, "invalid_request logits_processors"],
  [{ stop: "" }, "invalid_request stop"],
  [{ seed: 1.5 }, "invalid_request seed"],
  [{ structured_outputs: { json: {}, regex: "a" } }, "invalid_request structured_outputs"],
];

test("what cannot be done is refused by name", () => {
  for (const [body, expected] of REFUSED) assert.equal(refusal(body), expected, JSON.stringify(body).slice(0, 200));
});

test("whatever stands in a field, it is taken or refused by a fault", () => {
  const field = constantFrom(...Object.keys(ResponsesBody.shape));
  const word = constantFrom(
    "message",
    "function",
    "function_call",
    "reasoning",
    "json_schema",
    "allowed_tools",
    "auto",
    "f",
  );
  const key = constantFrom(
    "type",
    "role",
    "content",
    "name",
    "tools",
    "mode",
    "format",
    "schema",
    "call_id",
    "output",
    "summary",
  );
  const shaped = dictionary(key, oneof(word, jsonValue(), array(dictionary(key, oneof(word, jsonValue())))), {
    maxKeys: 5,
  });
  const value = oneof(jsonValue(), word, shaped, array(shaped, { maxLength: 4 }), string());
  holds(
    property(array(tuple(field, value), { maxLength: 4 }), (fields) => {
      const parsed = ResponsesBody.safeParse({ input: "hi", ...Object.fromEntries(fields) });
      if (!parsed.success) return;
      try {
        decodeResponse(parsed.data, DEFAULT_CAPS);
      } catch (error) {
        assert.ok(error instanceof Fault, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
