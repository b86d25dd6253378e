import assert from "node:assert/strict";
import { test } from "node:test";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { type Meter, NO_USAGE, type Work } from "#core/metering.ts";
import type { LabelCall } from "#core/pool-calls.ts";
import { authorize } from "#policy/authorize.ts";
import { principalOf } from "#policy/roles.ts";
import { fixture, grant } from "./_fixture.ts";
import { poolFixture } from "./_fixture-pooling.ts";
import { scoreLabels } from "./generative-scoring.ts";

const CALL: LabelCall = {
  query: "q",
  items: ["a", "bc"],
  labels: [65, 66],
  amongLabels: true,
  itemFirst: false,
  addSpecialTokens: true,
};
const NEVER = new AbortController().signal;
// The scripted backend gives the drawn token -0.5 and the one after it -1.5.
const setting = () => fixture({ reply: () => [65] });

test("the score is the first label's share, among the labels or in the whole vocabulary", async () => {
  const { serving, backend } = setting();
  const { scores, usage } = await scoreLabels(grant("embeddings"), serving, CALL, NEVER);
  const share = Math.exp(-0.5) / (Math.exp(-0.5) + Math.exp(-1.5));
  for (const score of scores) assert.ok(Math.abs(score - share) < 1e-12);
  assert.equal(scores.length, 2);
  assert.deepEqual([usage.promptTokens, usage.completionTokens], [3 + 4, 2]);
  assert.deepEqual(
    backend.requests.map(({ prompt }) => Buffer.from(prompt.slice(1)).toString()),
    ["qa", "qbc"],
  );
  assert.deepEqual(
    backend.requests.map(({ sampling }) => [sampling.maxTokens, sampling.logprobTokenIds]),
    [
      [1, [65, 66]],
      [1, [65, 66]],
    ],
  );
  const plain = await scoreLabels(grant("embeddings"), serving, { ...CALL, amongLabels: false }, NEVER);
  assert.ok(Math.abs((plain.scores[0] ?? 0) - Math.exp(-0.5)) < 1e-12);
});

test("items may come first, and ids are taken as they are", async () => {
  const { serving, backend } = setting();
  const call = { ...CALL, query: [81], items: [[1, 2]], itemFirst: true };
  await scoreLabels(grant("embeddings"), serving, call, NEVER);
  assert.deepEqual([...(backend.requests[0]?.prompt ?? [])], [1, 2, 81]);
});

test("a prompt that is too long loses its end, and one token's room is left", async () => {
  const { serving, backend } = setting();
  const call = { ...CALL, items: [Array.from({ length: 600 }, () => 7)] };
  await scoreLabels(grant("embeddings"), serving, call, NEVER);
  assert.equal(backend.requests[0]?.prompt.length, 511);
});

test("refuses what cannot be scored by its field", async () => {
  const refused = (param: string) => (error: unknown) => error instanceof Fault && error.param === param;
  const { serving } = setting();
  for (const [change, param] of [
    [{ labels: [99_999] }, "label_token_ids.0"],
    [{ query: [-1] }, "query.0"],
    [{ query: [], items: [[]] }, "items.0"],
    [{ model: "nobody" }, "model"],
  ] as const)
    await assert.rejects(scoreLabels(grant("embeddings"), serving, { ...CALL, ...change }, NEVER), refused(param));
  const capped = { ...serving, caps: { ...serving.caps, poolingTokens: 5 } };
  await assert.rejects(scoreLabels(grant("embeddings"), capped, CALL, NEVER), refused("items"));
  const pooling = poolFixture().serving;
  await assert.rejects(scoreLabels(grant("embeddings"), pooling, CALL, NEVER), refused("model"));
});

/** A meter that remembers, and a serving whose engine gets three items at a time. */
function few(script: Parameters<typeof fixture>[0]) {
  const { serving, backend } = fixture(script);
  const reserved: Work[] = [];
  const settled: Usage[] = [];
  const meter: Meter = {
    reserve: (work) => {
      reserved.push(work);
      let open = true;
      return {
        settle: async (usage) => {
          if (open) settled.push(usage);
          open = false;
        },
      };
    },
  };
  const own = { ...serving, caps: { ...serving.caps, scoringSequences: 3 } };
  const caller = authorize(principalOf({ id: "k", tenant: "t", role: "user" }), "embeddings", meter);
  return {
    backend,
    reserved,
    settled,
    score: (call: LabelCall, signal = NEVER) => scoreLabels(caller, own, call, signal),
  };
}

const MANY = { ...CALL, items: Array.from({ length: 20 }, (_, at) => [at + 1]) };

test("the engine has a few items at a time, under one reservation, and the scores come in the items' order", async () => {
  let peak = 0;
  // The first label's logprob is -0.5 where it is drawn and -1.5 where it comes after.
  const { backend, reserved, settled, score } = few({
    reply: ({ prompt }) => {
      peak = Math.max(peak, backend.open);
      return [(prompt.at(-1) ?? 0) % 2 === 0 ? 65 : 64];
    },
  });
  const { scores, usage } = await score({ ...MANY, amongLabels: false });
  assert.equal(peak, 3);
  assert.deepEqual(
    scores.map((value) => Math.log(value).toFixed(1)),
    MANY.items.map((_, at) => ((at + 1) % 2 === 0 ? "-0.5" : "-1.5")),
  );
  assert.deepEqual(reserved, [{ model: "demo", promptTokens: 60, completionTokens: 20, sequences: 3 }]);
  assert.deepEqual([settled, usage.promptTokens], [[usage], 60]);
});

test("when one fails, or the caller leaves, what runs is stopped and nothing more is begun", async () => {
  const failing = few({ reply: () => [65], failAfter: 0 });
  await assert.rejects(failing.score(MANY), (error) => error instanceof Fault && error.kind === "engine_failed");
  assert.deepEqual([failing.backend.open, failing.backend.requests.length, failing.settled], [0, 3, [NO_USAGE]]);

  const leave = new AbortController();
  const left = few({
    reply: ({ prompt }) => {
      if (prompt.at(-1) === 5) leave.abort();
      return [65];
    },
  });
  await assert.rejects(left.score(MANY, leave.signal), (error) => error instanceof Fault && error.kind === "cancelled");
  assert.equal(left.backend.open, 0);
  assert.ok(left.backend.requests.length <= 8, String(left.backend.requests.length));
  const [used] = left.settled;
  assert.ok(used !== undefined && used.promptTokens > 0 && used.promptTokens < 60 && left.settled.length === 1);
});

test("who hangs up leaves nothing running", async () => {
  const { serving, backend } = fixture({ reply: () => [65], endless: true });
  const leave = new AbortController();
  const answer = scoreLabels(grant("embeddings"), serving, CALL, leave.signal);
  leave.abort();
  await assert.rejects(answer, (error) => error instanceof Fault && error.kind === "cancelled");
  assert.equal(backend.open, 0);
});
