/**
 * Numbers between bounds, as expressions over digits.
 *
 * Numbers with a fraction are taken where the whole unit interval above (or, below zero, under) the integer lies within
 * the bounds: a subset of what is valid, and never outside of it. Called by schema.ts only.
 */
import { choice, type Expr, GrammarError, literal, NEVER, optional, repeat, sequence } from "./builder.ts";
import { DIGIT } from "./json.ts";

/** Inclusive; an infinite bound is none. */
export interface Bounds {
  readonly min: number;
  readonly max: number;
}

/** With exclusive bounds the integers end earlier; what lies between two integers does not care. */
export interface NumberBounds extends Bounds {
  readonly integers: Bounds;
}

const MOST_DIGITS = 15;
const LARGEST = 10 ** MOST_DIGITS - 1;

export function integerBetween({ min, max }: Bounds): Expr {
  const [low, high] = [Math.max(Math.ceil(min), -LARGEST), Math.min(Math.floor(max), LARGEST)];
  if (low > high) throw new GrammarError("no integer lies between the bounds of a number");
  return choice(
    high >= 0 ? naturalBetween(Math.max(0, low), high) : NEVER,
    low < 0 ? sequence(literal("-"), naturalBetween(Math.max(1, -high), -low)) : NEVER,
  );
}

export function numberBetween({ min, max, integers }: NumberBounds): Expr {
  const fraction = optional(sequence(literal("."), repeat(DIGIT, 1, MOST_DIGITS)));
  const options: Expr[] = [];
  if (Math.ceil(integers.min) <= Math.floor(integers.max)) options.push(integerBetween(integers));
  const above = { min: Math.max(0, Math.ceil(min)), max: Math.min(LARGEST, Math.floor(max) - 1) };
  if (above.min <= above.max) options.push(sequence(naturalBetween(above.min, above.max), fraction));
  const below = { min: Math.max(0, Math.ceil(-max)), max: Math.min(LARGEST, Math.floor(-min) - 1) };
  if (below.min <= below.max) options.push(sequence(literal("-"), naturalBetween(below.min, below.max), fraction));
  if (options.length === 0) throw new GrammarError("the bounds of a number are too narrow");
  return choice(...options);
}

/** Without leading zeros. @param low ≥ 0 @param high ≥ low, at most 15 digits */
function naturalBetween(low: number, high: number): Expr {
  const options: Expr[] = [];
  for (let digits = String(low).length; digits <= String(high).length; digits++) {
    const [from, to] = [Math.max(low, digits === 1 ? 0 : 10 ** (digits - 1)), Math.min(high, 10 ** digits - 1)];
    options.push(sameLength(String(from), String(to)));
  }
  return choice(...options);
}

function sameLength(low: string, high: string): Expr {
  if (low === high) return literal(low);
  const [first, last] = [Number(low[0]), Number(high[0])];
  const [lowRest, highRest] = [low.slice(1), high.slice(1)];
  if (lowRest === "") return digits(first, last);
  if (first === last) return sequence(literal(low[0] as string), sameLength(lowRest, highRest));
  const wholeLow = /^0+$/.test(lowRest);
  const wholeHigh = /^9+$/.test(highRest);
  const [from, to] = [wholeLow ? first : first + 1, wholeHigh ? last : last - 1];
  const any = repeat(DIGIT, lowRest.length, lowRest.length);
  return choice(
    wholeLow ? NEVER : sequence(literal(low[0] as string), sameLength(lowRest, "9".repeat(lowRest.length))),
    from <= to ? sequence(digits(from, to), any) : NEVER,
    wholeHigh ? NEVER : sequence(literal(high[0] as string), sameLength("0".repeat(highRest.length), highRest)),
  );
}

function digits(from: number, to: number): Expr {
  return { kind: "chars", ranges: [[0x30 + from, 0x30 + to]] };
}
