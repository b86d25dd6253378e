import assert from "node:assert/strict";
import { test } from "node:test";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { Meter, Work } from "#core/metering.ts";
import type { PoolCall, PoolSource, Truncation } from "#core/pool-calls.ts";
import { DEFAULT_CAPS, type RequestCaps } from "#core/request-caps.ts";
import { authorize } from "#policy/authorize.ts";
import { principalOf } from "#policy/roles.ts";
import { AFTER, BEFORE, type PoolScript, poolFixture } from "./_fixture-pooling.ts";
import { pool } from "./pool.ts";

function book() {
  const reserved: Work[] = [];
  const settled: number[] = [];
  const meter: Meter = {
    reserve: (work) => {
      reserved.push(work);
      let open = true;
      return {
        settle: async ({ promptTokens }: Usage) => {
          if (open) settled.push(promptTokens);
          open = false;
        },
      };
    },
  };
  return { meter, reserved, settled };
}

const source = (prompts: readonly (string | readonly number[])[], more: object = {}): PoolSource => ({
  kind: "prompts",
  prompts,
  addSpecialTokens: true,
  field: "input",
  ...more,
});

function run(
  script: PoolScript,
  call: Partial<PoolCall>,
  { caps = {}, signal = new AbortController().signal }: { caps?: Partial<RequestCaps>; signal?: AbortSignal } = {},
) {
  const { pooling, serving } = poolFixture(script);
  const { meter, ...books } = book();
  const grant = authorize(principalOf({ id: "k", tenant: "t", role: "user" }), "embeddings", meter);
  const own = { ...serving, caps: { ...DEFAULT_CAPS, ...caps } };
  const answer = pool(grant, own, { task: "embed", api: "Embeddings", source: source(["ab"]), ...call }, signal);
  return { answer, pooling, ...books };
}

const NUMBERED = Array.from({ length: 100 }, (_, at) => [at]);
const fault = (kind: string, param?: string) => (error: unknown) =>
  error instanceof Fault && error.kind === kind && (param === undefined || error.param === param);

test("texts stand between the model's tokens, ids as they are; used is what was reserved", async () => {
  const { answer, pooling, reserved, settled } = run(
    {},
    { source: source(["ab", "c"]), callId: "embd-1", priority: 0 },
  );
  const { outputs, usage, model } = await answer;
  assert.deepEqual(
    outputs.map(({ values }) => [...values]),
    [
      [4, BEFORE, AFTER],
      [3, BEFORE, AFTER],
    ],
  );
  assert.equal(model, "demo");
  assert.deepEqual(reserved, [{ model: "demo", promptTokens: 7, completionTokens: 0, sequences: 2 }]);
  assert.deepEqual([settled, usage.promptTokens], [[7], 7]);
  assert.deepEqual(
    pooling.pools.map(({ callId, priority, task }) => [callId, priority, task]),
    [["t\0embd-1", 0, "embed"]],
  );

  const ids = await run({}, { source: source([[7, 8]]) }).answer;
  assert.deepEqual([...(ids.outputs[0]?.values ?? [])], [2, 7, 8]);
  const bare = await run({}, { source: source(["ab"], { addSpecialTokens: false }) }).answer;
  assert.deepEqual([...(bare.outputs[0]?.values ?? [])], [2, 97, 98]);
});

test("a hundred inputs go in pieces, two at a time, and come back in their order", async () => {
  const { answer, pooling, reserved } = run({}, { source: source(NUMBERED) });
  const { outputs } = await answer;
  assert.deepEqual(
    outputs.map(({ values }) => values[1]),
    NUMBERED.map(([first]) => first),
  );
  assert.deepEqual(
    pooling.pools.map(({ inputs }) => inputs.length),
    [32, 32, 32, 4],
  );
  assert.equal(pooling.peak, 64);
  assert.equal(reserved[0]?.sequences, 64);
});

test("a queue with little room gets smaller pieces; one with none is a failure", async () => {
  for (const room of [1, 5, 32, 40, 63]) {
    const { answer, pooling, settled } = run({ room }, { source: source(NUMBERED) });
    const { outputs } = await answer;
    assert.deepEqual(
      outputs.map(({ values }) => values[1]),
      NUMBERED.map(([first]) => first),
      `room for ${room}`,
    );
    assert.ok(pooling.peak <= room);
    assert.deepEqual(settled, [100]);
  }
  const { answer, settled } = run({ room: 0 }, { source: source(NUMBERED) });
  await assert.rejects(answer, fault("overloaded"));
  assert.deepEqual(settled, [0]);
});

test("a fault of the server costs nothing, and what was under way is dropped", async () => {
  let calls = 0;
  const before = () => {
    if (++calls === 3) throw new Fault("engine_failed", "the engine died");
  };
  const { answer, pooling, settled } = run({ before }, { source: source(NUMBERED) });
  await assert.rejects(answer, fault("engine_failed"));
  assert.deepEqual(settled, [0]);
  assert.equal(pooling.inputs, 0);
});

test("who hangs up pays for what the engine had been given, and no more of it is begun", async () => {
  const leave = new AbortController();
  let calls = 0;
  const before = () => {
    if (++calls === 2) leave.abort();
  };
  const { answer, pooling, settled } = run({ before }, { source: source(NUMBERED) }, { signal: leave.signal });
  await assert.rejects(answer, fault("cancelled"));
  assert.deepEqual([pooling.pools.length, pooling.inputs], [2, 0]);
  assert.deepEqual(settled, [64]);
});

test("truncation counts the model's own tokens and cuts the text's", async () => {
  const cut = async (truncate: Omit<Truncation, "field">): Promise<string> => {
    const call = { source: source(["abcdefghijklmnopqrstuvw"]), truncate: { ...truncate, field: "max" } };
    const { answer, pooling } = run({}, call);
    await answer;
    return Buffer.from(pooling.pools[0]?.inputs[0]?.slice(1, -1) ?? []).toString();
  };
  assert.equal(await cut({ tokens: 4, side: "right" }), "ab");
  assert.equal(await cut({ tokens: 4, side: "left" }), "vw");
  assert.equal(await cut({ tokens: -1, side: "right" }), "abcdefghijklmn");
  for (const tokens of [0, 2, 17])
    await assert.rejects(cut({ tokens, side: "right" }), fault("invalid_request", "max"));
});

test("a long text is cut before it is read, and never within a character", async () => {
  for (const side of ["left", "right"] as const) {
    const text = `a${"😀".repeat(500)}b`;
    const { answer } = run({}, { source: source([text]), truncate: { tokens: 3, side, field: "max" } });
    const { usage } = await answer;
    assert.equal(usage.promptTokens, 3);
  }
});

const REFUSED: readonly (readonly [
  what: string,
  call: Partial<PoolCall>,
  param: string,
  caps?: Partial<RequestCaps>,
])[] = [
  ["an empty input", { source: source(["ab", []]) }, "input.1"],
  ["a text over the window", { source: source(["ab", "x".repeat(15)]) }, "input.1"],
  ["ids over the window", { source: source([Array.from({ length: 17 }, () => 1)]) }, "input"],
  ["an unknown id", { source: source([[1, 259]]) }, "input.1"],
  ["a negative id", { source: source([[-1]]) }, "input.0"],
  ["more tokens than max_tokens", { source: source(["abc"], { mostTokens: 4 }) }, "input"],
  ["more tokens than the cap", { source: source(["abc", "abc"]) }, "input", { poolingTokens: 9 }],
  ["more numbers than the cap", { source: source(["abc", "abc"]) }, "input", { poolingNumbers: 5 }],
  ["more numbers of tokens", { task: "token_embed", source: source(["abc"]) }, "input", { poolingNumbers: 14 }],
  ["bits of a size that is no multiple of 8", { packed: true }, "embedding_types"],
  ["another task", { task: "classify" }, "model"],
  ["a priority where there are none", { priority: 3 }, "priority"],
];

for (const [what, call, param, caps = {}] of REFUSED)
  test(`refuses ${what} before anything is reserved`, async () => {
    const { answer, reserved } = run({}, call, { caps });
    await assert.rejects(answer, fault("invalid_request", param));
    assert.deepEqual(reserved, []);
  });

test("without a task a model does what it does first", async () => {
  const { pooling, serving } = poolFixture({ info: { tasks: ["classify", "score"], classes: 2, labels: ["a", "b"] } });
  const grant = authorize(principalOf({ id: "k", tenant: "t", role: "user" }), "embeddings", book().meter);
  const call = { api: "Pooling", source: source(["ab"]) };
  const answer = await pool(grant, serving, call, new AbortController().signal);
  assert.deepEqual([answer.task, answer.labels, pooling.pools[0]?.task], ["classify", ["a", "b"], "classify"]);
});
