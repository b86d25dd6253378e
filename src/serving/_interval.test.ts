import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ChoiceEvent } from "#core/calls.ts";
import type { ChoiceOutput } from "./_generate.ts";
import { atIntervals } from "./_interval.ts";

type Delta = Exclude<ChoiceEvent, { type: "finish" }>;

/** Says one delta a token. */
function saying(deltas: readonly Delta[]): ChoiceOutput {
  let tokens = 0;
  return {
    push: (ids) => ids.flatMap((id) => ({ ...(deltas[tokens++] as Delta), tokenIds: [id] })),
    end: (reason) => [{ type: "finish", choice: 0, reason }],
    ended: false,
    get tokens() {
      return tokens;
    },
    reasoningTokens: 0,
  };
}

/** What a reader of the whole has of it. */
function whole(events: readonly ChoiceEvent[]) {
  const of = (type: string) =>
    events.map((event) => (event.type === type && "text" in event ? event.text : "")).join("");
  const calls: string[] = [];
  for (const event of events)
    if (event.type === "tool-call")
      calls[event.index] = (calls[event.index] ?? "") + (event.id ?? "") + (event.name ?? "") + event.arguments;
  const ids = events.flatMap((event) => ("tokenIds" in event ? (event.tokenIds ?? []) : []));
  return { text: of("text"), reasoning: of("reasoning"), calls, ids, last: events.at(-1)?.type };
}

const delta: fc.Arbitrary<Delta> = fc.oneof(
  fc.record({ type: fc.constant("text" as const), choice: fc.constant(0), text: fc.string({ maxLength: 2 }) }),
  fc.record({ type: fc.constant("reasoning" as const), choice: fc.constant(0), text: fc.string({ maxLength: 2 }) }),
  fc.record(
    {
      type: fc.constant("tool-call" as const),
      choice: fc.constant(0),
      index: fc.nat(1),
      id: fc.constant("i"),
      name: fc.constant("n"),
      arguments: fc.string({ maxLength: 2 }),
    },
    { requiredKeys: ["type", "choice", "index", "arguments"] },
  ),
);

test("nothing is lost or changed, whatever the interval; the first token comes at once", () => {
  fc.assert(
    fc.property(fc.array(delta, { minLength: 1 }), fc.integer({ min: 1, max: 9 }), (deltas, interval) => {
      const [plain, paced] = [saying(deltas), atIntervals(saying(deltas), interval)];
      const all = deltas.flatMap((_, id) => plain.push([id], undefined));
      const pieces = deltas.map((_, id) => paced.push([id], undefined));
      assert.equal(pieces[0]?.length, 1);
      const got = [...pieces.flat(), ...paced.end("stop", undefined)];
      assert.deepEqual(whole(got), whole([...all, ...plain.end("stop", undefined)]));
      for (const [at, piece] of pieces.entries()) assert.equal(piece.length > 0, at % interval === 0);
    }),
  );
});

test("deltas of one kind become one", () => {
  const text = (letter: string): Delta => ({ type: "text", choice: 0, text: letter });
  const paced = atIntervals(saying([..."abcdef"].map(text)), 3);
  const pieces = [0, 1, 2, 3, 4, 5].map((id) => paced.push([id], undefined));
  assert.deepEqual(
    pieces.map((events) => events.map((event) => "text" in event && event.text)),
    [["a"], [], [], ["bcd"], [], []],
  );
  assert.deepEqual(whole(paced.end("length", undefined)), {
    text: "ef",
    reasoning: "",
    calls: [],
    ids: [4, 5],
    last: "finish",
  });
});
