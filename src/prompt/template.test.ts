import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChatMessage } from "#core/chat.ts";
import { Fault } from "#core/fault.ts";
import { compileTemplate, modelTemplate, type RenderInput, TemplateSourceError } from "./template.ts";

const CHATML = `{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`;

function input(messages: readonly ChatMessage[], more: Partial<RenderInput> = {}): RenderInput {
  return {
    messages,
    tools: [],
    addGenerationPrompt: true,
    continueFinalMessage: false,
    kwargs: {},
    bosToken: "",
    eosToken: "",
    ...more,
  };
}

const user = (content: ChatMessage["content"]): ChatMessage => ({ role: "user", content });
const assistant = (content: string): ChatMessage => ({ role: "assistant", content });

function fault(work: () => unknown): Fault {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    return error;
  }
  return assert.fail("nothing was thrown");
}

test("renders a conversation, with tools and a generation prompt", () => {
  const template = compileTemplate(CHATML);
  const raw = { type: "function", function: { name: "f", description: "d" } };
  const rendered = template.render(input([user(" hi "), assistant("yo")], { tools: [{ name: "f", raw }] }));
  assert.equal(
    rendered.text,
    '<|im_start|>system\n{"type": "function", "function": {"name": "f", "description": "d"}}\n<|im_end|>\n' +
      "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>assistant\n",
  );
  assert.equal(
    rendered.runs.reduce((sum, length) => sum + length, 0),
    rendered.text.length,
  );
});

test("variables are those that transformers gives", () => {
  const template = compileTemplate(
    "{{ tools is none }} {{ documents is none }} {{ bos_token }} {{ eos_token }} {{ flavour }} {{ strftime_now('%d %b %Y') }} {{ range(3) | join(',') }}",
  );
  const { text } = template.render(
    input([user("x")], { bosToken: "<s>", eosToken: "</s>", kwargs: { flavour: "sweet" }, now: new Date(2026, 10, 3) }),
  );
  assert.equal(text, "true true <s> </s> sweet 03 Nov 2026 0,1,2");
});

test("content is a string or a list of parts, as the template wants it", () => {
  const parts = [
    { type: "text", text: "a" },
    { type: "text", text: "b" },
  ] as const;
  const joined = compileTemplate("{% for m in messages %}[{{ m.content }}]{% endfor %}");
  assert.equal(joined.contentFormat, "string");
  assert.equal(joined.render(input([user(parts), user(null)])).text, "[a\nb][]");
  const sources = [
    "{% for m in messages %}{% for p in m['content'] %}[{{ p.text }}]{% endfor %}{% endfor %}",
    "{% for m in messages %}{% set c = m.content %}{% for p in c %}[{{ p.text }}]{% endfor %}{% endfor %}",
    "{% macro show(c) %}{% for p in c %}[{{ p.text }}]{% endfor %}{% endmacro %}{% for m in messages %}{{ show(m.content) }}{% endfor %}",
  ];
  for (const source of sources) {
    const listed = compileTemplate(source);
    assert.equal(listed.contentFormat, "openai", source);
    assert.equal(listed.render(input([user(parts), user("c"), user(null)])).text, "[a][b][c]");
  }
});

test("tool call arguments are objects in the template, and bad ones are named", () => {
  const template = compileTemplate(
    "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments.city }}{% endfor %}{% endfor %}",
  );
  const call = (text: string): ChatMessage => ({
    role: "assistant",
    content: null,
    toolCalls: [{ id: "1", name: "f", arguments: text }],
  });
  assert.equal(template.render(input([call('{"city":"Oslo"}'), call("")])).text, "Oslo");
  for (const bad of ["{", "[]", "3", '{"a":1,"a":2}']) {
    const error = fault(() => template.render(input([user("x"), call(bad)])));
    assert.equal(error.kind, "invalid_request");
    assert.equal(error.param, "messages.1.tool_calls.0.function.arguments");
  }
});

test("reasoning goes to templates under both names, and is taken out of the client's content", () => {
  const template = compileTemplate(
    "{% for m in messages %}{% if m.reasoning_content %}<think>{{ m.reasoning }}</think>{% endif %}{{ m.content }}{% endfor %}",
  );
  assert.equal(template.render(input([{ ...assistant("b"), reasoning: "a" }])).text, "<think>a</think>b");
  assert.equal(template.render(input([assistant("<think>\na\n</think>\n\nb")])).text, "<think>a</think>b");
  assert.equal(template.render(input([assistant("a</think>b")])).text, "<think>a</think>b");
  assert.equal(template.render(input([user("<think>a</think>b")])).text, "<think>a</think>b");
  const plain = compileTemplate("{% for m in messages %}{{ m.content }}{% endfor %}");
  assert.equal(plain.render(input([assistant("<think>a</think>b")])).text, "<think>a</think>b");
});

test("a final message can be continued", () => {
  const template = compileTemplate(CHATML);
  const go = { addGenerationPrompt: false, continueFinalMessage: true };
  assert.equal(
    template.render(input([user("q"), assistant("so far")], go)).text,
    "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nso far",
  );
  assert.equal(template.render(input([user("q"), assistant(" so far ")], go)).text.endsWith("assistant\nso far"), true);
  const verbatim = compileTemplate("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}");
  assert.equal(verbatim.render(input([assistant("so far ")], go)).text, "assistant:so far ");
  assert.equal(
    fault(() => template.render(input([user("q")], { continueFinalMessage: true }))).param,
    "continue_final_message",
  );
  assert.equal(fault(() => template.render(input([assistant(" ")], go))).param, "messages.0.content");
  const hidden = compileTemplate("nothing");
  assert.equal(fault(() => hidden.render(input([assistant("x")], go))).param, "continue_final_message");
});

test("template arguments may not replace what the server sets", () => {
  const template = compileTemplate("{{ messages[0].content }}");
  for (const key of [
    "chat_template",
    "tokenize",
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "documents",
    "bos_token",
    "eos_token",
    "range",
    "namespace",
    "raise_exception",
  ]) {
    const error = fault(() => template.render(input([user("x")], { kwargs: { [key]: 1 } })));
    assert.equal(error.kind, "invalid_request");
    assert.equal(error.param, `chat_template_kwargs.${key}`);
    assert.ok(error.message.includes(key));
  }
});

test("a refusal reaches the client shortened and without paths", () => {
  const template = compileTemplate("{{ raise_exception(messages[0].content) }}");
  const error = fault(() =>
    template.render(input([user("roles must alternate,\n see /srv/models/x/template.jinja now")])),
  );
  assert.equal(error.message, "The chat template refused the conversation: roles must alternate, see … now");
  assert.ok(fault(() => template.render(input([user("y".repeat(100_000))]))).message.length < 400);
});

test("a model without a template, or with a broken one, answers 400", () => {
  const none = fault(() => modelTemplate(undefined).render(input([user("x")])));
  assert.equal(none.kind, "invalid_request");
  assert.match(none.message, /no chat template/);
  assert.match(fault(() => modelTemplate("{% for %}").render(input([user("x")]))).message, /cannot be used/);
  assert.throws(() => compileTemplate("x".repeat(600 * 1024)), TemplateSourceError);
  assert.throws(() => compileTemplate(`${" ".repeat(100_000)}{% generation %}`), TemplateSourceError);
  assert.throws(() => compileTemplate(`{{ ${"(".repeat(100_000)}`), TemplateSourceError);
});

const BOMBS: Readonly<Record<string, string>> = {
  "a huge range": "{% for i in range(1000000000) %}{{ i }}{% endfor %}",
  "a negative huge range": "{{ range(0, -1000000000, -1) | length }}",
  "nested loops":
    "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
  "loops without output":
    "{% for a in range(100000) %}{% for b in range(100000) %}{% set x = a %}{% endfor %}{% endfor %}",
  "doubling text":
    "{% set ns = namespace(x='0123456789abcdef') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
  "doubling lists":
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x | length }}",
  "a list of itself, printed":
    "{% set ns = namespace(x=[1,2]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
  "a list of itself, as JSON":
    "{% set ns = namespace(x=[1,2]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
  "a list of itself, joined":
    "{% set ns = namespace(x=[1,2]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | join }}",
  "a list of itself, compared":
    "{% set ns = namespace(x=[1,2]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == 'a' }}",
  "a list of itself, added":
    "{% set ns = namespace(x=[1,2]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x + 'a' }}",
  "a map that holds itself": "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns | tojson }}",
  "a wide join": "{{ range(100000) | join('x' * 1) }}{{ range(100000) | join(messages[0].content) }}",
  "a wide indent": "{{ 'a\\nb' | indent(1000000000) }}",
  "a wide JSON indent": "{{ [1] | tojson(indent=1000000000) }}",
  "a wide replace": "{{ messages[0].content | replace('', messages[0].content) }}",
  "a wide method replace": "{{ messages[0].content.replace('a', messages[0].content) }}",
  "endless recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
  "branching recursion":
    "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
  "sorting long strings":
    "{% set ns = namespace(x=[messages[0].content]) %}{% for i in range(16) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x | sort | length }}",
  "slices of long text": "{% for i in range(100000) %}{% set x = messages[0].content[1:] %}{% endfor %}",
  "filters over long lists":
    "{% set r = range(100000) %}{% for i in range(100000) %}{% set x = r | reverse %}{% endfor %}",
  "macros made in a loop": `{% for i in range(100000) %}{% macro f(x) %}${"{{ x }}".repeat(5000)}{% endmacro %}{% endfor %}`,
  "searching for long text":
    "{% for i in range(100000) %}{% set x = (messages[0].content ~ 'b') in messages[0].content %}{% endfor %}",
  "unknown names in a loop":
    "{% for i in range(100000) %}{% for j in range(100000) %}{{ nothing }}{% endfor %}{% endfor %}",
};

for (const [name, source] of Object.entries(BOMBS)) {
  test(`a bomb ends as a 400: ${name}`, () => {
    const error = fault(() => compileTemplate(source).render(input([user("a".repeat(20_000))])));
    assert.equal(error.kind, "invalid_request");
    assert.ok(error.message.length < 400);
  });
}

test("a long ordinary conversation stays within the budget", () => {
  const messages = Array.from({ length: 3000 }, (_, i) => (i % 2 ? assistant("a".repeat(500)) : user("q".repeat(500))));
  const { text } = compileTemplate(CHATML).render(input(messages));
  assert.equal(text.split("<|im_start|>").length, 3002);
});
