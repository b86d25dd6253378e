import assert from "node:assert/strict";
import { test } from "node:test";
import { type ReasoningFamily, TOOL_FAMILIES, type ToolFamily } from "#core/parser-families.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { fakeTokenizer } from "#prompt/_fake-tokenizer.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { accepts } from "../../test/fixtures/grammar-walk.ts";
import { collect, fixture, grant, says, summary } from "./_fixture.ts";
import { chat } from "./chat.ts";

const schema = { type: "object", properties: { a: { type: "integer" } }, required: ["a"] };
const tools = ["f", "g"].map((name) => ({ type: "function", function: { name, parameters: schema } }));
const HERMES = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>';

/** A call of f in the family's own form. */
const CALL: Readonly<Record<ToolFamily, string>> = {
  hermes: HERMES,
  llama3_json: '{"name": "f", "parameters": {"a": 1}}',
  llama4_pythonic: "[f(a=1)]",
  pythonic: "[f(a=1)]",
  mistral: '[TOOL_CALLS]f[ARGS]{"a": 1}',
  qwen3_coder: "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
  deepseek_v3:
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
  deepseek_v31:
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
  granite: '[{"name": "f", "arguments": {"a": 1}}]',
  kimi_k2:
    '<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_calls_section_end|>',
  glm45: "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
  openai: '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
};

interface Setting {
  readonly family: ToolFamily;
  readonly reply: string;
  readonly specials?: readonly string[];
  readonly body?: object;
  readonly reasoning?: ReasoningFamily;
}

async function ask({ family, reply, specials = [], body = {}, reasoning }: Setting) {
  const tokenizer = fakeTokenizer({
    specials: ["<s>", "<|im_start|>", "<|im_end|>", ...specials],
    bos: "<s>",
    eos: "<|im_end|>",
  });
  const setting = fixture(
    { reply: says(reply), model: { contextLength: 4096, vocabularySize: tokenizer.vocabularySize } },
    { tokenizer, parsers: { reasoning, tools: family, holdCalls: true } },
  );
  const request = ChatBody.parse({ messages: [{ role: "user", content: "hi" }], tools, ...body });
  const { call } = decodeChat(request, DEFAULT_CAPS);
  const events = await collect(chat(grant("inference"), setting.serving, call, new AbortController().signal));
  const grammar = setting.backend.requests[0]?.sampling.constraint?.grammar;
  return { ...summary(events), lets: (text: string | Uint8Array) => grammar !== undefined && accepts(grammar, text) };
}

for (const family of TOOL_FAMILIES) {
  const reply = CALL[family];
  const calls = [{ name: "f", arguments: { a: 1 } }];
  const read = ({ calls: found }: Awaited<ReturnType<typeof ask>>): unknown =>
    found.map((call) => ({ name: call.name, arguments: JSON.parse(call.arguments) as unknown }));

  test(`${family}: a call of the model's own choice is read in its form`, async () => {
    const auto = await ask({ family, reply });
    assert.deepEqual([read(auto), auto.text, auto.finish], [calls, "", "tool_calls"]);
    const none = await ask({ family, reply, body: { tool_choice: "none" } });
    assert.deepEqual([none.calls, none.text, none.finish], [[], reply, "stop"]);
  });

  test(`${family}: forced calls are held to a form that is read again`, async () => {
    // The token that ends a turn is no part of what is held.
    const form = reply.replace("<|call|>", "");
    const required = await ask({ family, reply: form, body: { tool_choice: "required" } });
    assert.deepEqual([read(required), required.text, required.finish], [calls, "", "tool_calls"]);
    assert.ok(required.lets(form) && !required.lets("hi"));
    const named = await ask({
      family,
      reply: form,
      body: { tool_choice: { type: "function", function: { name: "f" } } },
    });
    assert.deepEqual([read(named), named.finish], [calls, "stop"]);
    assert.ok(named.lets(form) && !named.lets(form.replace(/\bf\b(?!u)/, "g")));
  });
}

test("a model that may make one call at a time shows its first", async () => {
  const reply = '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{"a": 2}';
  const both = await ask({ family: "mistral", reply });
  assert.equal(both.calls.length, 2);
  const one = await ask({ family: "mistral", reply, body: { parallel_tool_calls: false } });
  assert.deepEqual(
    one.calls.map(({ name }) => name),
    ["f"],
  );
});

/** As a grammar reads it: these texts are control tokens, numbered from behind the fixture's own. */
function withTokens(text: string, marks: readonly string[]): Uint8Array {
  const parts = text.split(new RegExp(`(${marks.map((mark) => mark.replace(/[|[\]]/g, "\\$&")).join("|")})`));
  const bytes = parts.map((part) => {
    const at = marks.indexOf(part);
    return at < 0 ? Buffer.from(part) : Buffer.of(0xff, 0, 1, 3 + at);
  });
  return Buffer.concat(bytes);
}

test("calls that a control token marks are not held; forced ones are held to the token, and not to its spelling", async () => {
  const cases: readonly (readonly [ToolFamily, marks: readonly string[]])[] = [
    ["kimi_k2", ["<|tool_calls_section_begin|>"]],
    ["mistral", ["[TOOL_CALLS]", "[ARGS]"]],
    ["openai", ["<|channel|>", "<|constrain|>", "<|message|>"]],
    ["deepseek_v3", ["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"]],
    ["hermes", ["<tool_call>", "</tool_call>"]],
    ["qwen3_coder", ["<tool_call>"]],
    ["glm45", ["<tool_call>"]],
  ];
  for (const [family, specials] of cases) {
    const reply = CALL[family].replace("<|call|>", "");
    const free = await ask({ family, reply, specials });
    assert.ok(!free.lets("hi"), family);
    const forced = await ask({ family, reply, specials, body: { tool_choice: "required" } });
    assert.ok(forced.lets(withTokens(reply, specials)), family);
    assert.ok(!forced.lets(reply) && !forced.lets(HERMES), family);
    assert.equal(forced.calls.length, 1, family);
  }
});

test("a Mistral model without [ARGS] writes its calls as a list", async () => {
  const specials = ["[TOOL_CALLS]"];
  const reply = '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"a": 2}}]';
  const forced = await ask({ family: "mistral", reply, specials, body: { tool_choice: "required" } });
  assert.ok(forced.lets(withTokens(reply, specials)));
  assert.deepEqual(
    forced.calls.map(({ name }) => name),
    ["f", "g"],
  );
});

test("calls of the model's own choice are held where text tells them", async () => {
  const held = await ask({ family: "kimi_k2", reply: CALL.kimi_k2 });
  assert.ok(
    held.lets("hi") && held.lets(CALL.kimi_k2) && !held.lets(CALL.kimi_k2.replace("functions.f", "functions.x")),
  );
});

test("gpt-oss thinks, speaks and calls in one answer, and its thoughts stay apart whatever is asked of its calls", async () => {
  const said =
    `<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>Look. <|end|>` +
    `<|start|>assistant${CALL.openai}`;
  const setting: Setting = { family: "openai", reasoning: "openai_gptoss", reply: said };
  const auto = await ask(setting);
  assert.deepEqual([auto.reasoning, auto.text, auto.finish], ["Hm.", "Look. ", "tool_calls"]);
  assert.deepEqual([auto.calls[0]?.name, auto.calls[0]?.arguments], ["f", '{"a": 1}']);
  const none = await ask({ ...setting, body: { tool_choice: "none" } });
  assert.deepEqual([none.reasoning, none.text, none.calls], ["Hm.", 'Look. {"a": 1}', []]);
  const required = await ask({ ...setting, reply: CALL.openai, body: { tool_choice: "required" } });
  assert.deepEqual([required.calls.length, required.text, required.reasoning], [1, "", ""]);
});

test("a thought that speaks of a call makes none", async () => {
  const reply = `<think>I could write ${HERMES}</think>\n\nNo.`;
  const answer = await ask({ family: "hermes", reasoning: "qwen3", reply });
  assert.deepEqual([answer.calls, answer.text, answer.finish], [[], "No.", "stop"]);
});

test("names that a form cannot write are held in Hermes' form", async () => {
  const odd = [{ type: "function", function: { name: "f x", parameters: schema } }];
  const reply = HERMES.replace('"f"', '"f x"');
  const forced = await ask({ family: "deepseek_v31", reply, body: { tools: odd, tool_choice: "required" } });
  assert.deepEqual([forced.calls[0]?.name, forced.lets(reply)], ["f x", true]);
});

test("tags of arguments that are control tokens are not written: forced calls are in Hermes' form", async () => {
  const body = { tool_choice: "required" };
  const forced = await ask({ family: "glm45", reply: HERMES, specials: ["<arg_key>"], body });
  assert.deepEqual([forced.calls[0]?.name, forced.lets(HERMES)], ["f", true]);
});

test("tools with arguments that a form cannot write are held in Hermes' form", async () => {
  const two = { type: "object", properties: { a: { type: ["string", "integer"] } }, required: ["a"] };
  const odd = [{ type: "function", function: { name: "f", parameters: two } }];
  for (const family of ["qwen3_coder", "glm45"] as const) {
    const forced = await ask({ family, reply: HERMES, body: { tools: odd, tool_choice: "required" } });
    assert.deepEqual([forced.calls[0]?.name, forced.lets(HERMES)], ["f", true]);
  }
});
