import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { decodeCountTokens, decodeMessages } from "./messages-decode.ts";
import { CountTokensBody, MessagesBody } from "./messages-schema.ts";

const hello = [{ role: "user", content: "hi" }];
const tool = { name: "f", description: "d", input_schema: { type: "object", properties: {} } };
const base = { model: "m", max_tokens: 9, messages: hello };

function decode(body: Record<string, unknown>, reasons = true) {
  return decodeMessages(MessagesBody.parse({ ...base, ...body }), DEFAULT_CAPS, reasons);
}

/** Where a body fails: by the schema, or by decode. */
function refusal(body: Record<string, unknown>): string | undefined {
  const parsed = MessagesBody.safeParse({ ...base, ...body });
  if (!parsed.success) return parsed.error.issues[0]?.path.join(".");
  try {
    decodeMessages(parsed.data, DEFAULT_CAPS, true);
  } catch (error) {
    if (error instanceof Fault && error.kind === "invalid_request") return error.param;
    throw error;
  }
  throw new assert.AssertionError({ message: `nothing refused ${JSON.stringify(body).slice(0, 200)}` });
}

test("says nothing: one choice, the template's own mind about thinking", () => {
  assert.deepEqual(decode({}), {
    model: "m",
    messages: [{ role: "user", content: "hi" }],
    tools: [],
    toolChoice: "none",
    parallelToolCalls: true,
    includeReasoning: true,
    sampling: { maxTokens: 9 },
    output: {
      n: 1,
      stop: [],
      includeStopString: false,
      skipSpecialTokens: true,
      returnTokenIds: false,
      stream: false,
    },
    template: { addGenerationPrompt: true, continueFinalMessage: false, addSpecialTokens: false, kwargs: {} },
  });
});

test("null, fields without effect and unknown ones change nothing", () => {
  const optional = [
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "chat_template_kwargs",
    "stop_sequences",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "metadata",
    "service_tier",
    "kv_transfer_params",
    "mcp_servers",
    "container",
  ];
  assert.deepEqual(decode(Object.fromEntries(optional.map((name) => [name, null]))), decode({}));
  const silent = {
    metadata: { user_id: "u" },
    service_tier: "auto",
    cache_control: { type: "ephemeral" },
    tools: [],
    mcp_servers: [],
    kv_transfer_params: {},
    context_management: { edits: [] },
    inference_geo: "eu",
    whatever: 1,
  };
  assert.deepEqual(decode(silent), decode({}));
});

test("sampling and stop sequences arrive", () => {
  const call = decode({ temperature: 0, top_p: 0.5, top_k: 3, stop_sequences: ["a", "\n"], stream: true });
  assert.deepEqual(call.sampling, { temperature: 0, topP: 0.5, topK: 3, maxTokens: 9 });
  assert.deepEqual([call.output.stop, call.output.stream], [["a", "\n"], true]);
});

test("system: text, blocks and messages become one in front, without what differs each time", () => {
  assert.deepEqual(decode({ system: "be kind" }).messages[0], { role: "system", content: "be kind" });
  const messages = [
    ...hello,
    { role: "system", content: [{ type: "text", text: "c" }] },
    { role: "system", content: "d" },
  ];
  const system = [
    { type: "text", text: "x-anthropic-billing-header: v=1" },
    { type: "text", text: "a", cache_control: { type: "ephemeral" } },
    { type: "text", text: "" },
    { type: "text", text: "b", citations: null },
  ];
  assert.deepEqual(decode({ system, messages }).messages, [
    { role: "system", content: "abcd" },
    { role: "user", content: "hi" },
  ]);
  assert.deepEqual(decode({ system: "" }), decode({}));
});

test("blocks: a tool's round trip with its thought", () => {
  const messages = [
    {
      role: "user",
      content: [
        { type: "text", text: "a" },
        { type: "text", text: "" },
        { type: "text", text: "b" },
      ],
    },
    {
      role: "assistant",
      content: [
        { type: "thinking", thinking: "h", signature: "s" },
        { type: "redacted_thinking", data: "AAAA" },
        { type: "thinking", thinking: "m", signature: "" },
        { type: "text", text: "so" },
        { type: "tool_use", id: "t1", name: "f", input: { a: 1 } },
        { type: "tool_use", id: "t2", name: "g" },
      ],
    },
    {
      role: "user",
      content: [
        { type: "text", text: "and now" },
        { type: "tool_result", tool_use_id: "t1", content: "42", is_error: false },
        {
          type: "tool_result",
          tool_use_id: "t2",
          is_error: true,
          content: [
            { type: "text", text: "x" },
            { type: "text", text: "y" },
          ],
        },
        { type: "tool_result", tool_use_id: "t3" },
      ],
    },
    { role: "ctx", content: [{ type: "tool_result", tool_use_id: "t4", content: "5" }] },
    { role: "assistant", content: [] },
  ];
  assert.deepEqual(decode({ messages }).messages, [
    {
      role: "user",
      content: [
        { type: "text", text: "a" },
        { type: "text", text: "b" },
      ],
    },
    {
      role: "assistant",
      content: "so",
      reasoning: "hm",
      toolCalls: [
        { id: "t1", name: "f", arguments: '{"a":1}' },
        { id: "t2", name: "g", arguments: "{}" },
      ],
    },
    { role: "tool", content: "42", toolCallId: "t1" },
    { role: "tool", content: "x\ny", toolCallId: "t2" },
    { role: "tool", content: "", toolCallId: "t3" },
    { role: "user", content: "and now" },
    { role: "tool", content: "5", toolCallId: "t4" },
    { role: "assistant", content: null },
  ]);
});

test("tools are told in the templates' form", () => {
  const { tools, toolChoice } = decode({
    tools: [
      { ...tool, type: "custom", strict: true, cache_control: { type: "ephemeral" } },
      { name: "g", input_schema: {} },
    ],
  });
  const parameters = { type: "object", properties: {} };
  assert.equal(toolChoice, "auto");
  assert.deepEqual(tools, [
    {
      name: "f",
      description: "d",
      parameters,
      raw: { type: "function", function: { name: "f", description: "d", parameters } },
    },
    {
      name: "g",
      parameters: { type: "object" },
      raw: { type: "function", function: { name: "g", parameters: { type: "object" } } },
    },
  ]);
});

test("tool_choice", () => {
  const choice = (tool_choice: unknown, tools: unknown = [tool]) => {
    const { toolChoice, parallelToolCalls } = decode({ tools, tool_choice });
    return [toolChoice, parallelToolCalls];
  };
  assert.deepEqual(choice({ type: "auto" }), ["auto", true]);
  assert.deepEqual(choice({ type: "auto" }, undefined), ["auto", true]);
  assert.deepEqual(choice({ type: "auto" }, []), ["none", true]);
  assert.deepEqual(choice({ type: "any", disable_parallel_tool_use: true }), ["required", false]);
  assert.deepEqual(choice({ type: "tool", name: "f" }), [{ name: "f" }, true]);
  assert.deepEqual(choice({ type: "none" }), ["none", true]);
});

test("thinking speaks to the template, the sampler and the printer", () => {
  const of = (body: Record<string, unknown>, reasons?: boolean) => {
    const { template, sampling, includeReasoning } = decode(body, reasons);
    return [template.kwargs, sampling.thinkingBudget, includeReasoning];
  };
  assert.deepEqual(of({ thinking: { type: "enabled", budget_tokens: 5 } }), [{ enable_thinking: true }, 5, true]);
  assert.deepEqual(of({ thinking: { type: "adaptive", display: "omitted" } }), [
    { enable_thinking: true },
    undefined,
    false,
  ]);
  assert.deepEqual(of({ thinking: { type: "disabled" } }), [{ enable_thinking: false }, undefined, true]);
  // A model whose thoughts are not marked has none that a budget could bound.
  assert.deepEqual(of({ thinking: { type: "enabled", budget_tokens: 5 } }, false), [
    { enable_thinking: true },
    undefined,
    true,
  ]);
  assert.deepEqual(of({ output_config: { effort: "low" } })[0], { enable_thinking: true, reasoning_effort: "low" });
  assert.deepEqual(of({ output_config: { effort: "low" }, thinking: { type: "disabled" } })[0], {
    enable_thinking: false,
    reasoning_effort: "low",
  });
  assert.deepEqual(of({ thinking: { type: "disabled" }, chat_template_kwargs: { enable_thinking: true, a: 1 } })[0], {
    enable_thinking: true,
    a: 1,
  });
});

test("output_config.format is a schema for the text", () => {
  const schema = { type: "object" };
  assert.deepEqual(decode({ output_config: { format: { type: "json_schema", schema } } }).output.structured, {
    kind: "json_schema",
    schema,
  });
});

test("count_tokens takes the same prompt", () => {
  const body = { model: "m", messages: hello, system: "s", tools: [tool], thinking: { type: "adaptive" } };
  const { messages, tools, template } = decode(body);
  assert.deepEqual(decodeCountTokens(CountTokensBody.parse(body), DEFAULT_CAPS), {
    model: "m",
    source: { kind: "chat", messages, tools, template },
    withSpellings: false,
  });
});

const user = (...content: unknown[]) => ({ messages: [{ role: "user", content }] });
const assistant = (...content: unknown[]) => ({ messages: [{ role: "assistant", content }] });
const many = (count: number) => Array.from({ length: count }, (_, i) => i);
const REFUSED: readonly (readonly [body: Record<string, unknown>, param: string])[] = [
  [{ model: undefined }, "model"],
  [{ model: "" }, "model"],
  [{ max_tokens: undefined }, "max_tokens"],
  [{ max_tokens: null }, "max_tokens"],
  [{ max_tokens: 0 }, "max_tokens"],
  [{ max_tokens: 1.5 }, "max_tokens"],
  [{ messages: undefined }, "messages"],
  [{ messages: [] }, "messages"],
  [{ messages: "hi" }, "messages"],
  [{ messages: many(5000) }, "messages"],
  [
    {
      messages: Array.from({ length: 5 }, () => ({
        role: "user",
        content: many(900).map((i) => ({ type: "tool_result", tool_use_id: `${i}` })),
      })),
    },
    "messages",
  ],
  [{ messages: [null] }, "messages.0"],
  [{ messages: [{ content: "hi" }] }, "messages.0.role"],
  [{ messages: [{ role: "tool", content: "hi" }] }, "messages.0.role"],
  [{ messages: [{ role: "user" }] }, "messages.0.content"],
  [{ messages: [{ role: "user", content: 5 }] }, "messages.0.content"],
  [{ messages: [{ role: "user", content: many(2000) }] }, "messages.0.content"],
  [user("a"), "messages.0.content.0"],
  [user({ text: "a" }), "messages.0.content.0.type"],
  [user({ type: "text" }), "messages.0.content.0.text"],
  [user({ type: "constructor" }), "messages.0.content.0.type"],
  [user({ type: "image", source: { type: "url", url: "http://169.254.169.254/" } }), "messages.0.content.0.type"],
  [user({ type: "document", source: { type: "text", data: "x" } }), "messages.0.content.0.type"],
  [user({ type: "tool_use", id: "t", name: "f", input: {} }), "messages.0.content.0.type"],
  [user({ type: "thinking", thinking: "x" }), "messages.0.content.0.type"],
  [user({ type: "tool_result" }), "messages.0.content.0.tool_use_id"],
  [user({ type: "tool_result", tool_use_id: "t", content: 5 }), "messages.0.content.0.content"],
  [
    user({ type: "tool_result", tool_use_id: "t", content: [{ type: "image", source: {} }] }),
    "messages.0.content.0.content.0.type",
  ],
  [
    user({ type: "tool_result", tool_use_id: "t", content: [{ type: "tool_reference", tool_name: "f" }] }),
    "messages.0.content.0.content.0.type",
  ],
  [assistant({ type: "server_tool_use", id: "t", name: "web_search" }), "messages.0.content.0.type"],
  [assistant({ type: "web_search_tool_result", tool_use_id: "t" }), "messages.0.content.0.type"],
  [assistant({ type: "tool_result", tool_use_id: "t" }), "messages.0.content.0.type"],
  [assistant({ type: "thinking" }), "messages.0.content.0.thinking"],
  [assistant({ type: "tool_use", name: "f", input: {} }), "messages.0.content.0.id"],
  [assistant({ type: "tool_use", id: "t", name: "", input: {} }), "messages.0.content.0.name"],
  [assistant({ type: "tool_use", id: "t", name: "f", input: "{}" }), "messages.0.content.0.input"],
  [assistant(...many(129).map((i) => ({ type: "tool_use", id: `${i}`, name: "f" }))), "messages.0.content"],
  [{ system: 5 }, "system"],
  [{ system: [{ type: "image" }] }, "system.0.type"],
  [{ temperature: 2.1 }, "temperature"],
  [{ temperature: "1" }, "temperature"],
  [{ top_p: 0 }, "top_p"],
  [{ top_k: -2 }, "top_k"],
  [{ stop_sequences: "a" }, "stop_sequences"],
  [{ stop_sequences: [""] }, "stop_sequences.0"],
  [{ stop_sequences: many(5).map(String) }, "stop_sequences"],
  [{ stream: "yes" }, "stream"],
  [{ metadata: "x" }, "metadata"],
  [{ tools: {} }, "tools"],
  [{ tools: many(129) }, "tools"],
  [{ tools: [{ ...tool, description: "x".repeat(600_000) }] }, "tools"],
  [{ tools: [{ ...tool, name: "" }] }, "tools.0.name"],
  [{ tools: [{ ...tool, input_schema: [] }] }, "tools.0.input_schema"],
  [{ tools: [{ name: "f" }] }, "tools.0.input_schema"],
  [{ tools: [{ type: "web_search_20250305", name: "web_search" }] }, "tools.0.type"],
  [{ tools: [{ type: "bash_20250124", name: "bash" }] }, "tools.0.type"],
  [{ tool_choice: { type: "any" } }, "tool_choice"],
  [{ tools: [tool], tool_choice: "auto" }, "tool_choice"],
  [{ tools: [tool], tool_choice: { type: "required" } }, "tool_choice.type"],
  [{ tools: [tool], tool_choice: { type: "tool" } }, "tool_choice.name"],
  [{ tools: [tool], tool_choice: { type: "tool", name: "g" } }, "tool_choice.name"],
  [{ thinking: true }, "thinking"],
  [{ thinking: { type: "on" } }, "thinking.type"],
  [{ thinking: { type: "enabled" } }, "thinking.budget_tokens"],
  [{ thinking: { type: "enabled", budget_tokens: 0 } }, "thinking.budget_tokens"],
  [{ thinking: { type: "adaptive", display: "all" } }, "thinking.display"],
  [{ output_config: { effort: "huge" } }, "output_config.effort"],
  [{ output_config: { format: { type: "text" } } }, "output_config.format.type"],
  [{ output_config: { format: { type: "json_schema" } } }, "output_config.format.schema"],
  [{ chat_template_kwargs: { tokenize: true } }, "chat_template_kwargs.tokenize"],
  [{ chat_template_kwargs: [] }, "chat_template_kwargs"],
  [{ kv_transfer_params: { remote_host: "x" } }, "kv_transfer_params"],
  [{ mcp_servers: [{ url: "http://x" }] }, "mcp_servers"],
  [{ container: "c" }, "container"],
];

test("what is wrong is refused and named", () => {
  for (const [body, param] of REFUSED) assert.equal(refusal(body), param, JSON.stringify(body).slice(0, 200));
});
