import assert from "node:assert/strict";
import { test } from "node:test";
import { Secret } from "#base/secret.ts";
import { completions } from "#routes/completions.ts";
import type { Tries } from "#serving/batch/turns.ts";
import { type LineParts, runLine } from "./batch-line.ts";

const LINE = {
  number: 1,
  end: 0,
  text: Buffer.from('{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x"}}'),
};

interface Answer {
  readonly status: number;
  readonly retryAfter?: string;
}

/** A server that answers so, one after the other. @param at each call */
function server(answers: readonly Answer[], draining: () => boolean, at: () => void = () => {}): LineParts {
  const left = [...answers];
  return {
    http: {
      inject: (async () => {
        at();
        const { status, retryAfter } = left.shift() ?? assert.fail("it is asked once more");
        const headers = { "content-type": "application/json", ...(retryAfter && { "retry-after": retryAfter }) };
        return { statusCode: status, headers, payload: `{"status":${status}}` };
      }) as unknown as LineParts["http"]["inject"],
      isDraining: draining,
    },
    routes: [completions],
    key: new Secret("k"),
    patienceMs: 0,
  };
}

test("while the server drains no failure of its own becomes a row, whatever patience is left", async () => {
  for (const status of [500, 503])
    await assert.rejects(
      runLine(
        server([{ status }], () => true),
        LINE,
        new AbortController().signal,
      ),
      { kind: "draining" },
    );
  // It began to drain while the line was on its way.
  let draining = false;
  const parts = server(
    [{ status: 503 }],
    () => draining,
    () => {
      draining = true;
    },
  );
  await assert.rejects(runLine(parts, LINE, new AbortController().signal), { kind: "draining" });
});

test("what was answered while the server drained, or as it was stopped, is an answer; a client's error, too", async () => {
  const stop = new AbortController();
  const answered = server(
    [{ status: 200 }],
    () => true,
    () => stop.abort(new Error("stopped")),
  );
  assert.equal((await runLine(answered, LINE, stop.signal)).status, 200);
  const wrong = server([{ status: 400 }], () => true);
  assert.equal((await runLine(wrong, LINE, new AbortController().signal)).status, 400);
  const refused = server([{ status: 400 }], () => false);
  await assert.rejects(runLine(refused, LINE, stop.signal), /stopped/, "it had not begun");
});

test("a server that is full and stays so is a row once patience is over, where nothing ends", async () => {
  const outcome = await runLine(
    server([{ status: 503 }], () => false),
    LINE,
    new AbortController().signal,
  );
  assert.equal(outcome.status, 503);
});

test("each try is one of its own, and nothing but the try is on its way when it waits for the next", async () => {
  const said: string[] = [];
  const parts = server(
    [{ status: 503 }, { status: 429, retryAfter: "3600" }, { status: 200 }],
    () => false,
    () => said.push("asked"),
  );
  const tries: Tries = {
    once: async (work) => {
      said.push("turn");
      const answer = await work();
      said.push("free");
      return answer;
    },
    wait: async (ms) => void said.push(`${ms}`),
  };
  const outcome = await runLine({ ...parts, patienceMs: 7_200_000, tries }, LINE, new AbortController().signal);
  assert.equal(outcome.status, 200);
  const one = ["turn", "asked", "free"];
  assert.deepEqual(said, [...one, "250", ...one, "3600000", ...one]);
});
