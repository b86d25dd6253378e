/**
 * Masks over a vocabulary against the plain definition, and the sampler under a grammar.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Grammar } from "#core/grammar.ts";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { Sampler, SamplingError, SequenceSampler } from "#engine/sampler/sampler.ts";
import { Automaton, DEAD } from "./automaton.ts";
import { Grammars } from "./matcher.ts";
import { hasBit, TokenTable } from "./token-table.ts";

/** By hand, as the compilers are in another area: `root ::= "a" root "b" | [a-c]{1,2}`. */
const NESTED: Grammar = tables(
  [
    [
      [0x61, 0x61, 1],
      [0x61, 0x63, 3],
    ],
    [],
    [[0x62, 0x62, 4]],
    [[0x61, 0x63, 4]],
    [],
  ],
  { 3: [4] },
  { 1: [[0, 2]] },
  [4],
);

function tables(
  edges: readonly (readonly (readonly [number, number, number])[])[],
  empties: Readonly<Record<number, readonly number[]>>,
  calls: Readonly<Record<number, readonly (readonly [number, number])[]>>,
  ends: readonly number[],
): Grammar {
  const starts = (count: (state: number) => number): Int32Array => {
    const out = new Int32Array(edges.length + 1);
    edges.forEach((_, state) => {
      out[state + 1] = (out[state] as number) + count(state);
    });
    return out;
  };
  const states = [...edges.keys()];
  return {
    start: 0,
    edges: Int32Array.from(edges.flat(2)),
    edgeStart: starts((state) => edges[state]?.length ?? 0),
    empties: Int32Array.from(states.flatMap((state) => empties[state] ?? [])),
    emptyStart: starts((state) => empties[state]?.length ?? 0),
    calls: Int32Array.from(states.flatMap((state) => calls[state] ?? []).flat()),
    callStart: starts((state) => calls[state]?.length ?? 0),
    ends: Uint8Array.from(states, (state) => (ends.includes(state) ? 1 : 0)),
  };
}

const PIECES = ["", "a", "b", "c", "ab", "aa", "aab", "abb", "bb", "ca", "d", "aaaa", "é"].map((text, token) =>
  token === 0 ? undefined : Buffer.from(text),
);

test("a mask has the tokens that can be read, and no others", () => {
  const table = new TokenTable(PIECES);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0x61, max: 0x63 }), { maxLength: 8 }), (said) => {
      const automaton = new Automaton(NESTED);
      const place = said.reduce((at, byte) => automaton.step(at, byte), automaton.start);
      if (place === DEAD) return;
      const mask = table.mask(automaton, place);
      PIECES.forEach((piece, token) => {
        const alone = piece?.reduce((at, byte) => automaton.step(at, byte), place) ?? DEAD;
        assert.equal(hasBit(mask, token), alone !== DEAD, `token ${token} after ${Buffer.from(said)}`);
      });
    }),
  );
});

test("a walk goes on after the automaton forgot, for every sequence that shares it", () => {
  const automaton = new Automaton(NESTED);
  let place = automaton.start;
  for (const byte of Buffer.from("aaaacc")) place = automaton.step(place, byte);
  place = automaton.shrink(place);
  for (const byte of Buffer.from("bbbb")) place = automaton.step(place, byte);
  assert.ok(automaton.isFinal(place) && !automaton.canGoOn(place));
  assert.equal(automaton.step(place, 0x62), DEAD);
});

const END = 12;
const grammars = new Grammars(PIECES, [END]);
const sampler = new Sampler(PIECES.length);

function drawAll(row: readonly number[], changes: object, seed: number): number[] {
  const params = { ...NEUTRAL_SAMPLING, ...changes };
  const sequence = new SequenceSampler(
    params,
    Int32Array.of(1),
    [END],
    seed,
    grammars.matcher({ grammar: NESTED, key: "n" }),
  );
  const output: number[] = [];
  while (output.length < 60) {
    const { token } = sampler.sample(Float32Array.from(row), sequence, output);
    output.push(token);
    if (token === END) break;
  }
  return output;
}

test("greedy and drawn, with cuts and without: what is said follows the grammar", () => {
  const row = [9, 3, 2, 1, 3, 2, 1, 2, 1, 0, 8, 1, 2];
  for (const changes of [{ temperature: 0 }, {}, { topK: 3 }, { topP: 0.8 }, { minP: 0.1 }, { logprobs: 2 }]) {
    for (let seed = 0; seed < 60; seed++) {
      const output = drawAll(row, changes, seed);
      if (output.at(-1) !== END) continue; // a greedy model may open for ever
      const text = output
        .slice(0, -1)
        .map((token) => PIECES[token]?.toString())
        .join("");
      const automaton = new Automaton(NESTED);
      const place = [...Buffer.from(text)].reduce((at, byte) => automaton.step(at, byte), automaton.start);
      assert.ok(place !== DEAD && automaton.isFinal(place), `${text} under ${JSON.stringify(changes)}`);
    }
  }
});

test("greedy takes the likeliest that is allowed, and makes a mask only where the likeliest few are not", () => {
  const rows = fc.array(fc.integer({ min: -5, max: 5 }), { minLength: PIECES.length, maxLength: PIECES.length });
  fc.assert(
    fc.property(rows, (row) => {
      const fresh = () => new Grammars(PIECES, [END]).matcher({ grammar: NESTED, key: "n" });
      const [mask, matcher, witness] = [fresh().mask() as Uint32Array, fresh(), fresh()];
      const likeliest = [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
      const at = likeliest.findIndex((token) => hasBit(mask, token));
      const params = { ...NEUTRAL_SAMPLING, temperature: 0 };
      let made = 0;
      const watched = new Proxy(matcher, {
        get: (target, name) => {
          if (name === "mask") made++;
          const value: unknown = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
      const sequence = new SequenceSampler(params, Int32Array.of(1), [END], 1, watched);
      const { token } = sampler.sample(Float32Array.from(row), sequence, []);
      assert.equal(token, likeliest[at]);
      assert.ok(witness.allows(token));
      assert.equal(made, at < 4 ? 0 : 1);
    }),
  );
});

test("a refused draw does not change how often the others come", () => {
  const row = [9, 1, 1, 1, -50, -50, -50, -50, -50, 2, 6, -50, -50];
  const counts = new Map<number, number>();
  const rounds = 30_000;
  for (let seed = 0; seed < rounds; seed++) {
    const params = { ...NEUTRAL_SAMPLING };
    const matcher = grammars.matcher({ grammar: NESTED, key: "n" });
    const { token } = sampler.sample(
      Float32Array.from(row),
      new SequenceSampler(params, Int32Array.of(1), [END], seed, matcher),
      [],
    );
    counts.set(token, (counts.get(token) ?? 0) + 1);
  }
  const weights = new Map([1, 2, 3, 9].map((token) => [token, Math.exp(row[token] as number)] as const));
  const sum = [...weights.values()].reduce((a, b) => a + b);
  let chiSquare = 0;
  for (const [token, weight] of weights) {
    const expected = (rounds * weight) / sum;
    chiSquare += ((counts.get(token) ?? 0) - expected) ** 2 / expected;
  }
  assert.deepEqual(
    [...counts.keys()].sort((a, b) => a - b),
    [1, 2, 3, 9],
  );
  assert.ok(chiSquare < 16.3, `chi square ${chiSquare} with 3 degrees of freedom (p = 0.001)`);
});

test("raw logprobs are those of the model, whatever is barred", () => {
  const row = Float32Array.from([9, 1, 2, 3, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
  const sequence = new SequenceSampler(
    { ...NEUTRAL_SAMPLING, temperature: 0, logprobs: 1 },
    Int32Array.of(1),
    [END],
    1,
    grammars.matcher({ grammar: NESTED, key: "n" }),
  );
  const { token, logprobs } = sampler.sample(row, sequence, []);
  assert.equal(token, 3);
  assert.deepEqual([logprobs?.chosen.rank, logprobs?.top[0]?.token], [3, 0]);
});

test("the grammar begins behind the run of tokens that it waits for", () => {
  const matcher = grammars.matcher({ grammar: NESTED, key: "n", after: [10, 9] });
  for (const token of [10, 1, 10, 9]) {
    assert.ok(!matcher.active && matcher.allows(0) && matcher.mask() === undefined);
    matcher.advance(token);
  }
  assert.ok(matcher.active && !matcher.allows(10) && matcher.allows(1) && !matcher.allows(END));
});

test("a control token comes where the grammar names it, and nowhere else", () => {
  // root ::= "a" <token 0> "b"; a byte of no UTF-8 in a piece does not stand for one.
  const named = tables(
    [[[0x61, 0x61, 1]], [[0xff, 0xff, 2]], [[0, 0, 3]], [[0, 0, 4]], [[0, 0, 5]], [[0x62, 0x62, 6]], []],
    {},
    {},
    [6],
  );
  const pieces = [undefined, ...["a", "b"].map((text) => Buffer.from(text)), Buffer.of(0xff), Buffer.of(0), undefined];
  const matcher = new Grammars(pieces, [5]).matcher({ grammar: named, key: "c" });
  const expected = [[1], [0], [2], [5]];
  for (const [token] of expected) {
    assert.ok(token !== undefined);
    const mask = matcher.mask() as Uint32Array;
    assert.deepEqual(
      [...pieces.keys()].filter((one) => hasBit(mask, one)),
      [token],
    );
    assert.deepEqual(
      [...pieces.keys()].filter((one) => matcher.allows(one)),
      [token],
    );
    matcher.advance(token);
  }
  assert.ok(matcher.finished);
  for (let token = 0; token < PIECES.length; token++)
    if (PIECES[token] === undefined) assert.ok(!grammars.matcher({ grammar: NESTED, key: "n" }).allows(token));
});

test("a vocabulary that cannot say it fails the request and nothing else", () => {
  const poor = new Grammars([undefined, Buffer.from("x"), undefined], [2]);
  const sequence = new SequenceSampler(
    { ...NEUTRAL_SAMPLING },
    Int32Array.of(1),
    [2],
    1,
    poor.matcher({ grammar: NESTED, key: "p" }),
  );
  assert.throws(
    () => new Sampler(3).sample(Float32Array.of(1, 2, 3), sequence, []),
    (error) => error instanceof SamplingError && error.code === "masked",
  );
});

test("grammars that nobody asks for any more are forgotten", () => {
  const many = new Grammars(PIECES, [END]);
  for (let i = 0; i < 500; i++) many.matcher({ grammar: NESTED, key: String(i) });
  assert.ok(many.size <= 64);
});
