/**
 * Usage as vLLM and OpenAI write it for most answers, read where it lies: one level of counts, without a text or an object
 * for it. Pure.
 *
 * Invariant: what is read here the reader of JSON reads to the same counts; whatever else is not read. Private to usage.ts.
 */
import type { Usage } from "#core/calls.ts";

const COMMA = 0x2c;
const QUOTE = 0x22;
const SPACE = 0x20;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const ZERO = 0x30;
/** More of them may be no integer that a double holds. */
const MOST_DIGITS = 15;

/** What is counted, and by which place of `found`. */
const NAMES = ["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"].map((name) =>
  Buffer.from(`"${name}":`),
);
const [PROMPT, COMPLETION, TOTAL, INPUT, OUTPUT] = [0, 1, 2, 3, 4];
const EMPTY_DETAILS = ["prompt_tokens_details", "completion_tokens_details"].map((name) =>
  Buffer.from(`"${name}":null`),
);
/** Of the object that is read: no two are at a time. -1: it has none. */
const found = new Float64Array(NAMES.length + EMPTY_DETAILS.length);

/** @param end behind its brace. @returns undefined: it has to be read as JSON */
export function plainUsage(bytes: Uint8Array, start: number, end: number): Usage | undefined {
  found.fill(-1);
  if (bytes[start] !== OPEN) return undefined;
  for (let at = start + 1; at < end; ) {
    const behind = member(bytes, at, end);
    if (behind === 0) return undefined;
    if (bytes[behind] === CLOSE) return behind + 1 === end ? counted() : undefined;
    if (bytes[behind] !== COMMA) return undefined;
    at = bytes[behind + 1] === SPACE ? behind + 2 : behind + 1;
  }
  return undefined;
}

function counted(): Usage | undefined {
  const promptTokens = first(PROMPT, INPUT, TOTAL);
  if (promptTokens < 0) return undefined;
  return {
    promptTokens,
    completionTokens: Math.max(0, first(COMPLETION, OUTPUT)),
    cachedTokens: 0,
    reasoningTokens: 0,
  };
}

function first(...places: (number | undefined)[]): number {
  for (const place of places) {
    const count = found[place ?? 0] ?? -1;
    if (count >= 0) return count;
  }
  return -1;
}

/** @returns behind it; 0: it is another */
function member(bytes: Uint8Array, at: number, end: number): number {
  if (bytes[at] !== QUOTE) return 0;
  for (let place = 0; place < NAMES.length; place++) {
    const name = NAMES[place] as Buffer;
    if (!stands(bytes, at, name)) continue;
    const from = at + name.length;
    return once(place) ? number(bytes, bytes[from] === SPACE ? from + 1 : from, end, place) : 0;
  }
  for (let place = 0; place < EMPTY_DETAILS.length; place++) {
    const details = EMPTY_DETAILS[place] as Buffer;
    if (stands(bytes, at, details)) return once(NAMES.length + place) ? at + details.length : 0;
  }
  return 0;
}

/** One that stands twice is none. */
function once(place: number): boolean {
  if (found[place] !== -1) return false;
  found[place] = 0;
  return true;
}

function number(bytes: Uint8Array, from: number, end: number, place: number): number {
  let count = 0;
  let at = from;
  for (; at < end; at++) {
    const digit = (bytes[at] as number) - ZERO;
    if (digit < 0 || digit > 9) break;
    count = count * 10 + digit;
  }
  const digits = at - from;
  if (digits === 0 || digits > MOST_DIGITS || (digits > 1 && bytes[from] === ZERO)) return 0;
  found[place] = count;
  return at;
}

function stands(bytes: Uint8Array, at: number, name: Buffer): boolean {
  for (let i = 0; i < name.length; i++) if (bytes[at + i] !== name[i]) return false;
  return true;
}
