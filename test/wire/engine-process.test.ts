/**
 * The routes over a real engine process with the fake kernel: what only two processes can get wrong.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI, { InternalServerError } from "openai";
import type { ModelInfo } from "#core/model.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { startEngine } from "#engine/launcher.ts";
import type { EngineHandle } from "#engine/options.ts";
import { NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import { createHttp, type Http } from "#http/server.ts";
import { plainGate } from "#policy/gate.ts";
import { principalOf } from "#policy/roles.ts";
import { routes, type Services } from "#routes/index.ts";
import { fakeServerOperations } from "#serving/_fake-operations.ts";
import { fixture } from "#serving/_fixture.ts";
import { scratchBatches } from "#test/fixtures/batches.ts";
import { emptyAdministration, responsesOver } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";

/** A batch that holds this byte kills the engine. */
const POISON = 0x07;

const MODEL: ModelInfo = {
  architecture: "fake",
  contextLength: 4096,
  trainedContext: 4096,
  vocabularySize: 259,
  parameters: 0,
  createdAt: 7,
};

let engine: EngineHandle;
let http: Http;
let client: OpenAI;
let url: string;

before(async () => {
  engine = await startEngine({
    model: MODEL,
    kernel: {
      kernel: "fake",
      script: {
        vocabularySize: 259,
        contextPerSlot: 4096,
        endOfTurn: [258],
        poison: { token: POISON, fault: "crash" },
      },
    },
    maxNumSeqs: 8,
    maxNumBatchedTokens: 64,
    contextLength: 4096,
    schedulingPolicy: "fcfs",
    prefixCache: NO_PREFIX_CACHE,
    maxNumQueuedReqs: 64,
    restartAfterMs: 5,
  });
  const { serving, adapters } = fixture({}, { backend: engine });
  const services: Services = {
    serving,
    adapters,
    responses: responsesOver(serving, undefined),
    admin: emptyAdministration(),
    ...scratchBatches(),
    operations: fakeServerOperations({ operations: engine.operations, engines: () => engine.engines() }),
    caps: { ...DEFAULT_CAPS, n: 128 },
    usage: { cachedTokens: false, always: false },
    tokensAsIds: false,
    embedPrefixes: new Map(),
    version: "0.0.0-test",
    openapi: () => "{}",
    load: () => 0,
    metrics: async () => "",
    accepting: () => true,
  };
  const identify = () => principalOf({ id: "k", tenant: "t", role: "admin" });
  http = await createHttp<Services>({ routes, services, dialect: openai, gate: plainGate(identify) });
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  assert.ok("port" in address);
  url = `http://127.0.0.1:${address.port}`;
  client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "k", maxRetries: 0 });
});

after(async () => {
  await http.close(0);
  await engine.close();
});

// The fake kernel draws anything; this keeps it from killing itself.
const request = {
  model: "demo",
  messages: [{ role: "user" as const, content: "hi" }],
  logit_bias: { [POISON]: -100 },
};

/** Bounded wait for a condition. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail("it did not come to be");
}

function idle(): boolean {
  const { requests, sequences, paused } = engine.counters();
  return requests + sequences + paused + http.counters().calls + http.counters().handlers === 0;
}

test("streamed and whole answers agree under a seed, alone and in a crowd", async () => {
  const seeded = { ...request, seed: 5, temperature: 1, max_tokens: 40, ignore_eos: true };
  const alone = (await client.chat.completions.create(seeded)).choices[0]?.message.content;
  const crowd = await Promise.all(
    Array.from({ length: 12 }, async (_, i) => {
      const stream = await client.chat.completions.create({ ...seeded, stream: true, seed: i === 7 ? 5 : 100 + i });
      let text = "";
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
      return text;
    }),
  );
  assert.equal(crowd[7], alone);
  await until(idle);
});

test("n samples are the seeds seed, seed+1, …", async () => {
  const seeded = { ...request, temperature: 1, max_tokens: 12, ignore_eos: true };
  const three = await client.chat.completions.create({ ...seeded, seed: 20, n: 3 });
  const second = await client.chat.completions.create({ ...seeded, seed: 21 });
  assert.equal(three.choices[1]?.message.content, second.choices[0]?.message.content);
});

test("clients that leave in the middle leave nothing behind", async () => {
  await Promise.all(
    Array.from({ length: 40 }, async () => {
      const body = { ...request, stream: true as const, max_tokens: 4000, ignore_eos: true };
      const stream = await client.chat.completions.create(body);
      for await (const _ of stream) break;
    }),
  );
  await until(idle);
});

test("a full queue is 503 for the one that does not fit", async () => {
  const tooMany = { ...request, n: 128, temperature: 1, max_tokens: 5 };
  await assert.rejects(
    client.chat.completions.create(tooMany),
    (error) => error instanceof InternalServerError && error.status === 503,
  );
  await until(idle);
});

test("the engine dies: its calls fail clearly, health says so, and it comes back", async () => {
  const poisoned = client.chat.completions.create({ ...request, messages: [{ role: "user", content: "\u0007" }] });
  await assert.rejects(poisoned, (error) => error instanceof InternalServerError && error.status === 503);
  await until(async () => (await fetch(`${url}/health`)).status === 200);
  assert.ok((await client.chat.completions.create({ ...request, max_tokens: 3 })).choices.length === 1);
  await until(idle);
});

test("Fault kinds of the engine reach the client as vLLM's JSON", async () => {
  const reply = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...request, max_tokens: 5000 }),
  });
  const { error } = (await reply.json()) as { error: Record<string, unknown> };
  assert.deepEqual([reply.status, error.type, error.param, error.code], [400, "BadRequestError", "max_tokens", 400]);
});
