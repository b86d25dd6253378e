/**
 * What people write with the official clients first: their helpers for streams, tools, schemas and pages, and what the
 * clients do by themselves when something fails. Over a real socket and a scripted model.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import OpenAI, { APIError, APIUserAbortError } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { Fault } from "#core/fault.ts";
import { type Meter, UNMETERED } from "#core/metering.ts";
import type { HttpOptions } from "#http/options.ts";
import { createHttp } from "#http/server.ts";
import { plainGate } from "#policy/gate.ts";
import { identifyBy } from "#policy/identify.ts";
import { principalOf } from "#policy/roles.ts";
import { routes, type Services } from "#routes/index.ts";
import { type Fixture, fixture, says } from "#serving/_fixture.ts";
import type { Script } from "#serving/_scripted-backend.ts";
import { servicesOf } from "#test/fixtures/services.ts";
import { byVersion } from "#wire/anthropic/dialect.ts";
import { openai } from "#wire/openai/dialect.ts";

interface Server {
  readonly openai: OpenAI;
  readonly anthropic: Anthropic;
  readonly setting: Fixture;
  /** Requests that the clients have sent. */
  readonly sent: string[];
}

/** Serves for one test; the clients try again as they do when nobody tells them not to. */
async function withServer(
  script: Script,
  use: (server: Server) => Promise<void>,
  meter: Meter = UNMETERED,
  options: Partial<HttpOptions> = {},
): Promise<void> {
  const setting = fixture(script);
  const plain = plainGate(identifyBy({ keys: () => principalOf({ id: "k", tenant: "t", role: "user" }) }));
  const gate = { ...plain, open: (call: Parameters<typeof plain.open>[0]) => ({ ...plain.open(call), meter }) };
  const services = servicesOf(setting);
  const http = await createHttp<Services>({ routes, services, dialect: openai, orBy: byVersion, gate, options });
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  assert.ok("port" in address);
  const url = `http://127.0.0.1:${address.port}`;
  const sent: string[] = [];
  const counting: typeof fetch = (input, init) => {
    sent.push(String(input));
    return fetch(input, init);
  };
  try {
    await use({
      openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: "k", fetch: counting }),
      anthropic: new Anthropic({ baseURL: url, apiKey: "k", authToken: null, fetch: counting }),
      setting,
      sent,
    });
  } finally {
    await http.close(0);
    await services.responses.stored.close(0);
  }
  assert.equal(setting.backend.open, 0, "a sequence was left behind");
}

const messages = [{ role: "user" as const, content: "hi" }];
const ask = { model: "demo", messages };
const Person = z.object({ name: z.string(), age: z.number().int() });
const ADA = { name: "Ada", age: 36 };
const look = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>';

test("schemas of zod: parsed by chat and responses, whole and streamed, and by messages", async () => {
  await withServer({ reply: says(JSON.stringify(ADA)) }, async (server) => {
    const { chat, responses } = server.openai;
    const response_format = zodResponseFormat(Person, "person");
    const whole = await chat.completions.parse({ ...ask, response_format });
    assert.deepEqual(whole.choices[0]?.message.parsed, ADA);
    const streamed = await chat.completions.stream({ ...ask, response_format }).finalChatCompletion();
    assert.deepEqual(streamed.choices[0]?.message.parsed, ADA);
    const asked = { model: "demo", input: "hi", text: { format: zodTextFormat(Person, "person") } };
    assert.deepEqual((await responses.parse(asked)).output_parsed, ADA);
    assert.deepEqual((await responses.stream(asked).finalResponse()).output_parsed, ADA);
    const output_config = { format: zodOutputFormat(Person) };
    const message = await server.anthropic.messages.parse({ ...ask, max_tokens: 100, output_config });
    assert.deepEqual(message.parsed_output, ADA);
    assert.equal(server.setting.backend.requests.filter(({ sampling }) => sampling.constraint !== undefined).length, 5);
  });
});

test("a chat that runs tools: called, answered, and over, whole and streamed", async () => {
  for (const stream of [false, true]) {
    let turns = 0;
    const reply: NonNullable<Script["reply"]> = (...asked) => says(turns++ === 0 ? look : "Blue.")(...asked);
    await withServer({ reply }, async ({ openai }) => {
      const seen: unknown[] = [];
      const tool = {
        type: "function" as const,
        function: {
          name: "look",
          description: "Look there.",
          parameters: { type: "object", properties: { at: { type: "string" } }, required: ["at"] },
          parse: JSON.parse as (text: string) => { at: string },
          function: (args: { at: string }) => {
            seen.push(args);
            return "It is blue.";
          },
        },
      };
      const { completions } = openai.chat;
      const runner = stream
        ? completions.runTools({ ...ask, tools: [tool], stream: true })
        : completions.runTools({ ...ask, tools: [tool] });
      assert.equal(await runner.finalContent(), "Blue.");
      assert.deepEqual(seen, [{ at: "sky" }]);
    });
  }
});

test("streams: text, message and usage at the end; one that is left ends its sequence", async () => {
  await withServer({ reply: says("Grüße 😀") }, async ({ openai, anthropic }) => {
    const runner = openai.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
    assert.equal(await runner.finalContent(), "Grüße 😀");
    assert.ok((await runner.totalUsage()).completion_tokens > 0);
    const message = anthropic.messages.stream({ ...ask, max_tokens: 100 });
    assert.equal(await message.finalText(), "Grüße 😀");
    assert.equal((await message.finalMessage()).stop_reason, "end_turn");
  });
  await withServer(
    { reply: says("again "), endless: true, endOfTurn: -1, model: { contextLength: 1 << 20 } },
    async ({ openai, anthropic, setting }) => {
      const runner = openai.chat.completions.stream(ask);
      runner.once("content", () => runner.abort());
      await assert.rejects(runner.done(), APIUserAbortError);
      const message = anthropic.messages.stream({ ...ask, max_tokens: 100_000 });
      message.once("text", () => message.abort());
      await assert.rejects(message.done(), Anthropic.APIUserAbortError);
      while (setting.backend.open > 0) await new Promise((done) => setTimeout(done, 5));
    },
  );
});

test("either client finds the request's id where the server prints it, and nowhere else", async () => {
  const ids = async ({ openai, anthropic }: Server): Promise<unknown[]> => {
    const answer = await openai.chat.completions.create(ask).withResponse();
    const message = await anthropic.messages.create({ ...ask, max_tokens: 10 }).withResponse();
    return [answer.request_id, answer.response.headers.get("request-id"), message.request_id];
  };
  await withServer({ reply: says("x") }, async (server) => {
    assert.deepEqual(await ids(server), [null, null, null]);
  });
  await withServer(
    { reply: says("x") },
    async (server) => {
      const [own, other, message] = await ids(server);
      assert.match(String(own), /^[0-9a-f]{32}$/);
      assert.match(String(message), /^[0-9a-f]{32}$/);
      assert.equal(other, null);
      assert.notEqual(own, message);
    },
    UNMETERED,
    { requestIdHeader: true },
  );
});

test("pages: models, files and batches are walked by either client", async () => {
  await withServer({}, async ({ openai, anthropic }) => {
    const ids: string[] = [];
    for await (const { id } of openai.models.list()) ids.push(id);
    for await (const { id } of anthropic.models.list()) ids.push(id);
    for await (const { id } of openai.files.list()) ids.push(id);
    for await (const { id } of openai.batches.list()) ids.push(id);
    assert.deepEqual(ids, ["demo", "demo-alias", "demo", "demo-alias"]);
  });
});

/** Fails so often, then lets everything pass. */
function failing(times: number, retryAfterMs: number): Meter {
  let left = times;
  return {
    reserve: () => {
      if (left-- > 0) throw new Fault("rate_limited", "No tokens are left.", { retryAfterMs });
      return { settle: async () => {} };
    },
  };
}

test("what passes soon is tried again by the clients themselves, what does not is not", async () => {
  const both = ({ openai, anthropic }: Server): (() => Promise<unknown>)[] => [
    () => openai.chat.completions.create(ask),
    () => anthropic.messages.create({ ...ask, max_tokens: 10 }),
  ];
  for (const which of [0, 1]) {
    await withServer(
      { reply: says("x") },
      async (server) => {
        await both(server)[which]?.();
        assert.equal(server.sent.length, 2);
      },
      failing(1, 1),
    );
    await withServer(
      { reply: says("x") },
      async (server) => {
        const isLimit = (error: unknown): boolean =>
          (error instanceof APIError || error instanceof Anthropic.APIError) &&
          error.status === 429 &&
          error.headers?.get("retry-after") === "3600";
        await assert.rejects(async () => both(server)[which]?.(), isLimit);
        assert.equal(server.sent.length, 1, "a limit of an hour is not asked about again");
      },
      failing(9, 3_600_000),
    );
  }
  await withServer({ reply: says("x") }, async ({ openai, sent }) => {
    const asked = { model: "demo", input: "hi", context_management: [{ type: "compaction" }] };
    await assert.rejects(openai.responses.create(asked), (error) => error instanceof APIError && error.status === 501);
    assert.equal(sent.length, 1, "what the server does not do is not asked for again");
  });
});
