import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallEvent, OutputOptions } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { NO_USAGE, UNMETERED } from "#core/metering.ts";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { type ChoiceOutput, generate, type Work } from "./_generate.ts";
import { type Script, ScriptedBackend } from "./_scripted-backend.ts";
import type { ServedModel } from "./models.ts";
import type { FinishedChoice } from "./observe.ts";

const OUTPUT: OutputOptions = {
  n: 1,
  stop: [],
  includeStopString: false,
  skipSpecialTokens: true,
  returnTokenIds: false,
  stream: true,
  priority: 3,
};

/** Prints tokens as characters; ends on "!". */
function characters(choice: number): ChoiceOutput {
  let tokens = 0;
  let ended = false;
  return {
    push: (drawn) => {
      tokens += drawn.length;
      ended = drawn.includes(0x21);
      const text = { type: "text", choice, text: String.fromCharCode(...drawn) } as const;
      return ended ? [text, { type: "finish", choice, reason: "stop", stop: "!" }] : [text];
    },
    end: (reason) => {
      ended = true;
      return [{ type: "finish", choice, reason }];
    },
    get ended() {
      return ended;
    },
    get tokens() {
      return tokens;
    },
    reasoningTokens: 0,
  };
}

interface Setting {
  readonly script?: Script;
  readonly output?: Partial<OutputOptions>;
  readonly sampling?: Partial<SamplingParams>;
  readonly prompts?: readonly string[];
}

function setUp({ script, output, sampling, prompts = ["ab"] }: Setting) {
  const backend = new ScriptedBackend({ reply: () => bytes("xyz"), ...script });
  const finished: FinishedChoice[] = [];
  const first: number[] = [];
  const calls: number[][] = [];
  const work: Work = {
    model: { names: ["m"], backend } as unknown as ServedModel,
    prompts: prompts.map((prompt) => ({
      tokens: Int32Array.from(bytes(prompt)),
      sampling: { ...NEUTRAL_SAMPLING, ...sampling },
    })),
    output: { ...OUTPUT, ...output },
    makeOutput: characters,
    printPosition: ({ chosen }) => ({ ...chosen, text: String.fromCharCode(chosen.token), bytes: [], top: [] }),
    observer: {
      call: (...ended) => calls.push(ended),
      firstToken: (seconds) => first.push(seconds),
      interToken: () => {},
      finished: (choice) => finished.push(choice),
      pooled: () => {},
    },
    meter: UNMETERED,
    tally: { used: NO_USAGE },
    cacheSalt: "t",
    share: { key: "t", weight: 1 },
  };
  return { backend, work, finished, first, calls };
}

function bytes(text: string): number[] {
  return [...Buffer.from(text)];
}

const never = new AbortController().signal;

async function run(setting: Setting) {
  const parts = setUp(setting);
  const events: CallEvent[] = [];
  for await (const event of generate(parts.work, never)) events.push(event);
  return { ...parts, events };
}

const textOf = (events: readonly CallEvent[], choice: number): string =>
  events.map((event) => (event.type === "text" && event.choice === choice ? event.text : "")).join("");

test("start, deltas, finish, usage: in this order", async () => {
  const { events, backend, finished, first, calls } = await run({});
  assert.deepEqual(events, [
    { type: "start", model: "m", prompts: [{ tokenIds: [97, 98] }] },
    { type: "text", choice: 0, text: "x" },
    { type: "text", choice: 0, text: "y" },
    { type: "text", choice: 0, text: "z" },
    { type: "finish", choice: 0, reason: "length" },
    {
      type: "usage",
      final: true,
      usage: { promptTokens: 2, completionTokens: 3, cachedTokens: 1, reasoningTokens: 0 },
    },
  ]);
  assert.deepEqual(calls, [[1, 3, 0]]);
  assert.deepEqual([backend.requests[0]?.priority, backend.requests[0]?.cacheSalt, backend.open], [3, "t", 0]);
  assert.deepEqual(
    finished.map((choice) => [choice.reason, choice.promptTokens, choice.cachedTokens, choice.generationTokens]),
    [["length", 2, 1, 3]],
  );
  assert.equal(first.length, 1);
});

test("samples: seeds count up, and a stop string ends one of them only", async () => {
  const { events, backend, finished } = await run({
    output: { n: 2 },
    sampling: { seed: 10 },
    script: { reply: ({ sampling }) => bytes(sampling.seed === 10 ? "a!never" : "abcdef") },
  });
  assert.deepEqual(
    backend.requests.map((request) => request.sampling.seed),
    [10, 11],
  );
  const [one, two] = backend.requests.map(({ group }) => group);
  assert.ok(one !== undefined && one === two, "they share what is computed for the prompt");
  assert.deepEqual([textOf(events, 0), textOf(events, 1)], ["a!", "abcdef"]);
  assert.deepEqual(events.at(-1), {
    type: "usage",
    final: true,
    usage: { promptTokens: 2, completionTokens: 8, cachedTokens: 1, reasoningTokens: 0 },
  });
  assert.deepEqual(finished.map((choice) => choice.reason).sort(), ["length", "stop"]);
  assert.equal(backend.open, 0);
});

test("prompts and samples: choice index is p*n+s, and ids are the server's own", async () => {
  const { events, backend } = await run({
    prompts: ["ab", "cd"],
    output: { n: 2 },
    script: { reply: ({ prompt }) => [...prompt] },
  });
  assert.deepEqual(
    [0, 1, 2, 3].map((choice) => textOf(events, choice)),
    ["ab", "ab", "cd", "cd"],
  );
  assert.equal(new Set(backend.requests.map((request) => request.id)).size, 4);
});

test("prompt logprobs are computed once a prompt and come before any text of it", async () => {
  const { events, backend } = await run({ output: { n: 3 }, sampling: { promptLogprobs: 1 } });
  assert.deepEqual(
    backend.requests.map((request) => request.sampling.promptLogprobs),
    [1, undefined, undefined],
  );
  const kinds = events.map((event) => event.type);
  assert.deepEqual(kinds.slice(0, 2), ["start", "prompt-logprobs"]);
  assert.equal(kinds.filter((kind) => kind === "prompt-logprobs").length, 1);
});

test("running usage follows each delta and is of that choice", async () => {
  const { events } = await run({ output: { runningUsage: true }, sampling: { maxTokens: 2 } });
  assert.deepEqual(
    events.map((event) =>
      event.type === "usage" ? [event.final, event.choice, event.usage.completionTokens] : event.type,
    ),
    ["start", "text", [false, 0, 1], "text", [false, 0, 2], "finish", [false, 0, 2], [true, undefined, 2]],
  );
});

test("a refusal comes before start", async () => {
  const refuse = new Fault("overloaded", "The queue is full.");
  await assert.rejects(run({ script: { refuse } }), (error) => error === refuse);
  await assert.rejects(
    run({ script: { refuse }, output: { n: 4 }, sampling: { promptLogprobs: 0 } }),
    (error) => error === refuse,
  );
});

test("one failing sample ends all", async () => {
  const { work, backend, finished } = setUp({
    output: { n: 3 },
    script: { endless: true, failAfter: 5 },
    sampling: { maxTokens: 1e6 },
  });
  await assert.rejects(
    async () => {
      for await (const _ of generate(work, never));
    },
    (error) => error instanceof Fault && error.kind === "engine_failed",
  );
  assert.equal(backend.open, 0);
  assert.equal(finished.length, 3);
});

test("leaving in the middle frees every sequence; an aborted signal ends the stream as cancelled", async () => {
  const endless: Setting = { output: { n: 3 }, script: { endless: true }, sampling: { maxTokens: 1e6 } };
  const left = setUp(endless);
  for await (const event of generate(left.work, never)) if (event.type === "text") break;
  assert.equal(left.backend.open, 0);
  assert.deepEqual(
    left.finished.map((choice) => choice.reason),
    ["abort", "abort", "abort"],
  );

  const aborted = setUp(endless);
  const controller = new AbortController();
  await assert.rejects(
    async () => {
      for await (const event of generate(aborted.work, controller.signal))
        if (event.type === "text") controller.abort();
    },
    (error) => error instanceof Fault && error.kind === "cancelled",
  );
  assert.equal(aborted.backend.open, 0);
  assert.deepEqual(new Set(aborted.finished.map((choice) => choice.reason)), new Set(["abort"]));
});

test("10,000 aborted requests leave nothing open", async () => {
  const { work, backend } = setUp({ script: { endless: true }, sampling: { maxTokens: 1e6 } });
  for (let round = 0; round < 100; round++) {
    await Promise.all(
      Array.from({ length: 100 }, async () => {
        const controller = new AbortController();
        try {
          for await (const event of generate(work, controller.signal)) if (event.type === "start") controller.abort();
        } catch (error) {
          assert.ok(error instanceof Fault && error.kind === "cancelled");
        }
      }),
    );
  }
  assert.deepEqual([backend.requests.length, backend.open], [10_000, 0]);
});
