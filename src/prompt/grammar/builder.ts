/**
 * Builds a Grammar out of expressions: literals, byte ranges, characters, sequences, choices, repetitions and rules.
 *
 * Expressions are built while they are walked, state by state; the number of states is bounded, because a small source
 * can ask for many ({1,100000}). Rules may refer to each other and to themselves, but not before reading something.
 * Called by the compilers beside it.
 */
import { controlBytes, type Grammar } from "#core/grammar.ts";
import { leftRecursive } from "./left-recursion.ts";

/** A grammar that cannot be used, in words for the client. */
export class GrammarError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "GrammarError";
  }
}

/** One that is larger than it may be. */
export class SizeError extends GrammarError {}

export interface GrammarSize {
  readonly states: number;
  /** Ways from state to state, of every kind. */
  readonly edges: number;
}

export type Expr =
  | { readonly kind: "literal"; readonly text: string }
  /** A control token. */
  | { readonly kind: "token"; readonly id: number }
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

/** One grammar at most: a few megabytes of tables. */
const LARGEST: GrammarSize = { states: 60_000, edges: 400_000 };
/** Expressions walked a state: repetitions of what makes no state cost time, too. */
const WORK_A_STATE = 16;

interface Draft {
  readonly edges: [low: number, high: number, target: number][];
  readonly empties: number[];
  readonly calls: [rule: string, target: number][];
  end: boolean;
}

/** @throws GrammarError too large, an unknown rule, or a rule that calls itself before reading anything */
export function buildGrammar(rules: ReadonlyMap<string, Expr>, start: string, most = LARGEST): Grammar {
  const builder = new Builder(most);
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
  private readonly most: GrammarSize;
  private edges = 0;
  private work = 0;

  constructor(most: GrammarSize) {
    this.most = most;
  }

  state(): number {
    if (this.drafts.length >= this.most.states)
      throw new SizeError(`the grammar is too large: it needs more than ${this.most.states} states`);
    this.drafts.push({ edges: [], empties: [], calls: [], end: false });
    return this.drafts.length - 1;
  }

  end(state: number): void {
    this.at(state).end = true;
  }

  /** Adds the expression behind `from`; returns where it ends. */
  add(expr: Expr, from: number): number {
    if (++this.work > this.most.states * WORK_A_STATE)
      throw new SizeError("the grammar is too large: it repeats too much");
    switch (expr.kind) {
      case "literal":
        return this.bytes(Buffer.from(expr.text), from);
      case "token":
        return this.bytes(controlBytes(expr.id), from);
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
        this.countEdge();
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

  private skip(from: number, to: number): void {
    this.countEdge();
    this.at(from).empties.push(to);
  }

  private countEdge(): void {
    if (++this.edges > this.most.edges)
      throw new SizeError(`the grammar is too large: it needs more than ${this.most.edges} edges`);
  }

  private bytes(bytes: Uint8Array, from: number): number {
    let at = from;
    for (const byte of bytes) {
      const to = this.state();
      this.countEdge();
      this.at(at).edges.push([byte, byte, to]);
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
          this.countEdge();
          this.at(at).edges.push([first, last, next]);
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
    const ruleState = (name: string): number => {
      const state = rules.get(name);
      if (state === undefined) throw new GrammarError(`there is no rule ${name}`);
      return state;
    };
    return {
      start,
      edges: Int32Array.from(this.drafts.flatMap(({ edges }) => edges.flat())),
      edgeStart: offsets(({ edges }) => edges.length),
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
