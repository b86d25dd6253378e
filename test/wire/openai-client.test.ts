/**
 * The official openai client against the routes, over a real socket.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import OpenAI, { APIError, AuthenticationError, BadRequestError, InternalServerError, NotFoundError } from "openai";
import { Fault } from "#core/fault.ts";
import { createHttp, type Http } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { routes, type Services } from "#routes/index.ts";
import { type Fixture, fixture, says } from "#serving/_fixture.ts";
import type { Script } from "#serving/_scripted-backend.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ChatCompletionReply, CompletionReply } from "#wire/openai/replies.ts";

const KEY = "test-key";

interface Server {
  readonly http: Http;
  readonly client: OpenAI;
  readonly url: string;
  readonly setting: Fixture;
}

async function serve(script: Script): Promise<Server> {
  const setting = fixture(script);
  const http = await createHttp<Services>({
    routes,
    services: servicesOf(setting),
    dialect: openai,
    gate: gateOf({ [KEY]: principalOf({ id: "k", tenant: "t", role: "admin" }) }),
  });
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  assert.ok("port" in address);
  const url = `http://127.0.0.1:${address.port}`;
  return { http, url, setting, client: new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 }) };
}

/** Serves for one test. */
async function withServer(script: Script, use: (server: Server) => Promise<void>): Promise<void> {
  const server = await serve(script);
  try {
    await use(server);
  } finally {
    await server.http.close(0);
  }
  assert.equal(server.setting.backend.open, 0, "a sequence was left behind");
}

const messages = [{ role: "user" as const, content: "hi" }];
const tools = [
  {
    type: "function" as const,
    function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
  },
];
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>';

describe("chat", () => {
  let server: Server;
  before(async () => {
    server = await serve({ reply: says("<think>hm</think>Grüße 😀") });
  });
  after(() => server.http.close(0));

  test("a whole answer, as its schema says", async () => {
    const answer = await server.client.chat.completions.create({ model: "demo", messages });
    ChatCompletionReply.parse(answer);
    assert.equal(answer.choices[0]?.message.content, "Grüße 😀");
    assert.partialDeepStrictEqual(answer.choices[0]?.message, { reasoning: "hm" });
    assert.equal(answer.choices[0]?.finish_reason, "stop");
    assert.match(answer.id, /^chatcmpl-/);
    assert.ok((answer.usage?.completion_tokens ?? 0) > 0);
  });

  test("a stream, its usage last", async () => {
    const stream = await server.client.chat.completions.create({
      model: "demo",
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let usage: unknown;
    const finishes: unknown[] = [];
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
      if (chunk.choices.length === 0) usage = chunk.usage;
    }
    assert.equal(text, "Grüße 😀");
    assert.deepEqual(finishes, ["stop"]);
    assert.ok(usage);
  });

  test("the stream helper of the client accepts every event", async () => {
    const runner = server.client.chat.completions.stream({ model: "demo", messages, n: 2 });
    const final = await runner.finalChatCompletion();
    assert.deepEqual(
      final.choices.map((choice) => choice.message.content),
      ["Grüße 😀", "Grüße 😀"],
    );
  });

  test("logprobs", async () => {
    const answer = await server.client.chat.completions.create({
      model: "demo",
      messages,
      logprobs: true,
      top_logprobs: 2,
    });
    const content = answer.choices[0]?.logprobs?.content ?? [];
    assert.equal(content.length, answer.usage?.completion_tokens);
    assert.equal(content[0]?.top_logprobs.length, 2);
  });

  test("errors come as the client's classes, naming the field", async () => {
    const { client, url } = server;
    await assert.rejects(client.chat.completions.create({ model: "demo", messages, temperature: 9 }), (error) => {
      assert.ok(error instanceof BadRequestError);
      assert.equal(error.param, "temperature");
      return true;
    });
    await assert.rejects(client.chat.completions.create({ model: "nope", messages }), NotFoundError);
    await assert.rejects(
      client.chat.completions.create({ model: "demo", messages, ...{ watermarking: true } }),
      (error) => {
        assert.ok(error instanceof InternalServerError);
        assert.deepEqual([error.status, error.param], [501, "watermarking"]);
        return true;
      },
    );
    await assert.rejects(
      client.chat.completions.create({ model: "demo", messages, stream: true, max_tokens: 100_000 }),
      BadRequestError,
    );
    const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
    await assert.rejects(stranger.chat.completions.create({ model: "demo", messages }), AuthenticationError);
    await assert.rejects(stranger.models.list(), AuthenticationError);
  });

  test("models, without a path", async () => {
    const list = await server.client.models.list();
    assert.deepEqual(
      list.data.map((model) => model.id),
      ["demo", "demo-alias"],
    );
  });

  test("completions: whole, streamed, several prompts", async () => {
    const answer = await server.client.completions.create({ model: "demo", prompt: ["a", "b"], max_tokens: 4 });
    CompletionReply.parse(answer);
    assert.deepEqual(
      answer.choices.map((choice) => [choice.index, choice.text, choice.finish_reason]),
      [
        [0, "<thi", "length"],
        [1, "<thi", "length"],
      ],
    );
    const stream = await server.client.completions.create({
      model: "demo",
      prompt: "a",
      max_tokens: 4,
      stream: true,
      echo: true,
    });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0]?.text ?? "";
    assert.equal(text, "a<thi");
  });

  test("the small routes", async () => {
    const get = (path: string, init: RequestInit = {}) => fetch(`${server.url}${path}`, init);
    const key = { headers: { authorization: `Bearer ${KEY}` } };
    const post = (body: unknown) => ({
      method: "POST",
      body: JSON.stringify(body),
      headers: { ...key.headers, "content-type": "application/json" },
    });
    assert.equal((await get("/health")).status, 200);
    assert.equal((await get("/ping", { method: "POST" })).status, 200);
    assert.equal((await get("/version")).status, 401);
    assert.deepEqual(await (await get("/version", key)).json(), { version: "0.0.0-test" });
    assert.deepEqual(await (await get("/load", key)).json(), { server_load: 0 });
    const tokenized = (await (await get("/tokenize", post({ prompt: "ab", return_token_strs: true }))).json()) as {
      tokens: number[];
    };
    assert.deepEqual(tokenized.tokens.slice(-2), [97, 98]);
    assert.deepEqual(await (await get("/detokenize", post({ tokens: [97, 98] }))).json(), { prompt: "ab" });
    assert.equal((await get("/detokenize", post({ tokens: [9999] }))).status, 400);
    assert.match(
      await (await get("/metrics", key)).text(),
      /vllm:request_success_total\{model_name="demo",engine="0",finished_reason="stop"\} [1-9]/,
    );
  });
});

test("tool calls, whole and streamed", async () => {
  await withServer({ reply: says(CALL) }, async ({ client }) => {
    const answer = await client.chat.completions.create({ model: "demo", messages, tools });
    const call = answer.choices[0]?.message.tool_calls?.[0];
    assert.ok(call?.type === "function");
    assert.deepEqual([call.function.name, JSON.parse(call.function.arguments)], ["weather", { city: "Köln" }]);
    assert.deepEqual([answer.choices[0]?.finish_reason, answer.choices[0]?.message.content], ["tool_calls", null]);

    const final = await client.chat.completions.stream({ model: "demo", messages, tools }).finalChatCompletion();
    const streamed = final.choices[0]?.message.tool_calls?.[0];
    assert.ok(streamed !== undefined && "function" in streamed);
    assert.deepEqual([streamed.function.name, JSON.parse(streamed.function.arguments)], ["weather", { city: "Köln" }]);
    assert.equal(final.choices[0]?.finish_reason, "tool_calls");
  });
});

test("a failure in the middle of a stream is an error of the client", async () => {
  await withServer({ reply: says("a long answer"), failAfter: 4 }, async ({ client }) => {
    const stream = await client.chat.completions.create({ model: "demo", messages, stream: true });
    let text = "";
    await assert.rejects(async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
    }, APIError);
    assert.equal(text, "a lo");
    await assert.rejects(
      client.chat.completions.create({ model: "demo", messages }),
      (error) => error instanceof InternalServerError && error.status === 503,
    );
  });
});

test("a full queue is a 503 before the first byte, streamed or not", async () => {
  await withServer({ refuse: new Fault("overloaded", "The waiting queue is full.") }, async ({ client }) => {
    for (const stream of [false, true]) {
      await assert.rejects(
        client.chat.completions.create({ model: "demo", messages, stream }),
        (error) => error instanceof InternalServerError && error.status === 503,
      );
    }
  });
});

test("a client that leaves frees its sequences", async () => {
  await withServer(
    { reply: says("again and again "), endless: true, model: { contextLength: 1 << 20 } },
    async ({ client, setting, http }) => {
      const stream = await client.chat.completions.create({
        model: "demo",
        messages,
        stream: true,
        ignore_eos: true,
        n: 3,
      } as OpenAI.ChatCompletionCreateParamsStreaming);
      for await (const _ of stream) break;
      for (let wait = 0; wait < 1000 && (setting.backend.open > 0 || http.counters().calls > 0); wait++)
        await new Promise((resolve) => setTimeout(resolve, 5));
      assert.deepEqual([setting.backend.open, http.counters().calls], [0, 0]);
    },
  );
});

test("health follows the backend", async () => {
  await withServer({}, async ({ url, setting }) => {
    for (const state of ["starting", "stalled", "restarting", "stopped"] as const) {
      setting.backend.current = state;
      const reply = await fetch(`${url}/health`);
      assert.deepEqual([reply.status, await reply.text()], [503, ""]);
    }
    setting.backend.current = "ready";
    assert.equal((await fetch(`${url}/health`)).status, 200);
  });
});
