import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { LabelCall } from "#core/pool-calls.ts";
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

test("who hangs up leaves nothing running", async () => {
  const { serving, backend } = fixture({ reply: () => [65], endless: true });
  const leave = new AbortController();
  const answer = scoreLabels(grant("embeddings"), serving, CALL, leave.signal);
  leave.abort();
  await assert.rejects(answer, (error) => error instanceof Fault && error.kind === "cancelled");
  assert.equal(backend.open, 0);
});
