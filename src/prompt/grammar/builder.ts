/**
 * Builds a Grammar out of expressions: literals, byte ranges, characters, sequences, choices, repetitions and rules.
 *
 * Expressions are built while they are walked, state by state; the number of states is bounded, because a small source
 * can ask for many ({1,100000}). Rules may refer to each other and to themselves, but not before reading something.
 * Called by the compilers beside it.
 */
import type { Grammar } from "#core/grammar.ts";
import { leftRecursive } from "./left-recursion.ts";

/** A grammar that cannot be used, in words for the client. */
export class GrammarError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "GrammarError";
  }
}

export type Expr =
  | { readonly kind: "literal"; readonly text: string }
  /** Code points, ranges ascending and apart. */
  | { readonly kind: "chars"; readonly ranges: readonly (readonly [low: number, high: number])[] }
  | { readonly kind: "sequence"; readonly parts: readonly Expr[] }
  | { readonly kind: "choice"; readonly options: readonly Expr[] }
  /** max absent: without end. */
  | { readonly kind: "repeat"; readonly of: Expr; readonly min: number; readonly max?: number }
  | { readonly kind: "rule"; readonly name: string };

export const literal = (text: string): Expr => ({ kind: "literal", text });
export const sequence = (...parts: readonly Expr[]): Expr => ({ kind: "sequence", parts });
export const choice = (...options: readonly Expr[]): Expr => ({ kind: "choice", options });
export const rule = (name: string): Expr => ({ kind: "rule", name });
export const repeat = (of: Expr, min: number, max?: number): Expr =>
  max === undefined ? { kind: "repeat", of, min } : { kind: "repeat", of, min, max };
export const optional = (of: Expr): Expr => repeat(of, 0, 1);
export const EMPTY: Expr = sequence();
/** Matches nothing at all. */
export const NEVER: Expr = choice();

/** States and edges of one grammar at most: a few megabytes of tables. */
const MAX_STATES = 60_000;
const MAX_EDGES = 250_000;
/** Expressions inside expressions: as deep as the compilers' own stack goes with room to spare. */
const MAX_NESTING = 400;
/** Expressions walked: repetitions of what makes no state cost time, too. */
const MAX_WORK = 1_000_000;
/** How often the clock is asked. */
const WORK_A_LOOK = 1024;

interface Draft {
  /** low, high, target of each, flat: there may be many. */
  readonly edges: number[];
  readonly empties: number[];
  readonly calls: [rule: string, target: number][];
  end: boolean;
}

/**
 * @param deadline on the clock of performance.now()
 * @throws GrammarError too large, too slow, an unknown rule, or a rule that calls itself before reading anything
 */
export function buildGrammar(
  rules: ReadonlyMap<string, Expr>,
  start: string,
  deadline = Number.POSITIVE_INFINITY,
): Grammar {
  const builder = new Builder(deadline);
  const first = new Map<string, number>();
  for (const name of rules.keys()) first.set(name, builder.state());
  for (const [name, expr] of rules) builder.end(builder.add(expr, first.get(name) as number));
  const startState = first.get(start);
  if (startState === undefined) throw new GrammarError(`there is no rule ${start}`);
  const grammar = builder.finish(startState, first);
  const recursive = leftRecursive(grammar, [...first.values()]);
  if (recursive !== undefined) {
    const name = [...first].find(([, state]) => state === recursive)?.[0];
    throw new GrammarError(`rule ${name} calls itself before it reads anything (left recursion)`);
  }
  return grammar;
}

class Builder {
  private readonly drafts: Draft[] = [];
  private readonly deadline: number;
  private edgeCount = 0;
  private nesting = 0;
  private work = 0;

  constructor(deadline: number) {
    this.deadline = deadline;
  }

  state(): number {
    if (this.drafts.length >= MAX_STATES)
      throw new GrammarError(`the grammar is too large: it needs more than ${MAX_STATES} states`);
    this.drafts.push({ edges: [], empties: [], calls: [], end: false });
    return this.drafts.length - 1;
  }

  end(state: number): void {
    this.at(state).end = true;
  }

  /** Adds the expression behind `from`; returns where it ends. */
  add(expr: Expr, from: number): number {
    if (++this.nesting > MAX_NESTING) throw new GrammarError(`the grammar is nested more than ${MAX_NESTING} deep`);
    const to = this.addOne(expr, from);
    this.nesting--;
    return to;
  }

  private addOne(expr: Expr, from: number): number {
    if (++this.work > MAX_WORK) throw new GrammarError("the grammar is too large: it repeats too much");
    if (this.work % WORK_A_LOOK === 0 && performance.now() > this.deadline)
      throw new GrammarError("the grammar takes too long to compile");
    switch (expr.kind) {
      case "literal":
        return this.bytes(Buffer.from(expr.text), from);
      case "chars":
        return this.chars(expr.ranges, from);
      case "sequence":
        return expr.parts.reduce((at, part) => this.add(part, at), from);
      case "choice": {
        const to = this.state();
        for (const option of expr.options) this.skip(this.add(option, this.branch(from)), to);
        return to;
      }
      case "repeat":
        return this.repeat(expr.of, expr.min, expr.max, from);
      case "rule": {
        const to = this.state();
        this.at(from).calls.push([expr.name, to]);
        return to;
      }
    }
  }

  private repeat(of: Expr, min: number, max: number | undefined, from: number): number {
    let at = from;
    for (let i = 0; i < min; i++) at = this.add(of, at);
    if (max === undefined) {
      const loop = this.branch(at);
      this.skip(this.add(of, this.branch(loop)), loop);
      const to = this.state();
      this.skip(loop, to);
      return to;
    }
    const to = this.state();
    this.skip(at, to);
    for (let i = min; i < max; i++) {
      at = this.add(of, this.branch(at));
      this.skip(at, to);
    }
    return to;
  }

  /** A new state that `from` leads to without reading: what is added to it does not disturb `from`. */
  private branch(from: number): number {
    const state = this.state();
    this.skip(from, state);
    return state;
  }

  private edge(from: number, low: number, high: number, to: number): void {
    if (++this.edgeCount > MAX_EDGES)
      throw new GrammarError(`the grammar is too large: it needs more than ${MAX_EDGES} edges`);
    this.at(from).edges.push(low, high, to);
  }

  private skip(from: number, to: number): void {
    this.at(from).empties.push(to);
  }

  private bytes(bytes: Uint8Array, from: number): number {
    let at = from;
    for (const byte of bytes) {
      const to = this.state();
      this.edge(at, byte, byte, to);
      at = to;
    }
    return at;
  }

  private chars(ranges: readonly (readonly [number, number])[], from: number): number {
    const to = this.state();
    for (const [low, high] of ranges) {
      for (const run of utf8Ranges(low, high)) {
        let at = from;
        run.forEach(([first, last], i) => {
          const next = i === run.length - 1 ? to : this.state();
          this.edge(at, first, last, next);
          at = next;
        });
      }
    }
    return to;
  }

  finish(start: number, rules: ReadonlyMap<string, number>): Grammar {
    const offsets = (count: (draft: Draft) => number): Int32Array => {
      const out = new Int32Array(this.drafts.length + 1);
      this.drafts.forEach((draft, state) => {
        out[state + 1] = (out[state] as number) + count(draft);
      });
      return out;
    };
    const edgeStart = offsets(({ edges }) => edges.length / 3);
    const edges = new Int32Array(this.edgeCount * 3);
    for (const [state, draft] of this.drafts.entries()) edges.set(draft.edges, (edgeStart[state] as number) * 3);
    const ruleState = (name: string): number => {
      const state = rules.get(name);
      if (state === undefined) throw new GrammarError(`there is no rule ${name}`);
      return state;
    };
    return {
      start,
      edges,
      edgeStart,
      empties: Int32Array.from(this.drafts.flatMap(({ empties }) => empties)),
      emptyStart: offsets(({ empties }) => empties.length),
      calls: Int32Array.from(this.drafts.flatMap(({ calls }) => calls.flatMap(([name, to]) => [ruleState(name), to]))),
      callStart: offsets(({ calls }) => calls.length),
      ends: Uint8Array.from(this.drafts, ({ end }) => (end ? 1 : 0)),
    };
  }

  private at(state: number): Draft {
    return this.drafts[state] as Draft;
  }
}

type ByteRange = readonly [low: number, high: number];

/** The byte sequences of a range of code points (Unicode 15, table 3-7; surrogates are left out). */
export function utf8Ranges(low: number, high: number): ByteRange[][] {
  const out: ByteRange[][] = [];
  for (const [from, to] of [
    [0x0, 0x7f],
    [0x80, 0x7ff],
    [0x800, 0xd7ff],
    [0xe000, 0xffff],
    [0x1_0000, 0x10_ffff],
  ] as const) {
    const [first, last] = [Math.max(low, from), Math.min(high, to)];
    if (first <= last) split(encode(first), encode(last), out);
  }
  return out;
}

function encode(point: number): number[] {
  return [...Buffer.from(String.fromCodePoint(point))];
}

/** Splits a range of equally long encodings so that every byte ranges by itself. */
function split(low: readonly number[], high: readonly number[], out: ByteRange[][]): void {
  const [first, last] = [low[0] as number, high[0] as number];
  if (low.length === 1) {
    out.push([[first, last]]);
    return;
  }
  const prefixed = (from: number, to: number, rest: ByteRange[][]): void => {
    for (const run of rest) out.push([[from, to], ...run]);
  };
  const rest = (from: readonly number[], to: readonly number[]): ByteRange[][] => {
    const runs: ByteRange[][] = [];
    split(from, to, runs);
    return runs;
  };
  const least = low.slice(1).map(() => 0x80);
  const most = low.slice(1).map(() => 0xbf);
  if (first === last) {
    prefixed(first, first, rest(low.slice(1), high.slice(1)));
    return;
  }
  const wholeLow = low.slice(1).every((byte) => byte === 0x80);
  const wholeHigh = high.slice(1).every((byte) => byte === 0xbf);
  if (!wholeLow) prefixed(first, first, rest(low.slice(1), most));
  const [from, to] = [wholeLow ? first : first + 1, wholeHigh ? last : last - 1];
  if (from <= to) prefixed(from, to, rest(least, most));
  if (!wholeHigh) prefixed(last, last, rest(least, high.slice(1)));
}
