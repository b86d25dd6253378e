/**
 * Messages over the real server and the demo model, with Anthropic's official client: the same answers as over the
 * other protocol, tools and thoughts there and back, limits in Anthropic's headers.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import Anthropic, { BadRequestError, NotFoundError, RateLimitError } from "@anthropic-ai/sdk";
import { MessageReply } from "#wire/anthropic/replies.ts";
import { makeKey, startServer, TEST_KEY, type TestServer } from "../harness.ts";

const stateDir = join(mkdtempSync(join(tmpdir(), "castellan-messages-")), "state");
let limited: string;
let server: TestServer;
let client: Anthropic;
const clientOf = (apiKey: string) => new Anthropic({ baseURL: server.url, apiKey, authToken: null, maxRetries: 0 });

before(async () => {
  limited = await makeKey(stateDir, "user", {
    name: "limited",
    limits: { requestsPerDay: 2, promptTokensPerDay: 500 },
  });
  server = await startServer({ stateDir, args: ["--enable-prompt-tokens-details"] });
  client = clientOf(TEST_KEY);
});
after(() => server.stop());

const model = "castellan-demo";
const question = { model, max_tokens: 160, temperature: 0 };
const about = [{ role: "user" as const, content: "What is Castellan?" }];
const weather: Anthropic.Tool = {
  name: "get_weather",
  description: "Get the weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

function textOf({ content }: Anthropic.Message): string {
  return content.map((block) => (block.type === "text" ? block.text : "")).join("");
}

const inputTokens = ({ usage }: Anthropic.Message): number => usage.input_tokens + (usage.cache_read_input_tokens ?? 0);

async function post<T>(path: string, body: object): Promise<T> {
  const reply = await server.fetch(path, { method: "POST", body: JSON.stringify(body) });
  assert.equal(reply.status, 200);
  return (await reply.json()) as T;
}

test("the answer is the one of the chat route, whole and streamed", async () => {
  const chat = await post<{ choices: { message: { content: string } }[]; usage: Record<string, number> }>(
    "/v1/chat/completions",
    { ...question, messages: about },
  );
  const whole = await client.messages.create({ ...question, messages: about });
  MessageReply.parse(whole);
  const streamed = await client.messages.stream({ ...question, messages: about }).finalMessage();
  for (const message of [whole, streamed]) {
    assert.equal(textOf(message), chat.choices[0]?.message.content);
    assert.equal(inputTokens(message), chat.usage["prompt_tokens"]);
    assert.equal(message.usage.output_tokens, chat.usage["completion_tokens"]);
    assert.equal(message.stop_reason, "end_turn");
  }
});

test("of a prompt that comes again, most is told as read from the cache", async () => {
  const messages = [{ role: "user" as const, content: "word ".repeat(300) }];
  const ask = () => client.messages.stream({ ...question, max_tokens: 1, messages }).finalMessage();
  const [first, again] = [await ask(), await ask()];
  assert.equal(first.usage.cache_read_input_tokens, 0);
  assert.ok((again.usage.cache_read_input_tokens ?? 0) > again.usage.input_tokens);
  assert.equal(inputTokens(again), inputTokens(first));
});

test("count_tokens: as /tokenize counts, and as the message is billed", async () => {
  const prompt = { model, messages: about, system: "Be short.", tools: [weather] };
  const { input_tokens } = await client.messages.countTokens(prompt);
  const { name, description, input_schema: parameters } = weather;
  const { count } = await post<{ count: number }>("/tokenize", {
    messages: [{ role: "system", content: "Be short." }, ...about],
    tools: [{ type: "function", function: { name, description, parameters } }],
  });
  assert.equal(input_tokens, count);
  assert.equal(input_tokens, inputTokens(await client.messages.create({ ...prompt, max_tokens: 1 })));
});

test("a tool is called, answered, and its answer told", async () => {
  const messages: Anthropic.MessageParam[] = [{ role: "user", content: "What is the weather in Lisbon?" }];
  const first = await client.messages.stream({ ...question, messages, tools: [weather] }).finalMessage();
  const call = first.content.find((block) => block.type === "tool_use");
  assert.deepEqual([call?.name, call?.input, first.stop_reason], ["get_weather", { city: "Lisbon" }, "tool_use"]);
  messages.push({ role: "assistant", content: first.content });
  messages.push({
    role: "user",
    content: [{ type: "tool_result", tool_use_id: call?.id ?? "", content: [{ type: "text", text: "sunny" }] }],
  });
  const second = await client.messages.create({ ...question, messages, tools: [weather] });
  assert.match(textOf(second), /sunny/);
});

test("tool_choice forces a call, by any name or one", async () => {
  for (const tool_choice of [{ type: "any" as const }, { type: "tool" as const, name: "get_weather" }]) {
    const message = await client.messages.create({ ...question, messages: about, tools: [weather], tool_choice });
    assert.partialDeepStrictEqual(message, { content: [{ type: "tool_use", name: "get_weather" }] });
    assert.equal(message.stop_reason, "tool_use");
  }
});

test("thinking: a block of its own, within its budget, and off when it is off", async () => {
  const messages = about;
  const body = { ...question, messages };
  const thinking = { type: "enabled" as const, budget_tokens: 1024 };
  const message = await client.messages.create({ ...body, thinking });
  assert.deepEqual(
    message.content.map(({ type }) => type),
    ["thinking", "text"],
  );
  const short = await client.messages.create({ ...body, thinking: { ...thinking, budget_tokens: 3 } });
  const [thought] = short.content;
  assert.ok(thought?.type === "thinking" && message.content[0]?.type === "thinking");
  assert.ok(thought.thinking.length < message.content[0].thinking.length);
  const off = await client.messages.create({ ...body, thinking: { type: "disabled" } });
  assert.deepEqual(
    off.content.map(({ type }) => type),
    ["text"],
  );
  // A thought goes back as it came.
  const again: Anthropic.MessageParam[] = [...messages, { role: "assistant", content: message.content }, ...messages];
  assert.equal((await client.messages.create({ ...body, messages: again, thinking })).type, "message");
});

test("output_config.format: the text follows the schema", async () => {
  const schema = {
    type: "object",
    properties: { name: { enum: ["castellan", "other"] } },
    required: ["name"],
    additionalProperties: false,
  };
  const format = { type: "json_schema" as const, schema };
  const message = await client.messages.create({ ...question, messages: about, output_config: { format } });
  assert.deepEqual(Object.keys(JSON.parse(textOf(message)) as object), ["name"]);
});

test("stop sequences", async () => {
  const whole = textOf(await client.messages.create({ ...question, messages: about }));
  const [first = "", second = ""] = whole.split(" ");
  const stop_sequences = [` ${second}`];
  const stopped = await client.messages.stream({ ...question, messages: about, stop_sequences }).finalMessage();
  assert.deepEqual(
    [textOf(stopped), stopped.stop_reason, stopped.stop_sequence],
    [first, "stop_sequence", ` ${second}`],
  );
});

test("what cannot be is the client's own class of error", async () => {
  await assert.rejects(client.messages.create({ ...question, model: "nope", messages: about }), NotFoundError);
  const long = [{ role: "user" as const, content: "word ".repeat(5000) }];
  await assert.rejects(client.messages.create({ ...question, messages: long }), BadRequestError);
  const pattern = { ...weather, input_schema: { type: "object" as const, properties: { a: { pattern: "(" } } } };
  await assert.rejects(
    client.messages.create({ ...question, messages: about, tools: [pattern], tool_choice: { type: "any" } }),
    BadRequestError,
  );
});

test("limits come in Anthropic's headers, and RateLimitError with Retry-After beyond", async () => {
  const ask = () =>
    clientOf(limited)
      .messages.create({ ...question, max_tokens: 1, messages: about })
      .withResponse();
  const { headers } = (await ask()).response;
  assert.equal(headers.get("anthropic-ratelimit-requests-limit"), "2");
  assert.equal(headers.get("anthropic-ratelimit-requests-remaining"), "1");
  assert.ok(Date.parse(headers.get("anthropic-ratelimit-requests-reset") ?? "") > Date.now());
  assert.equal(headers.get("anthropic-ratelimit-input-tokens-limit"), "500");
  await ask();
  await assert.rejects(ask(), (error) => {
    assert.ok(error instanceof RateLimitError);
    assert.equal(error.type, "rate_limit_error");
    assert.ok(Number(error.headers.get("retry-after")) >= 1);
    assert.equal(error.headers.get("anthropic-ratelimit-requests-remaining"), "0");
    return true;
  });
});
