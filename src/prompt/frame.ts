/**
 * What a pooling model is given for a text or a pair: its tokens with the model's own around them. Pure.
 */
import type { Frame } from "#core/model.ts";

export function framed(frame: Frame, tokens: Int32Array): Int32Array {
  return Int32Array.from([...frame.before, ...tokens, ...frame.after]);
}

/** A query and a document for a cross-encoder. */
export function framedPair(frame: Frame, first: Int32Array, second: Int32Array): Int32Array {
  return Int32Array.from([...frame.before, ...first, ...frame.between, ...second, ...frame.after]);
}
