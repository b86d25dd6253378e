/**
 * /v1/responses of a real server with the demo model, by the official client: what is stored outlives the process, and
 * what was on its way when it died does not stay so.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { test } from "node:test";
import { NotFoundError } from "openai";
import { postgresMissing } from "../fixtures/postgres.ts";
import { clientOf, overOneDatabase, turnsOf } from "../fixtures/response-servers.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

const STORE = ["--responses-store"];
const { input, short, endless: ENDLESS } = turnsOf("castellan-demo");

async function killed(server: TestServer): Promise<void> {
  server.child.kill("SIGKILL");
  await server.exited;
}

test("the client's whole round: create, stream, continue, tools, structured text, background, cancel", async () => {
  const server = await startServer({ args: STORE });
  try {
    const client = clientOf(server);
    const whole = await client.responses.create(short);
    assert.ok(whole.output_text.length > 0);
    const streamed = await client.responses.stream(short).finalResponse();
    assert.equal(streamed.output_text, whole.output_text);
    const next = await client.responses.create({ ...short, input: "And then?", previous_response_id: whole.id });
    assert.ok((next.usage?.input_tokens ?? 0) > (whole.usage?.input_tokens ?? 0));
    const parameters = {
      type: "object",
      properties: { n: { type: "integer" } },
      required: ["n"],
      additionalProperties: false,
    };
    const called = await client.responses.create({
      model: "castellan-demo",
      input,
      tools: [{ type: "function", name: "count", parameters, strict: true }],
      tool_choice: "required",
    });
    const [call] = called.output.filter((item) => item.type === "function_call");
    assert.ok(call?.type === "function_call" && call.name === "count");
    assert.ok(Number.isInteger((JSON.parse(call.arguments) as { n: number }).n));
    const shaped = await client.responses.create({
      ...short,
      max_output_tokens: 60,
      text: { format: { type: "json_schema", name: "s", schema: { enum: ["yes", "no"] }, strict: true } },
    });
    assert.match(shaped.output_text, /^"(yes|no)"$/);
    const begun = await client.responses.create({ ...short, background: true });
    assert.equal(begun.status, "queued");
    await until(
      "it is there",
      async () => !["queued", "in_progress"].includes((await client.responses.retrieve(begun.id)).status ?? ""),
    );
    assert.equal((await client.responses.retrieve(begun.id)).output_text, whole.output_text);
    const endless = await client.responses.create({ ...ENDLESS, background: true });
    assert.equal((await client.responses.cancel(endless.id)).status, "cancelled");
    await client.responses.delete(endless.id);
    const stranger = clientOf(server, await makeKey(server.stateDir, "user", { tenant: "stranger" }));
    await until(
      "the server knows the key",
      async () => (await server.fetch("/v1/models", { key: stranger.apiKey })).status === 200,
    );
    await assert.rejects(stranger.responses.retrieve(whole.id), NotFoundError);
  } finally {
    await server.stop();
  }
});

test("stored ones outlive the process; one that it was working on when it was killed is found failed", async () => {
  const first = await startServer({ args: STORE });
  let second: TestServer | undefined;
  try {
    const client = clientOf(first);
    const kept = await client.responses.create(short);
    const lost = await client.responses.create({ ...ENDLESS, background: true });
    await until("it has begun", async () => (await client.responses.retrieve(lost.id)).status === "in_progress");
    await killed(first);
    second = await startServer({ args: STORE, stateDir: first.stateDir });
    const after = clientOf(second);
    assert.equal((await after.responses.retrieve(kept.id)).output_text, kept.output_text);
    await until("the death is seen", async () => (await after.responses.retrieve(lost.id)).status === "failed");
    const failed = await after.responses.retrieve(lost.id);
    assert.deepEqual(failed.error, {
      code: "server_error",
      message: "The server that worked on this response has ended.",
    });
  } finally {
    await killed(second ?? first);
    rmSync(first.stateDir, { recursive: true, force: true });
  }
});

test("an orderly end lets a background response finish, or says that it did not", async () => {
  const first = await startServer({ args: [...STORE, "--shutdown-timeout", "60"] });
  let second: TestServer | undefined;
  try {
    const begun = await clientOf(first).responses.create({ ...short, background: true });
    first.child.kill("SIGTERM");
    assert.equal(await first.exited, 0);
    second = await startServer({ args: [...STORE, "--shutdown-timeout", "0"], stateDir: first.stateDir });
    const client = clientOf(second);
    const finished = await client.responses.retrieve(begun.id);
    assert.ok(["completed", "incomplete"].includes(finished.status ?? ""), `${finished.status}`);
    const endless = await client.responses.create({ ...ENDLESS, background: true });
    second.child.kill("SIGTERM");
    assert.equal(await second.exited, 0);
    second = await startServer({ args: STORE, stateDir: first.stateDir });
    const cut = await clientOf(second).responses.retrieve(endless.id);
    assert.deepEqual([cut.status, cut.error?.message], ["failed", "The server was shut down."]);
  } finally {
    await killed(second ?? first);
    rmSync(first.stateDir, { recursive: true, force: true });
  }
});

test(
  "two servers over one database: read, cancelled and continued through the other",
  {
    skip: postgresMissing ?? false,
  },
  () => overOneDatabase(STORE, "castellan-demo"),
);

test("vLLM's variable switches the store on, and without it nothing is kept", async () => {
  for (const [env, stored] of [
    [{ VLLM_ENABLE_RESPONSES_API_STORE: "1" }, true],
    [{}, false],
  ] as const) {
    const server = await startServer({ env });
    try {
      const answer = await clientOf(server).responses.create(short);
      assert.equal((answer as { store?: boolean }).store, stored);
      const again = await server.fetch(`/v1/responses/${answer.id}`);
      assert.equal(again.status, stored ? 200 : 404);
    } finally {
      await server.stop();
    }
  }
});
