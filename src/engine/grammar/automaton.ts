/**
 * Runs a Grammar over bytes: a set of stacks, determinised as it is met.
 *
 * A stack is a chain of interned nodes (state to go on in, the node below); a configuration is a set of top nodes,
 * closed under what reads nothing, and interned too: so the same place in the same nesting is the same number, and its
 * transitions and token masks are worked out once. When too many were met all are forgotten but the one in use.
 * Invariants: configuration 0 is the start; -1 is dead. One instance serves all sequences with this grammar, as it
 * holds no position. Called by matcher.ts.
 */
import type { Grammar } from "#core/grammar.ts";

export const DEAD = -1;
const UNKNOWN = -2;
const NO_PARENT = -1;
const UNJUDGED = 2;

/** Configurations kept: each has a table of 256 transitions. */
const MAX_CONFIGURATIONS = 4096;
const MAX_NODES = 1 << 18;
/** Stacks in one configuration: more means a grammar so ambiguous that every byte would be slow. */
const MAX_STACKS = 8192;
/** Nodes of all configurations together. */
const MAX_HELD = 1 << 18;
/**
 * Edges and nodes that one refill may look at, some 60 ms. Schemas of hundreds of properties need a tenth of it for a
 * mask over a whole vocabulary; who needs more would hold up everybody's step (Wall: T26).
 */
const MAX_WORK = 4_000_000;

/** Closing over a node costs as much as so many edges that are only looked at. */
const WORK_A_NODE = 10;

/** The grammar cannot be followed at a bearable price. */
export class AmbiguityError extends Error {}

interface Configuration {
  /** Interned nodes whose states have byte edges. */
  readonly nodes: readonly number[];
  /** Whether the text may end here. */
  readonly final: boolean;
  readonly next: Int32Array;
}

export class Automaton {
  readonly #grammar: Grammar;
  /** What #onlyEnds found out, by state. */
  readonly #tails: Uint8Array;
  #states: number[] = [];
  #parents: number[] = [];
  #nodes = new Map<number, number>();
  #configurations: Configuration[] = [];
  #known = new Map<string, number>();
  #held = 0;
  #left = MAX_WORK;
  /** Grows whenever configurations were forgotten: numbers of before mean nothing any more. */
  generation = 0;

  constructor(grammar: Grammar) {
    this.#grammar = grammar;
    this.#tails = new Uint8Array(grammar.ends.length).fill(UNJUDGED);
    this.#begin();
  }

  get start(): number {
    return 0;
  }

  /** Whether the text may end in this configuration. */
  isFinal(configuration: number): boolean {
    return this.#configurations[configuration]?.final ?? false;
  }

  /** Whether the text may go on in this configuration. */
  canGoOn(configuration: number): boolean {
    return (this.#configurations[configuration]?.nodes.length ?? 0) > 0;
  }

  get isFull(): boolean {
    return (
      this.#configurations.length >= MAX_CONFIGURATIONS || this.#states.length >= MAX_NODES || this.#held >= MAX_HELD
    );
  }

  /** The work of one more token may begin: what follows until the next refill is bounded. */
  refill(): void {
    this.#left = MAX_WORK;
  }

  /** The configuration after one more byte; DEAD when none is. @throws AmbiguityError */
  step(configuration: number, byte: number): number {
    if (configuration === DEAD) return DEAD;
    const { next } = this.#configurations[configuration] as Configuration;
    const known = next[byte] as number;
    if (known !== UNKNOWN) return known;
    const found = this.#move(configuration, byte);
    next[byte] = found;
    return found;
  }

  /** Forgets all but one configuration, whose new number it returns. */
  shrink(configuration: number): number {
    const stacks = (this.#configurations[configuration] as Configuration).nodes.map((node) => this.#stackOf(node));
    const { final } = this.#configurations[configuration] as Configuration;
    this.generation++;
    this.#states = [];
    this.#parents = [];
    this.#nodes = new Map();
    this.#configurations = [];
    this.#known = new Map();
    this.#held = 0;
    this.#begin();
    const nodes = stacks.map((stack) => stack.reduce((parent, state) => this.#node(state, parent), NO_PARENT));
    return this.#intern(nodes, final);
  }

  #spend(work: number): void {
    this.#left -= work;
    if (this.#left < 0) throw new AmbiguityError("the grammar takes too much work for one token");
  }

  #begin(): void {
    const seen = new Set<number>();
    const final = this.#close([this.#node(this.#grammar.start, NO_PARENT)], seen);
    this.#intern(this.#readers(seen), final);
  }

  #move(configuration: number, byte: number): number {
    const { edges, edgeStart } = this.#grammar;
    const reached: number[] = [];
    for (const node of (this.#configurations[configuration] as Configuration).nodes) {
      const state = this.#states[node] as number;
      this.#spend(1 + (edgeStart[state + 1] as number) - (edgeStart[state] as number));
      for (let i = edgeStart[state] as number; i < (edgeStart[state + 1] as number); i++) {
        if (byte < (edges[i * 3] as number) || byte > (edges[i * 3 + 1] as number)) continue;
        reached.push(this.#node(edges[i * 3 + 2] as number, this.#parents[node] as number));
      }
    }
    if (reached.length === 0) return DEAD;
    const seen = new Set<number>();
    const final = this.#close(reached, seen);
    return this.#intern(this.#readers(seen), final);
  }

  /** Adds all that is reached without reading; whether the bottom of a stack was reached. */
  #close(from: readonly number[], seen: Set<number>): boolean {
    const { empties, emptyStart, calls, callStart, ends } = this.#grammar;
    let final = false;
    for (const node of from) seen.add(node);
    for (const node of seen) {
      if (seen.size > MAX_STACKS) throw new AmbiguityError("the grammar is too ambiguous");
      this.#spend(WORK_A_NODE);
      const state = this.#states[node] as number;
      const parent = this.#parents[node] as number;
      for (let i = emptyStart[state] as number; i < (emptyStart[state + 1] as number); i++)
        seen.add(this.#node(empties[i] as number, parent));
      for (let i = callStart[state] as number; i < (callStart[state + 1] as number); i++) {
        const back = calls[i * 2 + 1] as number;
        // A call in last place needs no way back: lists written by recursion keep a flat stack.
        const below = this.#onlyEnds(back) ? parent : this.#node(back, parent);
        seen.add(this.#node(calls[i * 2] as number, below));
      }
      if (ends[state] !== 1) continue;
      if (parent === NO_PARENT) final = true;
      else seen.add(parent);
    }
    return final;
  }

  /** Whether nothing is left but the rule's end, seen through what reads nothing. */
  #onlyEnds(state: number): boolean {
    const known = this.#tails[state];
    if (known !== UNJUDGED) return known === 1;
    const { edgeStart, empties, emptyStart, callStart, ends } = this.#grammar;
    const seen = new Set([state]);
    let ended = false;
    for (const at of seen) {
      if (edgeStart[at] !== edgeStart[at + 1] || callStart[at] !== callStart[at + 1]) return this.#judge(state, false);
      ended ||= ends[at] === 1;
      for (let i = emptyStart[at] as number; i < (emptyStart[at + 1] as number); i++) seen.add(empties[i] as number);
    }
    return this.#judge(state, ended);
  }

  #judge(state: number, tail: boolean): boolean {
    this.#tails[state] = tail ? 1 : 0;
    return tail;
  }

  #readers(nodes: ReadonlySet<number>): number[] {
    const { edgeStart } = this.#grammar;
    const reads = (state: number): boolean => edgeStart[state] !== edgeStart[state + 1];
    return [...nodes].filter((node) => reads(this.#states[node] as number));
  }

  #intern(nodes: readonly number[], final: boolean): number {
    const sorted = [...new Set(nodes)].sort((a, b) => a - b);
    const key = `${final ? "!" : ""}${sorted.join()}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const number = this.#configurations.length;
    if (number >= 8 * MAX_CONFIGURATIONS) throw new AmbiguityError("the grammar has too many places to be in");
    this.#held += sorted.length;
    this.#configurations.push({ nodes: sorted, final, next: new Int32Array(256).fill(UNKNOWN) });
    this.#known.set(key, number);
    return number;
  }

  #node(state: number, parent: number): number {
    const key = (parent + 1) * 0x1_0000_0000 + state;
    const known = this.#nodes.get(key);
    if (known !== undefined) return known;
    const node = this.#states.length;
    this.#states.push(state);
    this.#parents.push(parent);
    this.#nodes.set(key, node);
    return node;
  }

  /** States from the bottom of the stack to its top. */
  #stackOf(node: number): number[] {
    const stack: number[] = [];
    for (let at = node; at !== NO_PARENT; at = this.#parents[at] as number) stack.unshift(this.#states[at] as number);
    return stack;
  }
}
