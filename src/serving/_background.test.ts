import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "#base/log.ts";
import type { CallEvent } from "#core/calls.ts";
import type { ResponseWriter } from "#core/responses.ts";
import { MemoryResponses } from "#test/fixtures/responses.ts";
import { Background } from "./_background.ts";

const writer: ResponseWriter = {
  status: "in_progress",
  begin: () => [],
  push: () => [],
  stop: () => [],
  body: () => ({}),
  answer: () => [],
  log: () => [],
};

/** Goes on until it is told to end. */
async function* endless(signal: AbortSignal): AsyncGenerator<CallEvent> {
  if (!signal.aborted) await new Promise((done) => signal.addEventListener("abort", done, { once: true }));
  yield* [];
}

test("what was promised a place and begins when the server has ended is ended, too", async () => {
  const background = new Background({
    store: new MemoryResponses(),
    most: 2,
    mostOfTenant: 2,
    timeoutMs: 60_000,
    log: silentLog,
  });
  const leave = background.take("a");
  const closed = background.close(0);
  // As long as the grace takes.
  await new Promise((done) => setTimeout(done, 20));
  const controller = new AbortController();
  const job = { tenant: "a", id: "r", writer, finish: async () => true };
  const run = background.start(job, endless(controller.signal), controller, leave);
  try {
    assert.equal(controller.signal.aborted, true);
  } finally {
    run.cancel();
  }
  await closed;
});
