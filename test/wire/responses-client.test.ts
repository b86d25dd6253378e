/**
 * The official openai client against the responses routes, over a real socket and a scripted model.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, {
  APIError,
  APIUserAbortError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
} from "openai";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { type Meter, UNMETERED, type Work } from "#core/metering.ts";
import type { Principal } from "#core/principal.ts";
import { createHttp, type Http } from "#http/server.ts";
import type { Admission, Gate } from "#policy/gate.ts";
import { principalOf } from "#policy/roles.ts";
import { routes, type Services } from "#routes/index.ts";
import { type Fixture, fixture, says } from "#serving/_fixture.ts";
import type { Script } from "#serving/_scripted-backend.ts";
import { MemoryResponses } from "#test/fixtures/responses.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ResponseReply } from "#wire/responses/replies.ts";

interface Server {
  readonly http: Http;
  readonly url: string;
  readonly setting: Fixture;
  readonly store: MemoryResponses;
  readonly client: OpenAI;
  as(name: string): OpenAI;
}

const PRINCIPALS: Readonly<Record<string, Principal>> = {
  one: principalOf({ id: "k1", tenant: "a", role: "user" }),
  two: principalOf({ id: "k2", tenant: "a", role: "user" }),
  other: principalOf({ id: "k3", tenant: "b", role: "user" }),
  trainer: principalOf({ id: "k4", tenant: "a", role: "trainer" }),
  narrow: principalOf({ id: "k6", tenant: "a", role: "user", reach: { models: ["other"] } }),
  aliased: principalOf({ id: "k7", tenant: "a", role: "user", reach: { models: ["demo-alias"] } }),
  capped: principalOf({ id: "k5", tenant: "c", role: "user", caps: { messages: 4, bodyBytes: 4096 } }),
};

/** Serves for one test. @param keeps whether the server stores responses */
async function withServer(
  script: Script,
  use: (server: Server) => Promise<void>,
  keeps = true,
  meter: Meter = UNMETERED,
  record?: Admission["record"],
): Promise<void> {
  const setting = fixture(script);
  const store = new MemoryResponses();
  const services = servicesOf(setting, keeps ? store : null);
  const http = await createHttp<Services>({ routes, services, dialect: openai, gate: metered(meter, record) });
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  assert.ok("port" in address);
  const url = `http://127.0.0.1:${address.port}`;
  const as = (apiKey: string): OpenAI => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
  try {
    await use({ http, url, setting, store, client: as("one"), as });
  } finally {
    await http.close(0);
    await services.responses.stored.close(0);
  }
  assert.equal(setting.backend.open, 0, "a sequence was left behind");
}

/** What a call reserves goes to this meter. */
function metered(meter: Meter, record?: Admission["record"]): Gate {
  const gate = gateOf(PRINCIPALS);
  const own = record === undefined ? {} : { record };
  return { identify: gate.identify, open: (call) => ({ ...gate.open(call), meter, ...own }) };
}

const input = "hi";
const ENDLESS: Script = { reply: says("again "), endless: true, endOfTurn: -1, model: { contextLength: 1 << 20 } };
const tools: OpenAI.Responses.FunctionTool[] = [
  {
    type: "function",
    name: "weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    strict: true,
  },
];
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>';

/** What the model was last shown. */
function prompt({ setting }: Server): string {
  return Buffer.from([...(setting.backend.requests.at(-1)?.prompt ?? [])].filter((token) => token < 256)).toString();
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (await holds()) return;
    await new Promise((done) => setTimeout(done, 5));
  }
  assert.fail("it did not come to be");
}

test("a whole answer, as its schema says", async () => {
  await withServer({ reply: says("<think>hm</think>Grüße 😀") }, async ({ client }) => {
    const answer = await client.responses.create({ model: "demo", input, metadata: { a: "b" }, user: "u" });
    ResponseReply.parse(answer);
    assert.equal(answer.output_text, "Grüße 😀");
    assert.deepEqual([answer.status, answer.error, answer.metadata], ["completed", null, { a: "b" }]);
    const [thought, message] = answer.output;
    assert.ok(thought?.type === "reasoning" && thought.content?.[0]?.text === "hm");
    assert.ok(message?.type === "message" && message.status === "completed");
    assert.ok((answer.usage?.output_tokens_details.reasoning_tokens ?? 0) > 0);
    assert.equal((answer.usage?.input_tokens ?? 0) + (answer.usage?.output_tokens ?? 0), answer.usage?.total_tokens);
  });
});

test("a stream: the client's own accumulator takes every event and ends with the same response", async () => {
  await withServer({ reply: says("<think>hm</think>Grüße 😀") }, async ({ client }) => {
    const types: string[] = [];
    const runner = client.responses.stream({ model: "demo", input });
    runner.on("event", (event) => void types.push(event.type));
    const final = await runner.finalResponse();
    assert.equal(final.output_text, "Grüße 😀");
    assert.deepEqual(
      [types[0], types[1], types.at(-1)],
      ["response.created", "response.in_progress", "response.completed"],
    );
    const stream = await client.responses.create({ model: "demo", input, stream: true });
    let sequence = 0;
    let text = "";
    for await (const event of stream) {
      assert.equal(event.sequence_number, sequence++);
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    assert.equal(text, "Grüße 😀");
  });
});

test("function tools: a call, its output, an answer, with and without the store", async () => {
  await withServer({ reply: says(CALL) }, async (server) => {
    const { client } = server;
    const first = await client.responses.create({ model: "demo", input, tools });
    const [call] = first.output;
    assert.ok(call?.type === "function_call");
    assert.deepEqual([call.name, JSON.parse(call.arguments)], ["weather", { city: "Köln" }]);
    const output = { type: "function_call_output" as const, call_id: call.call_id, output: "RAINSTORM" };
    await client.responses.create({ model: "demo", input: [output], tools, previous_response_id: first.id });
    assert.match(prompt(server), /RAINSTORM/);
    await client.responses.create({
      model: "demo",
      input: [{ role: "user", content: input }, call, { ...output, output: "SUNSHINE" }],
      tools,
      store: false,
    });
    assert.match(prompt(server), /SUNSHINE/);
    const runner = client.responses.stream({ model: "demo", input, tools, tool_choice: "required" });
    const [streamed] = (await runner.finalResponse()).output;
    assert.ok(streamed?.type === "function_call" && streamed.name === "weather");
  });
});

test("structured text and logprobs", async () => {
  await withServer({ reply: says('{"a":1}') }, async ({ client, setting }) => {
    const answer = await client.responses.parse({
      model: "demo",
      input,
      include: ["message.output_text.logprobs"],
      top_logprobs: 2,
      text: {
        format: {
          type: "json_schema",
          name: "s",
          schema: { type: "object", properties: { a: { type: "integer" } } },
          strict: true,
        },
      },
    });
    assert.deepEqual(answer.output_parsed, { a: 1 });
    assert.ok(setting.backend.requests.at(-1)?.sampling.constraint !== undefined);
    const [message] = answer.output;
    assert.ok(message?.type === "message" && message.content[0]?.type === "output_text");
    assert.equal(message.content[0].logprobs?.[0]?.top_logprobs.length, 2);
  });
});

test("the budget cuts off: incomplete", async () => {
  await withServer({ reply: says("a long answer") }, async ({ client }) => {
    const answer = await client.responses.create({ model: "demo", input, max_output_tokens: 4 });
    assert.deepEqual([answer.status, answer.incomplete_details], ["incomplete", { reason: "max_output_tokens" }]);
    assert.equal(answer.output_text, "a lo");
  });
});

test("a failure: its status before the first event, an event after it", async () => {
  await withServer({ reply: says("a long answer"), failAfter: 4 }, async ({ client, store }) => {
    await assert.rejects(client.responses.create({ model: "demo", input }), InternalServerError);
    const stream = await client.responses.create({ model: "demo", input, stream: true });
    const types: string[] = [];
    for await (const event of stream) {
      types.push(event.type);
      if (event.type === "response.failed") assert.equal(event.response.error?.code, "server_error");
    }
    assert.equal(types.at(-1), "response.failed");
    assert.equal(store.rows.size, 0);
    await assert.rejects(
      client.responses.create({ model: "demo", input: "x".repeat(3000), stream: true }),
      (error) => error instanceof BadRequestError && error.param === "input",
    );
    await assert.rejects(
      client.responses.create({ model: "demo", input, max_output_tokens: 100_000 }),
      (error) => error instanceof BadRequestError && error.param === "max_output_tokens",
    );
  });
});

test("a stored response: read, continued and deleted by its tenant; it does not exist for another", async () => {
  await withServer({ reply: says("Blue.") }, async (server) => {
    const { client, as } = server;
    const first = await client.responses.create({ model: "demo", input: "My colour?", instructions: "SHORT" });
    assert.match(prompt(server), /SHORT/);
    assert.equal((await as("two").responses.retrieve(first.id)).output_text, "Blue.");
    const second = await as("two").responses.create({ model: "demo", input: "Again?", previous_response_id: first.id });
    assert.match(prompt(server), /My colour\?.*Blue\..*Again\?/s);
    assert.doesNotMatch(prompt(server), /SHORT/);
    assert.equal(second.previous_response_id, first.id);
    const stranger = as("other").responses;
    const missing = (error: unknown): boolean => {
      assert.ok(error instanceof NotFoundError);
      const { message, type } = error.error as { message: string; type: string };
      return message.endsWith("not found.") && type === "invalid_request_error";
    };
    await assert.rejects(stranger.retrieve(first.id), missing);
    await assert.rejects(stranger.retrieve(first.id, { stream: true }), missing);
    await assert.rejects(stranger.cancel(first.id), missing);
    await assert.rejects(stranger.delete(first.id), missing);
    await assert.rejects(stranger.create({ model: "demo", input, previous_response_id: first.id }), missing);
    await assert.rejects(client.responses.cancel(first.id), BadRequestError);
    await assert.rejects(client.responses.retrieve(first.id, { stream: true }), BadRequestError);
    await client.responses.delete(first.id);
    await assert.rejects(client.responses.retrieve(first.id), missing);
    await assert.rejects(client.responses.delete(first.id), missing);
  });
});

test("the input of a stored response, as items: in pages, either way, of earlier turns too", async () => {
  await withServer({ reply: says(`<think>hm</think>${CALL}`) }, async ({ client, as, url, store }) => {
    const first = await client.responses.create({ model: "demo", input: "Weather?", instructions: "SHORT", tools });
    const call = first.output.find(({ type }) => type === "function_call");
    assert.ok(call?.type === "function_call");
    const output = [{ type: "input_text" as const, text: "RAIN" }];
    const second = await client.responses.create({
      model: "demo",
      tools,
      previous_response_id: first.id,
      input: [
        { type: "function_call_output", call_id: call.call_id, output },
        {
          role: "user",
          content: [
            { type: "input_text", text: "And" },
            { type: "input_text", text: "then?" },
          ],
        },
      ],
    });
    const name = second.id.replace("resp_", "");
    const status = "completed";
    const expected = [
      {
        id: `msg_${name}_in_0`,
        content: [{ text: "Weather?", type: "input_text" }],
        role: "user",
        status,
        type: "message",
      },
      {
        id: `rs_${name}_in_1`,
        summary: [],
        type: "reasoning",
        content: [{ text: "hm", type: "reasoning_text" }],
        encrypted_content: null,
        status,
      },
      {
        arguments: call.arguments,
        call_id: call.call_id,
        name: "weather",
        type: "function_call",
        id: `fc_${name}_in_2`,
        status,
      },
      {
        id: `fc_${name}_in_3`,
        call_id: call.call_id,
        output: [{ text: "RAIN", type: "input_text" }],
        status,
        type: "function_call_output",
      },
      {
        id: `msg_${name}_in_4`,
        content: [
          { text: "And", type: "input_text" },
          { text: "then?", type: "input_text" },
        ],
        role: "user",
        status,
        type: "message",
      },
    ];
    const all = async (query: OpenAI.Responses.InputItemListParams): Promise<unknown[]> => {
      const items: unknown[] = [];
      for await (const item of client.responses.inputItems.list(second.id, query)) items.push(item);
      return items;
    };
    assert.deepEqual(await all({ order: "asc" }), expected);
    assert.deepEqual(await all({ order: "asc", limit: 2 }), expected);
    assert.deepEqual(await all({}), [...expected].reverse());
    assert.deepEqual(await all({ limit: 3, after: `fc_${name}_in_3` }), expected.slice(0, 3).reverse());
    const page = await fetch(`${url}/v1/responses/${second.id}/input_items?limit=2&order=asc`, {
      headers: { authorization: "Bearer one" },
    });
    assert.deepEqual(await page.json(), {
      object: "list",
      data: expected.slice(0, 2),
      first_id: `msg_${name}_in_0`,
      last_id: `rs_${name}_in_1`,
      has_more: true,
    });
    await assert.rejects(as("other").responses.inputItems.list(second.id), NotFoundError);
    await assert.rejects(as("narrow").responses.inputItems.list(second.id), NotFoundError);
    await assert.rejects(as("trainer").responses.inputItems.list(second.id), PermissionDeniedError);
    for (const query of ["after=msg_other", "limit=0", "limit=-1", "limit=1e3", "order=up", "order=asc&order=asc"]) {
      const reply = await fetch(`${url}/v1/responses/${second.id}/input_items?${query}`, {
        headers: { authorization: "Bearer one" },
      });
      assert.equal(reply.status, 400, query);
      await reply.arrayBuffer();
    }
    const row = store.rows.get(second.id);
    assert.ok(row);
    for (const kept of [
      { ...row.kept, status: "incomplete" as const },
      { ...row.kept, status: "cancelled" as const, messages: row.kept.messages.slice(0, -1) },
    ]) {
      row.kept = kept;
      assert.deepEqual(await all({ order: "asc" }), expected, kept.status);
    }
  });
});

test("a response of a model that a key may not use does not exist for it", async () => {
  await withServer(ENDLESS, async ({ client, as, store }) => {
    const { id } = await client.responses.create({ model: "demo", input, background: true });
    const { responses } = as("narrow");
    await assert.rejects(responses.retrieve(id), NotFoundError);
    await assert.rejects(responses.retrieve(id, { stream: true }), NotFoundError);
    await assert.rejects(responses.cancel(id), NotFoundError);
    await assert.rejects(responses.delete(id), NotFoundError);
    assert.equal(store.rows.size, 1);
    assert.equal((await as("aliased").responses.retrieve(id)).id, id, "another name of the same model");
    await as("aliased").responses.cancel(id);
    await until(() => store.rows.get(id)?.working === false);
  });
  await withServer({ reply: says("x") }, async ({ client, as, store, setting }) => {
    const { id } = await client.responses.create({ model: "demo", input });
    const { serving, model } = setting;
    serving.models.add({ ...model, names: ["other"] });
    const go = { model: "other", input, previous_response_id: id };
    await assert.rejects(
      as("narrow").responses.create(go),
      (error) => error instanceof NotFoundError && error.param === "previous_response_id",
    );
    assert.equal(setting.backend.requests.length, 1);
    assert.equal((await client.responses.create(go)).previous_response_id, id);
    // A model that is served no longer: its name has to be one of both lists.
    const row = store.rows.get(id);
    assert.ok(row);
    row.kept = { ...row.kept, body: { ...row.kept.body, model: "gone" } };
    assert.equal((await client.responses.retrieve(id)).model, "gone");
    await assert.rejects(as("narrow").responses.retrieve(id), NotFoundError);
  });
});

test("store: false keeps nothing; a server without a store says so", async () => {
  await withServer({ reply: says("x") }, async ({ client, store }) => {
    const answer = await client.responses.create({ model: "demo", input, store: false });
    assert.equal((answer as { store?: boolean }).store, false);
    assert.equal(store.rows.size, 0);
    await assert.rejects(client.responses.retrieve(answer.id), NotFoundError);
    await assert.rejects(
      client.responses.create({ model: "demo", input, store: false, background: true }),
      (error) => error instanceof BadRequestError && error.param === "background",
    );
  });
  await withServer(
    { reply: says("x") },
    async ({ client }) => {
      const answer = await client.responses.create({ model: "demo", input, store: true });
      assert.equal((answer as { store?: boolean }).store, false);
      await assert.rejects(client.responses.retrieve(answer.id), NotFoundError);
      await assert.rejects(client.responses.create({ model: "demo", input, background: true }), BadRequestError);
    },
    false,
  );
});

test("without the scope nothing is stored, and asking for it is 403", async () => {
  await withServer({ reply: says("x") }, async ({ as, store }) => {
    const { responses } = as("trainer");
    assert.equal((await responses.create({ model: "demo", input })).output_text, "x");
    assert.equal(store.rows.size, 0);
    for (const more of [{ store: true }, { background: true }, { previous_response_id: "resp_1" }])
      await assert.rejects(responses.create({ model: "demo", input, ...more }), PermissionDeniedError);
    await assert.rejects(responses.retrieve("resp_1"), PermissionDeniedError);
  });
});

test("background: polled until it is there, then streamed again from anywhere", async () => {
  await withServer({ reply: says("<think>hm</think>Later.") }, async ({ client }) => {
    const begun = await client.responses.create({ model: "demo", input, background: true });
    assert.deepEqual([begun.status, begun.output], ["queued", []]);
    await until(async () => (await client.responses.retrieve(begun.id)).status === "completed");
    assert.equal((await client.responses.retrieve(begun.id)).output_text, "Later.");
    const all: { sequence_number: number; type: string }[] = [];
    for await (const event of await client.responses.retrieve(begun.id, { stream: true })) all.push(event);
    assert.deepEqual([all[0]?.type, all.at(-1)?.type], ["response.created", "response.completed"]);
    const rest: unknown[] = [];
    for await (const event of await client.responses.retrieve(begun.id, { stream: true, starting_after: 3 }))
      rest.push(event);
    assert.deepEqual(rest, all.slice(4));
    assert.equal((await client.responses.stream({ response_id: begun.id }).finalResponse()).output_text, "Later.");
  });
});

test("background: its stream is left and taken up again, and is the same", async () => {
  await withServer({ reply: says("a rather long answer to follow") }, async ({ client }) => {
    const stream = await client.responses.create({ model: "demo", input, background: true, stream: true });
    const seen: unknown[] = [];
    let id = "";
    for await (const event of stream) {
      seen.push(event);
      if (event.type === "response.created") id = event.response.id;
      if (event.sequence_number === 5) break;
    }
    for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: 5 }))
      seen.push(event);
    const all: unknown[] = [];
    for await (const event of await client.responses.retrieve(id, { stream: true })) all.push(event);
    assert.deepEqual(seen, all);
  });
});

test("background: cancelled, its sequence ends and it stays cancelled", async () => {
  await withServer(ENDLESS, async ({ client, setting, store }) => {
    const { id } = await client.responses.create({ model: "demo", input, background: true });
    await until(async () => (await client.responses.retrieve(id)).status === "in_progress");
    const followed: string[] = [];
    const following = (async () => {
      for await (const event of await client.responses.retrieve(id, { stream: true })) followed.push(event.type);
    })();
    assert.equal((await client.responses.cancel(id)).status, "cancelled");
    await until(() => setting.backend.open === 0);
    await following;
    assert.equal(followed.at(-1), "response.incomplete");
    await until(() => store.rows.get(id)?.working === false);
    assert.equal((await client.responses.retrieve(id)).status, "cancelled");
    await assert.rejects(client.responses.cancel(id), BadRequestError);
    await assert.rejects(
      client.responses.create({ model: "demo", input, previous_response_id: id }),
      (error) => error instanceof BadRequestError && error.param === "previous_response_id",
    );
  });
});

test("background: what other servers end, and what is deleted, ends here", async () => {
  await withServer(ENDLESS, async ({ client, setting, store }) => {
    const ended = await client.responses.create({ model: "demo", input, background: true });
    const deleted = await client.responses.create({ model: "demo", input, background: true });
    await until(() => setting.backend.open === 2);
    store.endElsewhere(ended.id, { code: "server_error", message: "gone" });
    await client.responses.delete(deleted.id);
    await until(() => setting.backend.open === 0);
    assert.deepEqual((await client.responses.retrieve(ended.id)).error, { code: "server_error", message: "gone" });
    await assert.rejects(client.responses.retrieve(deleted.id), NotFoundError);
  });
});

test("background: whose id cannot leave the server is not worked on, and is not kept", async () => {
  for (const stream of [false, true])
    await withServer(ENDLESS, async ({ client, setting, store }) => {
      const asked = Promise.withResolvers<void>();
      const ready = Promise.withResolvers<void>();
      const kept = Promise.withResolvers<void>();
      const begin = store.begin.bind(store);
      store.begin = async (tenant, response) => {
        asked.resolve();
        await ready.promise;
        await begin(tenant, response);
        kept.resolve();
      };
      const leaving = new AbortController();
      const left = client.responses.create(
        { model: "demo", input, background: true, stream },
        { signal: leaving.signal },
      );
      await asked.promise;
      leaving.abort();
      await assert.rejects(left, APIUserAbortError);
      // The server hears of it on another connection's time: what comes after was received after.
      await client.models.list();
      ready.resolve();
      await kept.promise;
      await until(() => store.rows.size === 0 && setting.backend.open === 0);
    });
});

test("background: an answer that may not leave since its record cannot be written leaves nothing behind", async () => {
  for (const stream of [false, true])
    await withServer(
      ENDLESS,
      async ({ client, setting, store }) => {
        await assert.rejects(
          client.responses.create({ model: "demo", input, background: true, stream }),
          (error) => error instanceof APIError && error.status === 503,
        );
        await until(() => store.rows.size === 0 && setting.backend.open === 0);
      },
      true,
      UNMETERED,
      () => Promise.reject(new Fault("policy_unavailable", "The record cannot be written.")),
    );
});

test("background runs are limited by tenant and in all, and refused before they are promised", async () => {
  await withServer(ENDLESS, async ({ client, as, store }) => {
    const begin = (from: OpenAI) => from.responses.create({ model: "demo", input, background: true });
    await begin(client);
    await begin(client);
    await assert.rejects(begin(client), (error) => error instanceof APIError && error.status === 429);
    await begin(as("other"));
    assert.equal(store.rows.size, 3);
    await assert.rejects(
      as("other").responses.create({ model: "demo", input: "x".repeat(1 << 22), background: true }),
      BadRequestError,
    );
    assert.equal(store.rows.size, 3);
  });
});

test("a background response fails with a reason: by the engine, and by the server's end", async () => {
  await withServer({ reply: says("a long answer"), failAfter: 4 }, async ({ client }) => {
    const { id } = await client.responses.create({ model: "demo", input, background: true });
    await until(async () => (await client.responses.retrieve(id)).status === "failed");
    const failed = await client.responses.retrieve(id);
    assert.deepEqual(failed.error, { code: "server_error", message: "The engine died." });
    assert.equal(failed.output_text, "a lo");
  });
  let kept: MemoryResponses | undefined;
  await withServer(ENDLESS, async ({ client, store }) => {
    kept = store;
    await client.responses.create({ model: "demo", input, background: true });
  });
  const [row] = kept?.rows.values() ?? [];
  assert.deepEqual(
    [row?.kept.status, row?.kept.body["error"]],
    ["failed", { code: "server_error", message: "The server was shut down." }],
  );
});

test("queries: starting_after goes with stream, and both are what they say", async () => {
  await withServer({ reply: says("x") }, async ({ client, url }) => {
    const { id } = await client.responses.create({ model: "demo", input });
    for (const query of [
      "starting_after=1",
      "stream=1",
      "stream=true&starting_after=-1",
      "stream=true&stream=true",
      "stream=true&starting_after=1e3",
    ]) {
      const reply = await fetch(`${url}/v1/responses/${id}?${query}`, { headers: { authorization: "Bearer one" } });
      assert.equal(reply.status, 400, query);
      await reply.arrayBuffer();
    }
  });
});

test("a background response is reserved before it is promised, and settled when it has ended", async () => {
  const works: Work[] = [];
  const settled: Usage[] = [];
  let room = true;
  const meter: Meter = {
    reserve: (work) => {
      if (!room) throw new Fault("rate_limited", "No tokens are left.");
      works.push(work);
      return { settle: async (used) => void settled.push(used) };
    },
  };
  await withServer(
    { reply: says("x") },
    async ({ client, store }) => {
      const { id } = await client.responses.create({ model: "demo", input, background: true });
      assert.equal(works.length, 1);
      await until(async () => (await client.responses.retrieve(id)).status === "completed");
      assert.ok((settled[0]?.completionTokens ?? 0) > 0);
      room = false;
      await assert.rejects(
        client.responses.create({ model: "demo", input, background: true }),
        (error) => error instanceof APIError && error.status === 429,
      );
      assert.equal(store.rows.size, 1);
    },
    true,
    meter,
  );
});

test("background: what is refused has touched no store, and what cannot be stored is given back", async () => {
  const settled: Usage[] = [];
  let room = false;
  const meter: Meter = {
    reserve: () => {
      if (!room) throw new Fault("rate_limited", "No tokens are left.");
      return { settle: async (used) => void settled.push(used) };
    },
  };
  await withServer(
    ENDLESS,
    async ({ client, store, setting }) => {
      const begin = () => client.responses.create({ model: "demo", input, background: true });
      let begun = 0;
      store.begin = async () => {
        begun++;
        throw new Fault("policy_unavailable", "The database is away.");
      };
      await assert.rejects(begin(), (error) => error instanceof APIError && error.status === 429);
      assert.equal(begun, 0, "it made room in the store that it had no right to");
      room = true;
      await assert.rejects(begin(), (error) => error instanceof APIError && error.status === 503);
      await until(() => settled.length > 0);
      assert.deepEqual(
        settled.map(({ completionTokens }) => completionTokens),
        settled.map(() => 0),
      );
      assert.equal(setting.backend.open, 0);
    },
    true,
    meter,
  );
});

test("a conversation that goes on is held to the caps of one request", async () => {
  const setting: Script = { reply: says("x"), model: { contextLength: 1 << 16 } };
  await withServer(setting, async ({ as, store }) => {
    const client = as("capped");
    const go = (text: string, previous_response_id?: string) =>
      client.responses.create({
        model: "demo",
        input: text,
        truncation: "auto",
        ...(previous_response_id === undefined ? {} : { previous_response_id }),
      });
    const first = await go("a");
    const second = await go("b", first.id);
    const isLong = (error: unknown) =>
      error instanceof BadRequestError && error.param === "previous_response_id" && /together/.test(error.message);
    await assert.rejects(go("c", second.id), isLong);
    const large = await go("y".repeat(3000));
    await assert.rejects(go("z".repeat(3000), large.id), isLong);
    assert.equal(store.rows.size, 3);
  });
});

test("a continued turn has its request's salt, under its tenant's", async () => {
  await withServer({ reply: says("x") }, async ({ client, as, setting }) => {
    const salted = (more: object) =>
      ({ model: "demo", input, cache_salt: "s", ...more }) as OpenAI.Responses.ResponseCreateParamsNonStreaming;
    const first = await client.responses.create(salted({}));
    await client.responses.create(salted({ previous_response_id: first.id }));
    await client.responses.create(salted({ previous_response_id: first.id, background: true }));
    await until(() => setting.backend.requests.length === 3);
    await as("other").responses.create(salted({}));
    assert.deepEqual(
      setting.backend.requests.map(({ cacheSalt }) => cacheSalt),
      ["a\0s", "a\0s", "a\0s", "b\0s"],
    );
  });
});

test("an id that the client chose names nothing", async () => {
  await withServer({ reply: says("x") }, async ({ client, as, store }) => {
    const named = {
      model: "demo",
      input,
      request_id: "resp_mine",
    } as OpenAI.Responses.ResponseCreateParamsNonStreaming;
    const [one, other] = [await client.responses.create(named), await as("other").responses.create(named)];
    assert.notEqual(one.id, other.id);
    assert.deepEqual([...store.rows.keys()], [one.id, other.id]);
    for (const id of [one.id, other.id]) assert.match(id, /^resp_[0-9a-f]{32}$/);
  });
});
