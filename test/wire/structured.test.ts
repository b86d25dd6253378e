/**
 * Structured output and forced tool choice over the real server and model: valid at any temperature, streamed or not.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import OpenAI from "openai";
import { startServer, TEST_KEY, type TestServer } from "../harness.ts";

const SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 150 },
    tags: { type: "array", items: { enum: ["a", "b", "c"] }, maxItems: 3 },
  },
  required: ["name", "age"],
  additionalProperties: false,
};
const TOOLS = [
  {
    type: "function" as const,
    function: {
      name: "set_timer",
      parameters: {
        type: "object",
        properties: { minutes: { type: "integer", minimum: 1, maximum: 90 } },
        required: ["minutes"],
      },
    },
  },
  { type: "function" as const, function: { name: "stop_all" } },
];
/** Nothing is valid under it. */
const IMPOSSIBLE = { name: "f", parameters: { type: "object", properties: { a: { not: {} } }, required: ["a"] } };

let server: TestServer;
let client: OpenAI;
before(async () => {
  server = await startServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: TEST_KEY, maxRetries: 0 });
});
after(() => server.stop());

const base = {
  model: "castellan-demo",
  messages: [{ role: "user" as const, content: "Tell me about Ann." }],
  max_tokens: 300,
};

test("json_schema: what comes is valid, at any temperature, whole and streamed", async () => {
  const validate = new Ajv2020().compile(SCHEMA);
  const format = { type: "json_schema" as const, json_schema: { name: "person", schema: SCHEMA, strict: true } };
  for (const temperature of [0, 0.7, 1.5, 2]) {
    const answer = await client.chat.completions.create({
      ...base,
      temperature,
      seed: 5,
      n: temperature === 0 ? 1 : 4,
      response_format: format,
    });
    for (const { message, finish_reason } of answer.choices) {
      assert.equal(finish_reason, "stop");
      assert.ok(validate(JSON.parse(message.content ?? "")), message.content ?? "");
    }
  }
  const stream = await client.chat.completions.create({
    ...base,
    temperature: 1,
    seed: 5,
    stream: true,
    response_format: format,
  });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  assert.ok(validate(JSON.parse(text)));
});

test("json_object, regex, choice, grammar, over chat and completions", async () => {
  const chat = async (extra: object): Promise<string> => {
    const answer = await server.fetch("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify({ ...base, temperature: 1, seed: 3, ...extra }),
    });
    const body = (await answer.json()) as { choices: { message: { content: string } }[] };
    assert.equal(answer.status, 200, JSON.stringify(body));
    return body.choices[0]?.message.content ?? "";
  };
  // An object may go on for ever at this temperature: what came of it is the beginning of one.
  assert.match(await chat({ response_format: { type: "json_object" } }), /^\{/);
  assert.match(await chat({ structured_outputs: { regex: "\\d{3}-[a-f]{2}" } }), /^\d{3}-[a-f]{2}$/);
  assert.match(await chat({ structured_outputs: { choice: ["red", "green"] } }), /^(red|green)$/);
  assert.match(await chat({ structured_outputs: { grammar: 'root ::= ("ho" " "?){2,3} "!"' } }), /^(ho ?){2,3}!$/);
  const completion = await server.fetch("/v1/completions", {
    method: "POST",
    body: JSON.stringify({
      prompt: "Hello",
      max_tokens: 20,
      ignore_eos: true,
      structured_outputs: { choice: ["one", "two"] },
    }),
  });
  const { choices } = (await completion.json()) as { choices: { text: string; finish_reason: string }[] };
  assert.match(choices[0]?.text ?? "", /^(one|two)$/);
  assert.equal(choices[0]?.finish_reason, "stop");
});

test("forced tools: required and by name, whole and streamed", async () => {
  const ask = { ...base, temperature: 1, seed: 9, tools: TOOLS };
  const required = await client.chat.completions.create({ ...ask, tool_choice: "required" });
  const [choice] = required.choices;
  assert.equal(choice?.finish_reason, "tool_calls");
  for (const call of choice?.message.tool_calls ?? []) {
    assert.ok(call.type === "function" && ["set_timer", "stop_all"].includes(call.function.name));
    assert.equal(typeof JSON.parse(call.function.arguments), "object");
  }
  assert.ok((choice?.message.tool_calls?.length ?? 0) >= 1);
  const stream = await client.chat.completions.create({
    ...ask,
    stream: true,
    tool_choice: { type: "function", function: { name: "set_timer" } },
  });
  let [name, text] = ["", ""];
  for await (const chunk of stream) {
    const call = chunk.choices[0]?.delta.tool_calls?.[0];
    name += call?.function?.name ?? "";
    text += call?.function?.arguments ?? "";
  }
  assert.equal(name, "set_timer");
  const { minutes } = JSON.parse(text) as { minutes: number };
  assert.ok(Number.isInteger(minutes) && minutes >= 1 && minutes <= 90);
});

test("structural tags: the parts come in order, and what begins like a tag is one, whole and streamed", async () => {
  const validate = new Ajv2020().compile(SCHEMA);
  const tag = (name: string) => ({
    type: "tag",
    begin: `<${name}>`,
    content: { type: "json_schema", json_schema: SCHEMA },
    end: `</${name}>`,
  });
  const format = {
    type: "sequence",
    elements: [
      { type: "const_string", value: "Well: " },
      {
        type: "tags_with_separator",
        tags: [tag("ann"), tag("bob")],
        separator: ", ",
        at_least_one: true,
        stop_after_first: true,
      },
      { type: "regex", pattern: "[!?]" },
    ],
  };
  const read = (text: string): void => {
    const found = /^Well: <(ann|bob)>(.*)<\/\1>[!?]$/s.exec(text);
    assert.ok(found?.[2] !== undefined && validate(JSON.parse(found[2])), text);
  };
  for (const temperature of [0, 1, 2]) {
    const ask = { ...base, temperature, seed: 4, response_format: { type: "structural_tag", format } };
    const answer = await client.chat.completions.create(ask as never);
    read((answer as OpenAI.ChatCompletion).choices[0]?.message.content ?? "");
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...ask, stream: true } as never as typeof base & {
      stream: true;
    }))
      text += chunk.choices[0]?.delta.content ?? "";
    read(text);
  }
  const structures = [{ begin: "<n>", schema: { type: "integer", minimum: 10, maximum: 99 }, end: "</n>" }];
  const triggered = { structures, triggers: ["<n"] };
  let tags = 0;
  for (let seed = 0; seed < 12; seed++) {
    const answer = await client.completions.create({
      model: base.model,
      prompt: "<n>12</n> and <n>34</n> and ",
      max_tokens: 60,
      temperature: 1.5,
      seed,
      ...{ logit_bias: { [await token("<")]: 8 }, structured_outputs: { structural_tag: JSON.stringify(triggered) } },
    });
    const { text, finish_reason: reason } = answer.choices[0] as { text: string; finish_reason: string };
    const [free, ...rest] = text.split(/<n(?=.)/s);
    assert.ok(!free?.includes("<n") || free.endsWith("<n"));
    tags += rest.length;
    // What was cut off by the budget is the beginning of a tag.
    for (const [at, part] of rest.entries())
      if (at < rest.length - 1 || reason === "stop") assert.match(part, /^>[1-9][0-9]<\/n>/);
  }
  assert.ok(tags > 3, `only ${tags} tags`);
});

async function token(text: string): Promise<number> {
  const answer = await server.fetch("/tokenize", {
    method: "POST",
    body: JSON.stringify({ prompt: text, add_special_tokens: false }),
  });
  return ((await answer.json()) as { tokens: [number] }).tokens[0];
}

test("what cannot be followed is refused by name, beside a running stream", async () => {
  for (const [extra, param] of [
    [{ structured_outputs: { regex: "(a)\\1" } }, "structured_outputs"],
    [{ structured_outputs: { regex: "(((a{1000}){1000}){1000})" } }, "structured_outputs"],
    [{ structured_outputs: { json: { $ref: "#/%" } } }, "structured_outputs"],
    [{ structured_outputs: { json: { allOf: [null] } } }, "structured_outputs"],
    [{ structured_outputs: { json: { allOf: [{ required: 5 }, { required: ["a"] }] } } }, "structured_outputs"],
    [{ structured_outputs: { regex: "a", choice: ["b"] } }, "structured_outputs"],
    [{ structured_outputs: {} }, "structured_outputs"],
    [{ structured_outputs: { choice: [] } }, "structured_outputs.choice"],
    [{ structured_outputs: { json: "{" } }, "structured_outputs.json"],
    [{ structured_outputs: { whitespace_pattern: " ", json: {} } }, "structured_outputs.whitespace_pattern"],
    [{ structured_outputs: { grammar: "root ::= root" } }, "structured_outputs"],
    [{ structured_outputs: { structural_tag: "{}" } }, "structured_outputs.structural_tag.format"],
    [
      { structured_outputs: { structural_tag: { structures: [{ begin: "a", end: "b" }], triggers: ["c"] } } },
      "structured_outputs",
    ],
    [{ response_format: { type: "json_schema", json_schema: { schema: { not: {} } } } }, "response_format"],
    [{ response_format: { type: "text" }, structured_outputs: { regex: "(a)\\1" } }, "structured_outputs"],
    [{ tools: [{ type: "function", function: IMPOSSIBLE }], tool_choice: "required" }, "tools"],
    [{ response_format: { type: "json_schema", json_schema: { schema: 5 } } }, "response_format.json_schema.schema"],
    [{ response_format: { type: "yaml" } }, "response_format.type"],
    [{ response_format: { type: "json_object" }, structured_outputs: { choice: ["a"] } }, "structured_outputs"],
    [{ tools: TOOLS, tool_choice: "required", response_format: { type: "json_object" } }, "tool_choice"],
    [{ tools: TOOLS, tool_choice: { type: "function", function: { name: "other" } } }, "tool_choice"],
  ] as const) {
    const answer = await server.fetch("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify({ ...base, ...extra }),
    });
    const body = (await answer.json()) as { error: { param: string } };
    assert.equal(answer.status, 400, JSON.stringify(extra));
    assert.equal(body.error.param, param, JSON.stringify([extra, body]));
  }
});

test("every route names the field that its client wrote", async () => {
  const schema = IMPOSSIBLE.parameters;
  const regex = { regex: "(a)\\1" };
  const messages = [{ role: "user", content: "hi" }];
  const tool = { type: "function", name: "f", parameters: schema };
  for (const [path, body, field] of [
    ["/v1/completions", { prompt: "a", structured_outputs: regex }, "structured_outputs"],
    [
      "/v1/completions",
      { prompt: "a", response_format: { type: "json_schema", json_schema: { schema } } },
      "response_format",
    ],
    ["/v1/responses", { input: "hi", text: { format: { type: "json_schema", name: "f", schema } } }, "text.format"],
    ["/v1/responses", { input: "hi", structured_outputs: regex }, "structured_outputs"],
    ["/v1/responses", { input: "hi", tools: [tool], tool_choice: "required" }, "tools"],
    [
      "/inference/v1/generate",
      { token_ids: [1], sampling_params: { structured_outputs: regex } },
      "sampling_params.structured_outputs",
    ],
    [
      "/v1/messages",
      { messages, max_tokens: 4, output_config: { format: { type: "json_schema", schema } } },
      "output_config.format",
    ],
    [
      "/v1/messages",
      { messages, max_tokens: 4, tools: [{ name: "f", input_schema: schema }], tool_choice: { type: "any" } },
      "tools",
    ],
  ] as const) {
    const answer = await server.fetch(path, { method: "POST", body: JSON.stringify({ model: base.model, ...body }) });
    const { error } = (await answer.json()) as { error: { message: string; param?: string | null } };
    assert.equal(answer.status, 400, JSON.stringify([path, error]));
    assert.ok(error.message.startsWith(`Invalid ${field}: `), error.message);
    // Anthropic's object has no place for it.
    if (path !== "/v1/messages") assert.equal(error.param, field, path);
  }
});

test("disable_any_whitespace: JSON in one line", async () => {
  const structured_outputs = {
    json: { type: "array", items: { type: "integer" }, minItems: 3 },
    disable_any_whitespace: true,
  };
  for (let seed = 0; seed < 5; seed++) {
    const answer = await server.fetch("/v1/completions", {
      method: "POST",
      body: JSON.stringify({ prompt: "Say", temperature: 2, seed, max_tokens: 30, structured_outputs }),
    });
    const { choices } = (await answer.json()) as { choices: { text: string }[] };
    assert.match(choices[0]?.text ?? "", /^\[[-0-9, ]+\]?$/);
  }
});

test("a grammar that shows only while it runs that it is too much fails its call; the engine lives on", async () => {
  const engine = server.descendants();
  for (const pattern of ["(a?){1000}(a?){1000}(a?){1000}", "((0|1|.)*(2|3|.)*){600}", "([acegikmoqsuwy]{1000}){15}b"]) {
    const answer = await server.fetch("/v1/completions", {
      method: "POST",
      body: JSON.stringify({ prompt: "Say", temperature: 1, top_p: 0.9, structured_outputs: { regex: pattern } }),
    });
    const body = (await answer.json()) as { error?: { message: string }; choices?: { text: string }[] };
    if (answer.status === 200) assert.match(body.choices?.[0]?.text ?? "", /^[acegikmoqsuwy]+$/);
    else assert.deepEqual([answer.status, /grammar/.test(body.error?.message ?? "")], [400, true], pattern);
  }
  assert.deepEqual(server.descendants(), engine);
});
