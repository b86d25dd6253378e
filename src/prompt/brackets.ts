/**
 * What a pooling model is given for a text or a pair: its tokens with the model's own around them. Pure.
 */
import type { Brackets } from "#core/model.ts";

export function bracketed(brackets: Brackets, tokens: Int32Array): Int32Array {
  return Int32Array.from([...brackets.before, ...tokens, ...brackets.after]);
}

/** A query and a document for a cross-encoder. */
export function bracketedPair(brackets: Brackets, first: Int32Array, second: Int32Array): Int32Array {
  return Int32Array.from([...brackets.before, ...first, ...brackets.between, ...second, ...brackets.after]);
}

/** How many tokens the brackets take of a text, and of a pair. */
export function bracketSize(brackets: Brackets, pair = false): number {
  const { before, between, after } = brackets;
  return before.length + after.length + (pair ? between.length : 0);
}
