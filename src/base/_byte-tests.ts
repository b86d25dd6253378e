/**
 * Questions about sixteen bytes at a time, as code for WebAssembly: each answers a vector with 255 where it is true and 0
 * where not. Bytes have no sign. Private to base: _json-simd.ts.
 */
import { type Code, type FunctionBody, v128 } from "./_wasm.ts";

/** What is not greater is a control character. */
const LAST_CONTROL = 0x1f;
/** What makes a letter a small one. */
const SMALL = 0x20;
/** This processor's look-up takes of a byte of ASCII the lower half by itself (PSHUFB), which the relaxed instruction leaves open. */
const LOOKS_UP_LOWER = process.arch === "x64";
/** Between the quote and the control characters stand two bytes that it changes places with. */
const QUOTE_FIRST = 0x22 ^ (LAST_CONTROL + 1);
/** What no byte of ASCII has. */
const WIDE = 0x80;

/** An order of bytes in which those that are looked for come first. */
export interface Order {
  /** Bits that are turned over. */
  readonly flip: number;
  /** Of those that are looked for, in this order. */
  readonly last: number;
}

/** Quotes and control characters. */
export const ENDS: Order = { flip: QUOTE_FIRST, last: LAST_CONTROL + 1 };
/** And before them all that is not ASCII. */
export const ENDS_OR_WIDE: Order = { flip: QUOTE_FIRST | WIDE, last: (LAST_CONTROL + 1) | WIDE };

export class ByteTests {
  readonly #body: FunctionBody;

  constructor(body: FunctionBody) {
    this.#body = body;
  }

  equal(character: string, bytes: Code): Code {
    return v128.equal(bytes, this.#body.splat(character.charCodeAt(0)));
  }

  /** A quote or a control character. */
  end(bytes: Code): Code {
    return this.first(ENDS, this.ordered(ENDS, bytes));
  }

  /** Not a question: the bytes as the order has them, for `first`. */
  ordered({ flip }: Order, bytes: Code): Code {
    return v128.xor(bytes, this.#body.splat(flip));
  }

  /** One of those that come first. */
  first({ last }: Order, ordered: Code): Code {
    return this.#atMost(last, ordered);
  }

  /** One of so many characters, from this one on. */
  from(first: string, count: number, bytes: Code): Code {
    return this.#atMost(count - 1, v128.sub(bytes, this.#body.splat(first.charCodeAt(0))));
  }

  /** Not a question: letters as small ones, and digits as they are. */
  small(bytes: Code): Code {
    return v128.or(bytes, this.#body.splat(SMALL));
  }

  /** One of these characters: the one that is looked up by its lower half, or one whose place another has. */
  oneOf(characters: string, bytes: Code): Code {
    // In the places that none has stands what has another lower half.
    const places = Array.from({ length: 16 }, (_, lower) => lower ^ 1);
    const others: string[] = [];
    for (const character of characters) {
      const code = character.charCodeAt(0);
      if ((places[code & 15] ?? 0) < 16) places[code & 15] = code;
      else others.push(character);
    }
    const likely = v128.swizzle(this.#body.vector(places), this.#lower(bytes));
    return others.reduce((all, other) => v128.or(all, this.equal(other, bytes)), v128.equal(likely, bytes));
  }

  /** The lower half of each; of a byte that is not ASCII perhaps nothing, for which `swizzle` answers 0. */
  #lower(bytes: Code): Code {
    return LOOKS_UP_LOWER ? bytes : v128.and(bytes, this.#body.splat(15));
  }

  #atMost(byte: number, bytes: Code): Code {
    return v128.equal(v128.min(bytes, this.#body.splat(byte)), bytes);
  }
}
