/**
 * The place within a JSON string where somebody has to look: its end, or what is refused. Sixty-four bytes at a time, by
 * vector instructions of WebAssembly, so that neither a plain byte nor an escape costs a branch.
 *
 * Contract: `stop(at)`, with `at` in the window and not within an escape, answers `place * 2`, and 1 more where escapes
 * were passed. At the place stands the closing quote; a control character; the backslash of an escape that is none, is
 * half of a surrogate pair, or does not end in the window; or the window ends. Between `at` and there all is as a JSON
 * string may be, UTF-8 aside.
 *
 * The method is simdjson's (Langdale and Lemire, Parsing Gigabytes of JSON per Second, 2019): masks with a bit for each
 * byte, and which backslashes begin an escape found by a subtraction. In place of a carry from block to block, a block
 * begins at the escape that did not end in the one before. Private to base: _json-tokens.ts.
 */
import {
  again,
  answer,
  block,
  type Code,
  FunctionBody,
  I32,
  I64,
  i32,
  i64,
  type Local,
  loop,
  moduleOf,
  V128,
  v128,
  when,
} from "./_wasm.ts";

/** Zeros behind the window's content, which a block may reach: they stand in no string, so that it stops there. */
const STOPPERS = 64;
const PAGES = 1;

/** What is used of the global, which only a browser's types have; there is none without a compiler (`--jitless`). */
declare const WebAssembly:
  | {
      readonly Module: new (bytes: Uint8Array) => object;
      readonly Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> };
    }
  | undefined;

export class StringStops {
  /** Bytes that it holds at most. */
  static readonly WINDOW = 64 * 1024 - STOPPERS;
  readonly stop: (at: number) => number;
  readonly #window: Uint8Array;

  private constructor(window: Uint8Array, stop: (at: number) => number) {
    this.#window = window;
    this.stop = stop;
  }

  /** @returns undefined: there is no WebAssembly here, or no room for its memory */
  static make(): StringStops | undefined {
    if (typeof WebAssembly === "undefined") return undefined;
    try {
      const { exports } = new WebAssembly.Instance(new WebAssembly.Module(new StopsModule().bytes()));
      const { buffer } = exports.memory as { readonly buffer: ArrayBuffer };
      return new StringStops(new Uint8Array(buffer), exports.run as (at: number) => number);
    } catch {
      // Code that is made at run time, or an address space of that size, may not be allowed.
      return undefined;
    }
  }

  /** The window holds these bytes from now on, and nothing else. */
  load(bytes: Buffer, from: number, to: number): void {
    bytes.copy(this.#window, 0, from, to);
    this.#window.fill(0, to - from, to - from + STOPPERS);
  }
}

/** Bytes that are looked at in one step. */
const BLOCK = 64;
/** What is not greater is a control character. */
const LAST_CONTROL = 0x1f;
/** What makes a letter a small one. */
const SMALL = 0x20;
/** Digits behind a `u`. */
const DIGITS = 4n;
/** From the `u` of a surrogate to that of its pair. */
const TO_PAIR = 6n;
const ODD_BITS = 0xaaaa_aaaa_aaaa_aaaan;
const LAST_BIT = 1n << 63n;
/** Places of a `u` whose digits lie in the block, and of one whose pair does. */
const WHOLE = (1n << (64n - DIGITS)) - 1n;
const WHOLE_PAIR = (1n << (64n - DIGITS - TO_PAIR)) - 1n;

const not = (value: Code): Code => i64.xor(value, i64.of(-1n));
const nonZero = (value: Code): Code => i64.differ(value, i64.of(0n));
/** Bits of the places that lie so many before. */
const before = (bits: Code, places: bigint): Code => i64.shr(bits, i64.of(places));

/** The module whose `run` is `stop`. Masks have a bit for each byte of the block, the lowest for the first. */
class StopsModule {
  readonly #body = new FunctionBody(I32);
  readonly #block = [0, 1, 2, 3].map(() => this.#body.variable(V128));
  /** Bytes behind a backslash that begins an escape. */
  readonly #letters = this.#mask();
  /** Where it stops. */
  readonly #stops = this.#mask();
  /** Where the next block begins, as an escape does not end in this one. */
  readonly #starts = this.#mask();

  bytes(): Uint8Array<ArrayBuffer> {
    const at = this.#body.param(0);
    const [letters, stops, starts] = [this.#letters, this.#stops, this.#starts];
    const [backslashes, escapes, passed, first] = [this.#mask(), this.#mask(), this.#mask(), this.#mask()];
    const code = loop(
      ...this.#block.map((bytes, i) => bytes.set(v128.load(at.get, 16 * i))),
      when(
        this.#anySpecial(),
        backslashes.set(this.#where((bytes) => this.#is("\\", bytes))),
        // Of a run of backslashes every other one begins an escape. The subtraction carries through a run: against the
        // odd places it leaves the first, third … of each, and the byte behind a run of odd length.
        letters.set(i64.sub(i64.or(i64.shl(backslashes.get, i64.of(1n)), i64.of(ODD_BITS)), backslashes.get)),
        letters.set(i64.xor(letters.get, i64.of(ODD_BITS))),
        escapes.set(i64.and(letters.get, backslashes.get)),
        letters.set(i64.xor(letters.get, backslashes.get)),
        stops.set(
          i64.and(
            this.#where((bytes) => this.#isEnd(bytes)),
            not(letters.get),
          ),
        ),
        starts.set(i64.and(escapes.get, i64.of(LAST_BIT))),
        when(nonZero(letters.get), this.#judgedEscapes()),
        first.set(i64.or(stops.get, starts.get)),
        when(
          nonZero(first.get),
          at.set(i32.add(at.get, i32.wrap(i64.ctz(first.get)))),
          first.set(lowest(first.get)),
          passed.set(i64.or(passed.get, i64.and(escapes.get, i64.sub(first.get, i64.of(1n))))),
          when(i64.isZero(i64.and(first.get, stops.get)), again(3)),
          answer(i32.or(i32.shl(at.get, i32.of(1)), nonZero(passed.get))),
        ),
        passed.set(i64.or(passed.get, escapes.get)),
      ),
      at.set(i32.add(at.get, i32.of(BLOCK))),
    );
    return moduleOf(this.#body, code, PAGES);
  }

  /** Adds to where it stops and starts the backslashes of escapes that are none, or not all here. */
  #judgedEscapes(): Code {
    const [others, units, digits, highs, lows] = [this.#mask(), this.#mask(), this.#mask(), this.#mask(), this.#mask()];
    const stop = (letters: Code): Code => this.#stops.set(i64.or(this.#stops.get, before(letters, 1n)));
    const start = (letters: Code): Code => this.#starts.set(i64.or(this.#starts.get, before(letters, 1n)));
    return block(
      others.set(i64.and(this.#letters.get, not(this.#where((bytes) => this.#isSimple(bytes))))),
      when(
        nonZero(others.get),
        units.set(
          i64.and(
            others.get,
            this.#where((bytes) => this.#is("u", bytes)),
          ),
        ),
        stop(i64.xor(others.get, units.get)),
        start(i64.and(units.get, i64.of(~WHOLE))),
        units.set(i64.and(units.get, i64.of(WHOLE))),
        digits.set(this.#where((bytes) => v128.or(this.#from("0", 10, bytes), this.#from("a", 6, this.#small(bytes))))),
        digits.set(i64.and(before(digits.get, 1n), before(digits.get, 2n))),
        digits.set(i64.and(digits.get, before(digits.get, 2n))),
        stop(i64.and(units.get, not(digits.get))),
        units.set(i64.and(units.get, digits.get)),
        highs.set(
          this.#surrogates(units, (bytes) =>
            v128.or(this.#from("8", 2, bytes), this.#from("a", 2, this.#small(bytes))),
          ),
        ),
        lows.set(this.#surrogates(units, (bytes) => this.#from("c", 4, this.#small(bytes)))),
        // Of each pair its second; what is left of the others stands alone, or waits for a block that has both.
        digits.set(i64.and(lows.get, i64.shl(highs.get, i64.of(TO_PAIR)))),
        stop(i64.xor(lows.get, digits.get)),
        highs.set(i64.xor(highs.get, before(digits.get, TO_PAIR))),
        stop(i64.and(highs.get, i64.of(WHOLE_PAIR))),
        start(i64.and(highs.get, i64.of(~WHOLE_PAIR))),
      ),
    );
  }

  /** Of the units those that begin with `d` and a digit of this kind. */
  #surrogates(units: Local, second: (bytes: Code) => Code): Code {
    const first = this.#where((bytes) => this.#is("d", this.#small(bytes)));
    return i64.and(i64.and(units.get, before(first, 1n)), before(this.#where(second), 2n));
  }

  #mask(): Local {
    return this.#body.variable(I64);
  }

  /** The bytes of which the test is true. */
  #where(test: (bytes: Code) => Code): Code {
    return this.#block
      .map(({ get }, i) => i64.shl(i64.extend(v128.bitmask(test(get))), i64.of(BigInt(16 * i))))
      .reduce((all, part) => i64.or(all, part));
  }

  #anySpecial(): Code {
    const special = this.#block.map(({ get }) => v128.or(this.#is("\\", get), this.#isEnd(get)));
    return v128.any(special.reduce((all, part) => v128.or(all, part)));
  }

  #is(character: string, bytes: Code): Code {
    return v128.equal(bytes, this.#body.splat(character.charCodeAt(0)));
  }

  /** A quote or a control character. */
  #isEnd(bytes: Code): Code {
    return v128.or(this.#is('"', bytes), this.#atMost(LAST_CONTROL, bytes));
  }

  #atMost(byte: number, bytes: Code): Code {
    return v128.equal(v128.min(bytes, this.#body.splat(byte)), bytes);
  }

  /** One of so many characters, from this one on. */
  #from(first: string, count: number, bytes: Code): Code {
    return this.#atMost(count - 1, v128.sub(bytes, this.#body.splat(first.charCodeAt(0))));
  }

  #small(bytes: Code): Code {
    return v128.or(bytes, this.#body.splat(SMALL));
  }

  /** A letter of an escape of one letter: its halves of four bits have a bit in common, one for each upper half. */
  #isSimple(bytes: Code): Code {
    const [low, high] = [new Array<number>(16).fill(0), new Array<number>(16).fill(0)];
    for (const letter of Buffer.from('"\\/bfnrt')) {
      const bit = 1 << ((letter >> 4) - 2);
      low[letter & 15] = (low[letter & 15] ?? 0) | bit;
      high[letter >> 4] = bit;
    }
    const byLow = v128.swizzle(this.#body.vector(low), v128.and(bytes, this.#body.splat(15)));
    const byHigh = v128.swizzle(this.#body.vector(high), v128.shr(bytes, i32.of(4)));
    const common = v128.and(byLow, byHigh);
    return v128.equal(v128.min(common, this.#body.splat(1)), this.#body.splat(1));
  }
}

function lowest(bits: Code): Code {
  return i64.and(bits, i64.sub(i64.of(0n), bits));
}
