import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { deserialize, serialize } from "node:v8";
import type { PositionLogprobs } from "#core/generate.ts";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { Engine } from "./engine.ts";
import { FakeKernel } from "./fake.ts";
import { EngineLoop, WINDOW } from "./loop.ts";
import { MessageError, type Notice, readCommand, readNotice, type StepMessage } from "./messages.ts";
import { packLogprobs, packStep, unpackLogprobs } from "./packed.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "./prefix/hash.ts";
import { emptyReport, NO_GAUGES } from "./report.ts";

const hasher = await createBlockHasher("sha256");
const position = (token: number, top: number): PositionLogprobs => ({
  chosen: { token, logprob: -0.5, rank: 1 },
  top: Array.from({ length: top }, (_, at) => ({ token: at, logprob: -at, rank: at + 1 })),
});

describe("messages", () => {
  it("brings logprobs over the border as they were", () => {
    const positions = [null, position(3, 0), position(4, 2), null, position(5, 20)];
    assert.deepEqual(unpackLogprobs(packLogprobs(positions)), positions);
    const crossed = deserialize(serialize(packLogprobs(positions)));
    assert.deepEqual(unpackLogprobs(crossed), positions);
  });

  it("packs a whole vocabulary of logprobs", () => {
    const packed = packLogprobs([position(1, 200_000)]);
    assert.equal(packed.tokens.length, 200_001);
  });

  it("packs a step into parallel arrays", () => {
    const report = emptyReport();
    report.tokens.push(
      { request: 2 ** 40, sample: 1, token: 7 },
      { request: 5, sample: 0, token: 8, logprobs: position(8, 1) },
    );
    const message = readNotice(deserialize(serialize(packStep(3, report, NO_GAUGES)))) as StepMessage;
    assert.deepEqual([...message.requests], [2 ** 40, 5]);
    assert.deepEqual([...message.samples], [1, 0]);
    assert.deepEqual([...message.tokens], [7, 8]);
    assert.deepEqual(message.logprobs && unpackLogprobs(message.logprobs), [null, position(8, 1)]);
    assert.equal(packStep(1, emptyReport(), NO_GAUGES).logprobs, undefined);
  });

  it("refuses what is not in the closed set or has another shape", () => {
    const step = packStep(1, emptyReport(), NO_GAUGES);
    const badCommands = [
      null,
      3,
      "abort",
      {},
      { type: "__proto__" },
      { type: "ready" },
      { type: "abort" },
      { type: "abort", request: "1" },
      { type: "submit", request: 1, prompt: [1] },
    ];
    const badNotices = [
      undefined,
      { type: "abort", request: 1 },
      { type: "ready" },
      { ...step, tokens: [1] },
      { ...step, tokens: new Int32Array(1) },
    ];
    for (const bad of badCommands) assert.throws(() => readCommand(bad), MessageError);
    for (const bad of badNotices) assert.throws(() => readNotice(bad), MessageError);
    assert.equal(readCommand({ type: "ack", step: 1 }).type, "ack");
    assert.equal(readNotice(step).type, "step");
  });
});

describe("EngineLoop", () => {
  const limits = {
    maxNumSeqs: 8,
    maxNumBatchedTokens: 64,
    contextLength: 4096,
    schedulingPolicy: "fcfs" as const,
    prefixCache: NO_PREFIX_CACHE,
  };
  const submit = (request: number, maxTokens: number) =>
    ({
      type: "submit",
      request,
      prompt: Int32Array.of(1, 2),
      sampling: { ...NEUTRAL_SAMPLING, maxTokens, ignoreEos: true },
      samples: 1,
      priority: 0,
    }) as const;
  const turns = async (count: number) => {
    for (let at = 0; at < count; at++) await new Promise((resolve) => setImmediate(resolve));
  };

  it("stops WINDOW messages ahead of the last ack, and goes on after one", async () => {
    const posted: Notice[] = [];
    const loop = new EngineLoop(new Engine(new FakeKernel({ contextPerSlot: 4096 }), limits, hasher), (notice) =>
      posted.push(notice),
    );
    loop.handle(submit(1, 1000));
    await turns(300);
    assert.equal(posted.length, WINDOW);
    loop.handle({ type: "ack", step: 10 });
    await turns(300);
    assert.equal(posted.length, WINDOW + 10);
    loop.handle({ type: "close" });
    await turns(10);
    assert.equal(posted.length, WINDOW + 10);
  });

  it("takes commands between steps, and says what an abort changed", async () => {
    const posted: StepMessage[] = [];
    const loop = new EngineLoop(new Engine(new FakeKernel(), limits, hasher), (notice) =>
      posted.push(notice as StepMessage),
    );
    loop.handle(submit(1, 50));
    loop.handle(submit(1, 50));
    await turns(3);
    assert.equal(posted[0]?.failures[0]?.kind, "invalid_request");
    assert.equal(posted.at(-1)?.gauges.running, 1);
    loop.handle({ type: "abort", request: 1 });
    await turns(3);
    const last = posted.at(-1);
    assert.deepEqual([last?.gauges.running, last?.tokens.length], [0, 0]);
    const { length } = posted;
    await turns(5);
    assert.equal(posted.length, length, "asleep when idle");
  });
});
