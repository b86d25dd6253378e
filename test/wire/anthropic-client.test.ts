/**
 * The official Anthropic client against the Messages routes, over a real socket.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import Anthropic, {
  APIError,
  AuthenticationError,
  BadRequestError,
  type ClientOptions,
  ContentTooLargeError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
  ServiceUnavailableError,
} from "@anthropic-ai/sdk";
import { Fault } from "#core/fault.ts";
import { createHttp, type Http } from "#http/server.ts";
import { plainGate } from "#policy/gate.ts";
import { identifyBy } from "#policy/identify.ts";
import { principalOf } from "#policy/roles.ts";
import { routes, type Services } from "#routes/index.ts";
import { type Fixture, fixture, says } from "#serving/_fixture.ts";
import type { Script } from "#serving/_scripted-backend.ts";
import { servicesOf } from "#test/fixtures/services.ts";
import { byVersion } from "#wire/anthropic/dialect.ts";
import { CountTokensReply, MessageErrorReply, MessageReply } from "#wire/anthropic/replies.ts";
import { openai } from "#wire/openai/dialect.ts";

const KEY = "test-key";
const PRINCIPALS = {
  [KEY]: principalOf({ id: "k", tenant: "t", role: "admin" }),
  watcher: principalOf({ id: "w", tenant: "t", role: "operator" }),
};

interface Server {
  readonly http: Http;
  readonly client: Anthropic;
  readonly url: string;
  readonly setting: Fixture;
}

async function serve(script: Script, changes: Parameters<typeof fixture>[1] = {}): Promise<Server> {
  const setting = fixture(script, changes);
  const http = await createHttp<Services>({
    routes,
    services: servicesOf(setting),
    dialect: openai,
    orBy: byVersion,
    gate: plainGate(identifyBy({ keys: (key) => new Map(Object.entries(PRINCIPALS)).get(key) })),
  });
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  assert.ok("port" in address);
  const url = `http://127.0.0.1:${address.port}`;
  return { http, url, setting, client: clientOf(url) };
}

function clientOf(baseURL: string, more: ClientOptions = { apiKey: KEY }): Anthropic {
  return new Anthropic({ baseURL, apiKey: null, authToken: null, maxRetries: 0, ...more });
}

/** Serves for one test. */
async function withServer(
  script: Script,
  use: (server: Server) => Promise<void>,
  changes: Parameters<typeof fixture>[1] = {},
): Promise<void> {
  const server = await serve(script, changes);
  try {
    await use(server);
  } finally {
    await server.http.close(0);
  }
  assert.equal(server.setting.backend.open, 0, "a sequence was left behind");
}

const hello = { model: "demo", max_tokens: 200, messages: [{ role: "user" as const, content: "hi" }] };
const weather: Anthropic.Tool = {
  name: "weather",
  input_schema: { type: "object", properties: { city: { type: "string" } } },
};
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>';

describe("messages", () => {
  let server: Server;
  before(async () => {
    server = await serve({ reply: says("<think>hm</think>Grüße 😀") });
  });
  after(() => server.http.close(0));

  test("a whole message, as its schema says", async () => {
    const message = await server.client.messages.create(hello);
    MessageReply.parse(message);
    const [thought, said, more] = message.content;
    assert.ok(thought?.type === "thinking" && said?.type === "text");
    assert.deepEqual([thought.thinking, said.text, more], ["hm", "Grüße 😀", undefined]);
    assert.match(thought.signature, /^[0-9a-f]{32}$/);
    assert.deepEqual([message.role, message.model, message.stop_reason], ["assistant", "demo", "end_turn"]);
    assert.match(message.id, /^msg_/);
    assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 0);
  });

  test("the stream helper makes the same message of the events", async () => {
    const whole = await server.client.messages.create(hello);
    const streamed = await server.client.messages.stream(hello).finalMessage();
    const plain = ({ content, stop_reason, stop_sequence, usage }: Anthropic.Message): unknown => ({
      content: content.map((block) => (block.type === "thinking" ? { ...block, signature: "" } : block)),
      stop_reason,
      stop_sequence,
      usage,
    });
    assert.deepEqual(plain(streamed), plain(whole));
  });

  test("events come in Anthropic's order", async () => {
    const types: string[] = [];
    for await (const event of await server.client.messages.create({ ...hello, stream: true })) types.push(event.type);
    const order = types.filter((type, i) => type !== types[i - 1]);
    assert.deepEqual(order, [
      "message_start",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
      "message_stop",
    ]);
  });

  test("a key in x-api-key or as a bearer token; both at once are neither", async () => {
    const { url } = server;
    for (const more of [{ apiKey: KEY }, { authToken: KEY }])
      assert.equal((await clientOf(url, more).messages.create(hello)).type, "message");
    for (const more of [{ apiKey: "wrong" }, { authToken: "wrong" }]) {
      await assert.rejects(clientOf(url, more).messages.create(hello), (error) => {
        assert.ok(error instanceof AuthenticationError);
        assert.equal(error.type, "authentication_error");
        MessageErrorReply.parse(error.error);
        return true;
      });
    }
    // The client itself refuses to send both, or none.
    const bare = { "content-type": "application/json", "anthropic-version": "2023-06-01" };
    for (const keys of [{}, { "x-api-key": KEY, authorization: `Bearer ${KEY}` }]) {
      const body = JSON.stringify(hello);
      const reply = await fetch(`${url}/v1/messages`, { method: "POST", headers: { ...bare, ...keys }, body });
      assert.equal(reply.status, 401);
      MessageErrorReply.parse(await reply.json());
    }
  });

  test("models: the client's own pages and cards, by either header", async () => {
    const { url, client, setting } = server;
    const names = setting.model.names;
    for (const more of [{ apiKey: KEY }, { authToken: KEY }]) {
      const own = clientOf(url, more);
      const page = await own.models.list();
      assert.deepEqual(
        page.data.map(({ id, type, display_name }) => [id, type, display_name]),
        names.map((name) => [name, "model", name]),
      );
      assert.deepEqual([page.has_more, page.first_id, page.last_id], [false, names[0], names[1]]);
    }
    const card = await client.models.retrieve("demo-alias");
    assert.deepEqual(
      [card.id, card.created_at, card.max_input_tokens],
      ["demo-alias", "1970-01-01T00:00:07.000Z", 512],
    );
    const walked: string[] = [];
    for await (const { id } of client.models.list({ limit: 1 })) walked.push(id);
    assert.deepEqual(walked, names);
    const back = await client.models.list({ limit: 1, before_id: "demo-alias" });
    assert.deepEqual([back.data.map(({ id }) => id), back.has_more], [["demo"], false]);
  });

  test("models: what is wrong comes in the client's classes, and others are answered as before", async () => {
    const { url, client } = server;
    await assert.rejects(client.models.retrieve("nobody"), NotFoundError);
    await assert.rejects(clientOf(url, { apiKey: "wrong" }).models.list(), AuthenticationError);
    for (const query of [
      { limit: 0 },
      { limit: 1001 },
      { after_id: "nobody" },
      { after_id: "demo", before_id: "demo" },
    ])
      await assert.rejects(client.models.list(query), BadRequestError, JSON.stringify(query));
    const ask = async (headers: Record<string, string>, path = "/v1/models"): Promise<[number, unknown]> => {
      const reply = await fetch(`${url}${path}`, { headers });
      return [reply.status, Object.keys((await reply.json()) as object)];
    };
    const authorization = `Bearer ${KEY}`;
    const version = { "anthropic-version": "2023-06-01" };
    // Without a version x-api-key is no credential, so that nobody has two.
    assert.equal((await ask({ "x-api-key": KEY }))[0], 401);
    assert.deepEqual(await ask({ "x-api-key": "of a proxy", authorization }), [200, ["object", "data"]]);
    assert.deepEqual(await ask({ authorization }, "/v1/models?limit=many"), [200, ["object", "data"]]);
    assert.equal((await ask({ ...version, "x-api-key": KEY, authorization }))[0], 401);
    assert.equal((await ask({ ...version, "x-api-key": "other", authorization }))[0], 401);
    assert.equal((await ask({ ...version, authorization: `Basic ${KEY}` }))[0], 401);
    const one = await fetch(`${url}/v1/models/demo`, { headers: { authorization } });
    assert.equal(((await one.json()) as { object: string }).object, "model");
    assert.equal((await ask({ authorization }, "/v1/models/nobody"))[0], 404);
    const posted = await fetch(`${url}/v1/models`, { method: "POST", headers: { ...version, authorization } });
    assert.equal(posted.status, 405);
  });

  test("what the client offers beyond that is not there", async () => {
    const { client } = server;
    const gone: readonly (() => Promise<unknown>)[] = [
      async () => client.messages.batches.list(),
      async () => client.messages.batches.retrieve("msgbatch_1"),
      async () => client.messages.batches.create({ requests: [{ custom_id: "a", params: hello }] }),
    ];
    for (const call of gone) await assert.rejects(call(), NotFoundError);
    const headers = { "x-api-key": KEY };
    assert.equal((await fetch(`${server.url}/v1/messages/batches`, { headers })).status, 401, "no version, no key");
  });

  test("thinking: what the template is told, what the answer shows", async () => {
    const { client } = server;
    const omitted = await client.messages.create({ ...hello, thinking: { type: "adaptive", display: "omitted" } });
    assert.deepEqual(
      omitted.content.map(({ type }) => type),
      ["text"],
    );
    await client.messages.create({ ...hello, thinking: { type: "enabled", budget_tokens: 1024 } });
    assert.equal(server.setting.backend.requests.at(-1)?.sampling.thinking?.tokens, 1024);
  });

  test("count_tokens says what the message will use, tools included, without the engine", async () => {
    const { client, setting } = server;
    const body = { ...hello, system: "be kind", tools: [weather] };
    const { max_tokens: _, ...prompt } = body;
    const asked = setting.backend.requests.length;
    const counted = await client.messages.countTokens(prompt);
    assert.equal(setting.backend.requests.length, asked);
    CountTokensReply.parse(counted);
    assert.equal(counted.input_tokens, (await client.messages.create(body)).usage.input_tokens);
    assert.ok((await client.messages.countTokens({ ...prompt, tools: [] })).input_tokens < counted.input_tokens);
  });

  test("errors come as the client's classes, naming the field", async () => {
    const { client, url } = server;
    const fails = async (
      body: object,
      kind: abstract new (...all: never[]) => APIError,
      type: string,
      names: RegExp,
    ): Promise<void> => {
      await assert.rejects(client.messages.create({ ...hello, ...body }), (error) => {
        assert.ok(error instanceof kind, String(error));
        assert.equal(error.type, type);
        assert.match(error.message, names);
        MessageErrorReply.parse(error.error);
        return true;
      });
    };
    await fails({ temperature: 9 }, BadRequestError, "invalid_request_error", /temperature/);
    await fails({ max_tokens: 2000 }, BadRequestError, "invalid_request_error", /max_tokens/);
    await fails({ max_tokens: 2000, stream: true }, BadRequestError, "invalid_request_error", /max_tokens/);
    await fails(
      { messages: [{ role: "user", content: [{ type: "image", source: { type: "url", url: "http://127.0.0.1/" } }] }] },
      BadRequestError,
      "invalid_request_error",
      /messages\.0\.content\.0\.type is image: this model cannot see images/,
    );
    await fails(
      { tools: [{ type: "web_search_20250305", name: "web_search" }] },
      BadRequestError,
      "invalid_request_error",
      /tools\.0\.type is web_search_20250305/,
    );
    await fails({ model: "nope" }, NotFoundError, "not_found_error", /nope/);
    const large = { system: "x".repeat(9 << 20) };
    await fails(large, ContentTooLargeError, "request_too_large", /./);
    const watcher = clientOf(url, { apiKey: "watcher" });
    await assert.rejects(watcher.messages.create(hello), PermissionDeniedError);
    const { max_tokens: _, ...prompt } = hello;
    await assert.rejects(watcher.messages.countTokens(prompt), PermissionDeniedError);
    await assert.rejects(client.messages.countTokens({ ...prompt, model: "nope" }), NotFoundError);
  });
});

test("a tool's round trip, whole and streamed", async () => {
  const lines = [CALL, "It rains."];
  let turn = 0;
  const reply: NonNullable<Script["reply"]> = (request) => says(lines[turn++ % 2] ?? "")(request);
  await withServer({ reply }, async ({ client, setting }) => {
    for (const ask of [
      (body: typeof hello) => client.messages.create({ ...body, tools: [weather] }),
      (body: typeof hello) => client.messages.stream({ ...body, tools: [weather] }).finalMessage(),
    ]) {
      const first = await ask(hello);
      const [block] = first.content;
      assert.ok(block?.type === "tool_use");
      assert.deepEqual([block.name, block.input, first.stop_reason], ["weather", { city: "Köln" }, "tool_use"]);
      const result = { type: "tool_result" as const, tool_use_id: block.id, content: [{ type: "text", text: "rain" }] };
      const messages = [
        ...hello.messages,
        { role: "assistant", content: first.content },
        { role: "user", content: [result] },
      ] as typeof hello.messages;
      const second = await ask({ ...hello, messages });
      assert.partialDeepStrictEqual(second, {
        stop_reason: "end_turn",
        content: [{ type: "text", text: "It rains." }],
      });
      const prompt = Buffer.from([...(setting.backend.requests.at(-1)?.prompt ?? [])].filter((id) => id < 256));
      assert.match(prompt.toString(), /tool\nrain/);
    }
  });
});

test("stop sequences and budgets end a message as they say", async () => {
  await withServer({ reply: says("one two three") }, async ({ client }) => {
    for (const ask of [
      (body: object) => client.messages.create({ ...hello, ...body }),
      (body: object) => client.messages.stream({ ...hello, ...body }).finalMessage(),
    ]) {
      assert.partialDeepStrictEqual(await ask({ stop_sequences: [" three", " two"] }), {
        stop_reason: "stop_sequence",
        stop_sequence: " two",
        content: [{ type: "text", text: "one" }],
      });
      assert.partialDeepStrictEqual(await ask({ max_tokens: 3 }), {
        stop_reason: "max_tokens",
        stop_sequence: null,
        content: [{ type: "text", text: "one" }],
      });
    }
  });
});

test("thinking is taken where the model has none: there is nothing to bound", async () => {
  await withServer(
    { reply: says("short") },
    async ({ client, setting }) => {
      const message = await client.messages.create({ ...hello, thinking: { type: "enabled", budget_tokens: 1024 } });
      assert.partialDeepStrictEqual(message.content, [{ type: "text", text: "short" }]);
      assert.equal(setting.backend.requests[0]?.sampling.thinking, undefined);
    },
    { parsers: { reasoning: undefined, tools: "hermes", holdCalls: false } },
  );
});

test("nothing of a failure's cause leaves in Anthropic's shape, before or in a stream", async () => {
  const detail = "<_io.BytesIO object at 0x7f3a2c0>, /home/operator/model.gguf";
  const refuse = new Fault("engine_failed", "The engine died.", { detail, cause: new Error(detail) });
  await withServer({ refuse }, async ({ client }) => {
    for (const stream of [false, true]) {
      await assert.rejects(client.messages.create({ ...hello, stream }), (error) => {
        assert.ok(error instanceof ServiceUnavailableError);
        assert.ok(!JSON.stringify([error.error, error.message]).includes("0x7f"));
        assert.ok(!JSON.stringify([error.error, error.message]).includes("/home"));
        return true;
      });
    }
  });
  await withServer({ reply: says("a long answer"), failAfter: 4 }, async ({ client }) => {
    let text = "";
    const stream = await client.messages.create({ ...hello, stream: true });
    await assert.rejects(
      async () => {
        for await (const event of stream)
          if (event.type === "content_block_delta" && event.delta.type === "text_delta") text += event.delta.text;
      },
      (error) => error instanceof APIError && error.type === "api_error",
    );
    assert.equal(text, "a lo");
  });
});

test("what may be tried again is told so", async () => {
  await withServer({ refuse: new Fault("overloaded", "The waiting queue is full.") }, async ({ client }) => {
    await assert.rejects(
      client.messages.create(hello),
      (error) => error instanceof ServiceUnavailableError && error.type === "overloaded_error",
    );
  });
  const refuse = new Fault("rate_limited", "Rate limit reached.", { retryAfterMs: 7000 });
  await withServer({ refuse }, async ({ client }) => {
    await assert.rejects(client.messages.create({ ...hello, stream: true }), (error) => {
      assert.ok(error instanceof RateLimitError);
      assert.deepEqual([error.type, error.headers.get("retry-after")], ["rate_limit_error", "7"]);
      return true;
    });
  });
});

test("a client that leaves frees its sequence", async () => {
  const endless: Script = { reply: says("again and again "), endless: true, model: { contextLength: 1 << 20 } };
  await withServer({ ...endless, endOfTurn: -1 }, async ({ client, setting, http }) => {
    const stream = await client.messages.create({ ...hello, max_tokens: 100_000, stream: true });
    for await (const _ of stream) break;
    for (let wait = 0; wait < 1000 && (setting.backend.open > 0 || http.counters().calls > 0); wait++)
      await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual([setting.backend.open, http.counters().calls], [0, 0]);
  });
});
