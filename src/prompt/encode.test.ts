import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ChatMessage, ToolDefinition } from "#core/chat.ts";
import { fakeTokenizer, show } from "./_fake-tokenizer.ts";
import { type ChatEncodeInput, encodeChat, encodePrompt } from "./encode.ts";
import { compileTemplate } from "./template.ts";

const SPECIALS = [
  "<s>",
  "<|im_start|>",
  "<|im_end|>",
  "<|user|>",
  "<|",
  "!<think>",
  "!</think>",
  "!<tool_call>",
  "<|im_end|>x",
];

const CHATML = compileTemplate(`{{- bos_token }}{%- for tool in tools or [] %}{{ tool | tojson(indent=2) }}{% endfor %}
{%- for d in documents or [] %}{{ d.text }}{% endfor %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role }}{{ message.name }}{{ '\\n' }}
{%- if message.content is string and '</think>' in message.content %}{% set content = message.content.split('</think>')[-1].lstrip('\\n') %}
{%- else %}{% set content = message.content %}{% endif %}{{ content | trim }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}{{ call.function.arguments | tojson }}{% for k, v in call.function.arguments.items() %}{{ k ~ v }}{% endfor %}{% endfor %}
{{- '<|im_end|>' }}{% endfor %}{% if mood is defined %}{{ mood | upper }}{{ mood }}{% endif %}`);

function input(messages: readonly ChatMessage[], more: Partial<ChatEncodeInput> = {}): ChatEncodeInput {
  return {
    messages,
    tools: [],
    addGenerationPrompt: false,
    continueFinalMessage: false,
    addSpecialTokens: false,
    kwargs: {},
    ...more,
  };
}

const tokenizer = fakeTokenizer({ specials: SPECIALS, bos: "<s>", eos: "<|im_end|>", addsBos: true });

function specialsOf(tokens: Int32Array): string[] {
  return [...tokens].filter((token) => token >= 256).map((token) => tokenizer.specials[token - 256]?.text ?? "?");
}

test("the template's own literals become tokens and the rest is text", async () => {
  const { tokens, text } = await encodeChat(tokenizer, CHATML, input([{ role: "user", content: "hi" }]));
  assert.equal(text, "<s><|im_start|>user\nhi<|im_end|>");
  assert.equal(show(tokenizer, tokens), "«<s>»«<|im_start|>»user\nhi«<|im_end|>»");
});

test("Wall: no client string makes a special token, wherever it stands", async () => {
  for (const literal of SPECIALS.map((spelling) => spelling.replace(/^!/, ""))) {
    const raw = {
      type: "function",
      function: { name: literal, description: literal, parameters: { [literal]: literal } },
    };
    const tools: ToolDefinition[] = [{ name: literal, raw }];
    const messages: ChatMessage[] = [
      { role: literal, content: literal, name: literal },
      { role: "user", content: `a${literal}b${literal}${literal}`, name: literal },
      {
        role: "assistant",
        content: literal,
        reasoning: literal,
        toolCalls: [{ id: literal, name: literal, arguments: JSON.stringify({ [literal]: literal }) }],
      },
      { role: "tool", content: [{ type: "text", text: literal }], toolCallId: literal },
    ];
    const { tokens } = await encodeChat(
      tokenizer,
      CHATML,
      input(messages, { tools, documents: [{ text: literal }], kwargs: { mood: literal } }),
    );
    assert.deepEqual(
      specialsOf(tokens),
      ["<s>", ...Array(4).fill(["<|im_start|>", "<|im_end|>"]).flat().toSpliced(5, 0, "<tool_call>")],
      literal,
    );
  }
});

test("Wall: literals that come together across borders stay text", async () => {
  const split = compileTemplate(
    "{% for m in messages %}{{ m.name }}{{ m.content }}|><|im_{{ m.content }}{{ '<|im_' ~ m.name ~ '|>' }}{% endfor %}",
  );
  for (const [name, content] of [
    ["<|im_", "end|>"],
    ["end", "start|>"],
    ["<", "|im_start"],
    ["<|im_end", ""],
    ["<|im_end|", ">"],
  ] as const) {
    const { text, tokens } = await encodeChat(tokenizer, split, input([{ role: "user", name, content }]));
    assert.deepEqual(
      specialsOf(tokens).filter((special) => special !== "<|"),
      [],
      text,
    );
  }
});

test("a template may spell a literal in pieces, also with a well-known role", async () => {
  const pieces = compileTemplate(
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ '<|im_' }}{% if true %}end|{% endif %}>{{ m.content }}{% endfor %}",
  );
  const { tokens } = await encodeChat(
    tokenizer,
    pieces,
    input([
      { role: "user", content: "x" },
      { role: "im_end", content: "y" },
    ]),
  );
  assert.equal(show(tokenizer, tokens), "«<|user|>»«<|im_end|>»x«<|»im_end|>«<|im_end|>»y");
});

test("trims, macros, set blocks, joins and loops keep the template's literals", async () => {
  const source = `{% macro turn(role, content) %}{{ '<|im_start|>' ~ role }} {{ content }}{{ '<|im_end|>' }}  {% endmacro %}
{%- for m in messages %}{% set body %}  {{ turn(m.role, m.content) }}{% endset %}{{ body | trim }}{{ body.strip() }}{{ ['<|im_end|>', m.content] | join('<s>') }}{% endfor %}`;
  const { tokens } = await encodeChat(tokenizer, compileTemplate(source), input([{ role: "user", content: "<s>" }]));
  assert.equal(
    show(tokenizer, tokens),
    "«<|im_start|>»user <s>«<|im_end|>»«<|im_start|>»user <s>«<|im_end|>»«<|im_end|>»«<s>»<s>",
  );
});

test("the longest literal wins", async () => {
  const { tokens } = await encodeChat(
    tokenizer,
    compileTemplate("<|im_end|>x<|im_end|>y"),
    input([{ role: "user", content: "" }]),
  );
  assert.equal(show(tokenizer, tokens), "«<|im_end|>x»«<|im_end|>»y");
});

test("bos is added once, and only on demand", async () => {
  const bare = compileTemplate("{{ messages[0].content }}");
  const messages: ChatMessage[] = [{ role: "user", content: "<s>" }];
  const encoded = async (template: typeof bare, addSpecialTokens: boolean): Promise<string> =>
    show(tokenizer, (await encodeChat(tokenizer, template, input(messages, { addSpecialTokens }))).tokens);
  assert.equal(await encoded(bare, false), "<s>");
  assert.equal(await encoded(bare, true), "«<s>»<s>");
  assert.equal(await encoded(CHATML, true), "«<s>»«<|im_start|>»user\n<s>«<|im_end|>»");
});

test("a completion's prompt is text", async () => {
  assert.equal(show(tokenizer, await encodePrompt(tokenizer, "<|im_end|>", true)), "«<s>»<|im_end|>");
  assert.equal(show(tokenizer, await encodePrompt(tokenizer, "a", false)), "a");
});

test("Wall: NUL, private-use characters and a megabyte of partial literals are text, in linear time", async () => {
  for (const content of [
    "\0<|im_end|>\0",
    "\uE000\uF8FF<|im_end|>\u{F0000}\u{10FFFD}",
    "<|im_".repeat(200_000),
    "<".repeat(1_000_000),
  ]) {
    const { tokens, text } = await encodeChat(tokenizer, CHATML, input([{ role: "user", content }]));
    assert.deepEqual(specialsOf(tokens), ["<s>", "<|im_start|>", "<|im_end|>"]);
    assert.ok(text.includes(content));
  }
});

test("Wall: any client strings give exactly the template's tokens, and the text is what it would be without the wall", async () => {
  const fragment = fc.constantFrom(
    ...SPECIALS.map((s) => s.replace(/^!/, "")),
    "<",
    "|",
    "im_",
    "end",
    "start",
    ">",
    "|>",
    "<|im",
    " ",
    "\n",
    '"',
    "\\",
    "é",
    "\u{1F600}",
  );
  const text = fc.array(fragment, { maxLength: 8 }).map((parts) => parts.join(""));
  const message = fc.record({ role: fc.oneof(fc.constantFrom("user", "system"), text), content: text, name: text });
  const source =
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.name }}\n{{ m.content | trim }}{{ m | tojson }}{{ m.content[1:3] ~ m.name.upper() }}<|im_end|>{% endfor %}";
  const template = compileTemplate(source);
  await fc.assert(
    fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 3 }), async (messages) => {
      const { tokens, text: rendered } = await encodeChat(tokenizer, template, input(messages));
      assert.deepEqual(
        specialsOf(tokens),
        messages.flatMap(() => ["<|im_start|>", "<|im_end|>"]),
      );
      assert.equal(show(tokenizer, tokens).replaceAll(/[«»]/g, ""), rendered);
    }),
    { numRuns: 200 },
  );
});
