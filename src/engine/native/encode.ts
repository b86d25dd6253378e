/**
 * Text to tokens by llama_tokenize, synchronously. Used in line for short texts and by tokenizer-process.ts for long ones.
 *
 * Wall: T04. With `plain` no special token comes out: llama.cpp matches user-defined tokens even when told not to parse
 * special ones, so the text is cut inside every such literal and the parts are encoded apart.
 */
import type { Library, Pointer } from "./library.ts";

const encoder = new TextEncoder();

/** Compiles the literals to one expression; longest first, so that a literal inside another does not hide it. */
export function literalPattern(literals: readonly string[]): RegExp | undefined {
  if (literals.length === 0) return undefined;
  const escaped = [...literals].sort((a, b) => b.length - a.length).map((text) => RegExp.escape(text));
  return new RegExp(escaped.join("|"), "g");
}

/** Cuts after the first code point of every occurrence, overlapping ones included, so that none is whole in any part. */
export function cutLiterals(text: string, pattern: RegExp | undefined): string[] {
  if (pattern === undefined) return [text];
  const parts: string[] = [];
  let start = 0;
  pattern.lastIndex = 0;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const cut = match.index + ((match[0].codePointAt(0) ?? 0) > 0xffff ? 2 : 1);
    parts.push(text.slice(start, cut));
    start = cut;
    // Go on just behind the cut: another literal may begin inside this one.
    pattern.lastIndex = cut;
  }
  parts.push(text.slice(start));
  return parts.filter((part) => part !== "");
}

/** @returns ids; no special ones are added around them. @throws Error when libllama fails */
export function encodeParts(
  library: Library,
  vocabulary: Pointer,
  parts: readonly string[],
  parseSpecial: boolean,
): Int32Array {
  const runs = parts.map((part) => encodeOne(library, vocabulary, encoder.encode(part), parseSpecial));
  const [only] = runs;
  if (only !== undefined && runs.length === 1) return only;
  const all = new Int32Array(runs.reduce((sum, run) => sum + run.length, 0));
  let at = 0;
  for (const run of runs) {
    all.set(run, at);
    at += run.length;
  }
  return all;
}

function encodeOne(library: Library, vocabulary: Pointer, bytes: Uint8Array, parseSpecial: boolean): Int32Array {
  if (bytes.length === 0) return new Int32Array(0);
  let out = new Int32Array(bytes.length + 8);
  let count = library.tokenize(vocabulary, bytes, bytes.length, out, out.length, false, parseSpecial);
  if (count < 0) {
    out = new Int32Array(-count);
    count = library.tokenize(vocabulary, bytes, bytes.length, out, out.length, false, parseSpecial);
  }
  if (count < 0) throw new Error("llama_tokenize does not agree with itself");
  return out.slice(0, count);
}
