/**
 * A grammar as tables: what structured output may look like, compiled and bounded, plain data for the process border.
 *
 * A recursive transition network over bytes of UTF-8: states with byte edges, empty edges, and calls of other rules,
 * which return where they say. Built by prompt/grammar, run by engine/grammar.
 * A control token, which no text is, stands in it as CONTROL and three bytes of its number; no UTF-8 has that byte.
 * Invariants: no rule calls itself before it has read a byte; targets are states; ranges are 0…255, low ≤ high.
 */
export interface Grammar {
  readonly start: number;
  /** Entries i*3 … i*3+2 for edges[i]: low, high, target. State s has the edges edgeStart[s] … edgeStart[s+1]-1. */
  readonly edges: Int32Array;
  readonly edgeStart: Int32Array;
  /** Targets of empty edges. */
  readonly empties: Int32Array;
  readonly emptyStart: Int32Array;
  /** Entries i*2, i*2+1 for calls[i]: first state of the rule, state to go on in after it. */
  readonly calls: Int32Array;
  readonly callStart: Int32Array;
  /** 1 where a rule may end. */
  readonly ends: Uint8Array;
}

export const CONTROL = 0xff;

/** The bytes of a control token in a grammar. */
export function controlBytes(token: number): Uint8Array {
  return Uint8Array.of(CONTROL, token >>> 16, (token >>> 8) & 0xff, token & 0xff);
}

export interface Constraint {
  readonly grammar: Grammar;
  /** Equal for equal grammars: what was worked out for one serves the other. */
  readonly key: string;
  /** The grammar holds after this run of tokens (the end of reasoning); from the start if absent. */
  readonly after?: readonly number[];
}
