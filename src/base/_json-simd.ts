/**
 * The place within a JSON string where somebody has to look: its end, or what is refused. Sixty-four bytes at a time, by
 * vector instructions of WebAssembly, so that neither a plain byte nor an escape costs a branch.
 *
 * Contract: `stop(at)`, with `at` in the window and not within an escape, answers `place << PLACE`, with ESCAPED where
 * escapes were passed, and WIDE where bytes were that are not ASCII: between `at` and there, or in the block behind. At the
 * place stands the closing quote; a control character; the backslash of an escape that is none, is half of a surrogate
 * pair, or does not end in the window; or the window ends. Between `at` and there all is as a JSON string may be; whether
 * what is not ASCII is UTF-8 is another's to say.
 *
 * Two loops. Easy blocks, which most text consists of, have no escapes but the usual ones of one letter, so that whatever
 * follows a backslash is the letter of an escape: nothing but vectors is needed. That loop stands here twice: at first a byte
 * that is not ASCII ends it as a quote does, which costs nothing, and behind one it does not. A block with anything else
 * goes to the other loop, whose method is simdjson's (Langdale and Lemire, Parsing Gigabytes of JSON per Second, 2019):
 * masks with a bit for each byte, and which backslashes begin an escape found by a subtraction. In place of a carry from
 * block to block, a block begins there at the escape that did not end in the one before. Private to base: _json-tokens.ts.
 */
import { ByteTests, ENDS, ENDS_OR_WIDE, type Order } from "./_byte-tests.ts";
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
  repeated,
  V128,
  v128,
  when,
} from "./_wasm.ts";

/** Zeros before the window's content, so that each byte of it has one before itself. */
const LEAD = 64;
/** Zeros behind the content, which a block may reach: they stand in no string, so that it stops there. */
const STOPPERS = 64;
const PAGES = 1;

/** What is used of the global, which only a browser's types have; there is none without a compiler (`--jitless`). */
declare const WebAssembly:
  | {
      readonly Module: new (bytes: Uint8Array) => object;
      readonly Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> };
    }
  | undefined;

/** What `stop` answers, beside the place. */
export const ESCAPED = 1;
const WIDE_BIT = 1;
export const WIDE = 1 << WIDE_BIT;
export const PLACE = 2;

export class StringStops {
  /** Bytes that it holds at most. */
  static readonly WINDOW = 64 * 1024 - LEAD - STOPPERS;
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
    bytes.copy(this.#window, LEAD, from, to);
    this.#window.fill(0, LEAD + to - from, LEAD + to - from + STOPPERS);
  }
}

/** Bytes that are looked at in one step. */
const BLOCK = 64;
const BACKSLASH = 0x5c;
/** Digits behind a `u`. */
const DIGITS = 4n;
/** From the `u` of a surrogate to that of its pair. */
const TO_PAIR = 6n;
const ODD_BITS = 0xaaaa_aaaa_aaaa_aaaan;
const LAST_BIT = 1n << 63n;
/** Places of a `u` whose digits lie in the block, and of one whose pair does. */
const WHOLE = (1n << (64n - DIGITS)) - 1n;
const WHOLE_PAIR = (1n << (64n - DIGITS - TO_PAIR)) - 1n;
/** Letters of the escapes of one letter. */
const LETTERS = '"\\/bfnrt';
/** Those of easy blocks: a second backslash would not begin an escape, and `b` is met nowhere. */
const EASY_LETTERS = '"/fnrt';

const not = (value: Code): Code => i64.xor(value, i64.of(-1n));
const nonZero = (value: Code): Code => i64.differ(value, i64.of(0n));
/** Bits of the places that lie so many before. */
const before = (bits: Code, places: bigint): Code => i64.shr(bits, i64.of(places));
const anyOf = (vectors: readonly Code[]): Code => vectors.reduce((all, one) => v128.or(all, one));

/** The module whose `run` is `stop`. Masks have a bit for each byte of the block, the lowest for the first. */
class StopsModule {
  readonly #body = new FunctionBody(I32);
  readonly #is = new ByteTests(this.#body);
  readonly #at = this.#body.param(0);
  readonly #block = this.#vectors();
  /** Escapes that were passed. */
  readonly #passed = this.#mask();
  /** Bytes behind a backslash that begins an escape. */
  readonly #letters = this.#mask();
  /** Where it stops. */
  readonly #stops = this.#mask();
  /** Where the next block begins, as an escape does not end in this one. */
  readonly #starts = this.#mask();
  /** What makes the block another than an easy one, its end aside. */
  readonly #hard = this.#mask();
  /** The highest bit of a byte: one was not ASCII. */
  readonly #wide = this.#body.variable(V128);

  bytes(): Uint8Array<ArrayBuffer> {
    const whole = loop(
      // A backslash is that of an escape that has been passed: it says nothing of the byte behind it.
      when(
        i32.differ(this.#byteBefore(), i32.of(BACKSLASH)),
        when(i32.isZero(v128.bitmask(this.#wide.get)), this.#easyBlocks(ENDS_OR_WIDE)),
        when(v128.bitmask(this.#wide.get), this.#easyBlocks(ENDS)),
      ),
      this.#hardBlocks(),
    );
    return moduleOf(this.#body, whole, PAGES);
  }

  /** Goes on to the first block that is not easy, or that holds one of the first of the order, where it is met again. */
  #easyBlocks(order: Order): Code {
    const [escaped, bytes, bad] = [this.#vectors(), this.#body.variable(V128), this.#body.variable(V128)];
    const [is, at, passed] = [this.#is, this.#at, this.#passed];
    // That a block had escapes, and where the latest of those blocks begins.
    const [found, latest] = [this.#mask(), this.#body.variable(I32)];
    const loaded = (i: number, back = 0): Code => v128.load(at.get, LEAD + 16 * i - back);
    const least = escaped.map(({ get }, i) => v128.or(get, is.ordered(order, loaded(i))));
    // Loaded anew, as V8 has not the registers to keep them.
    const strange = escaped.map(({ get }, i) =>
      block(bytes.set(loaded(i)), v128.without(get, is.oneOf(EASY_LETTERS, bytes.get))),
    );
    return block(
      repeated(
        i32.isZero(v128.any(bad.get)),
        ...escaped.map((letters, i) => letters.set(is.equal("\\", loaded(i, 1)))),
        bad.set(least.reduce((all, one) => v128.min(all, one))),
        bad.set(is.first(order, bad.get)),
        when(
          v128.any(anyOf(escaped.map(({ get }) => get))),
          passed.set(i64.or(passed.get, found.get)),
          found.set(i64.of(1n)),
          latest.set(at.get),
          bad.set(v128.or(bad.get, anyOf(strange))),
        ),
        at.set(i32.add(at.get, i32.of(BLOCK))),
      ),
      at.set(i32.sub(at.get, i32.of(BLOCK))),
      // Those of the last block are told by the other loop, as they may stand behind the end.
      when(i32.differ(latest.get, at.get), passed.set(i64.or(passed.get, found.get))),
      // The escape that does not end in the block before.
      at.set(i32.sub(at.get, i32.equal(this.#byteBefore(), i32.of(BACKSLASH)))),
    );
  }

  /** One block, and those behind it as long as they are hard; answers where one of them stops. */
  #hardBlocks(): Code {
    const [at, passed, letters, stops, starts] = [this.#at, this.#passed, this.#letters, this.#stops, this.#starts];
    const [backslashes, escapes, first] = [this.#mask(), this.#mask(), this.#mask()];
    return repeated(
      nonZero(this.#hard.get),
      ...this.#block.map((bytes, i) => bytes.set(v128.load(at.get, LEAD + 16 * i))),
      this.#wide.set(v128.or(this.#wide.get, anyOf(this.#block.map(({ get }) => get)))),
      backslashes.set(this.#where((bytes) => this.#is.equal("\\", bytes))),
      // Of a run of backslashes every other one begins an escape. The subtraction carries through a run: against the
      // odd places it leaves the first, third … of each, and the byte behind a run of odd length.
      letters.set(i64.sub(i64.or(i64.shl(backslashes.get, i64.of(1n)), i64.of(ODD_BITS)), backslashes.get)),
      letters.set(i64.xor(letters.get, i64.of(ODD_BITS))),
      escapes.set(i64.and(letters.get, backslashes.get)),
      letters.set(i64.xor(letters.get, backslashes.get)),
      stops.set(this.#where((bytes) => this.#is.end(bytes))),
      stops.set(i64.and(stops.get, not(letters.get))),
      starts.set(i64.and(escapes.get, i64.of(LAST_BIT))),
      this.#hard.set(i64.and(letters.get, backslashes.get)),
      when(nonZero(letters.get), this.#judgedEscapes()),
      first.set(i64.or(stops.get, starts.get)),
      when(
        nonZero(first.get),
        at.set(i32.add(at.get, i32.wrap(i64.ctz(first.get)))),
        first.set(lowest(first.get)),
        passed.set(i64.or(passed.get, i64.and(escapes.get, i64.sub(first.get, i64.of(1n))))),
        // From the escape that does not end here: to this loop's start, or to the outer one's.
        when(i64.isZero(i64.and(first.get, stops.get)), when(nonZero(this.#hard.get), again(3)), again(3)),
        answer(i32.or(i32.or(i32.shl(at.get, i32.of(PLACE)), this.#wasWide()), nonZero(passed.get))),
      ),
      passed.set(i64.or(passed.get, escapes.get)),
      at.set(i32.add(at.get, i32.of(BLOCK))),
    );
  }

  /** Adds to where it stops and starts the backslashes of escapes that are none, or not all here. */
  #judgedEscapes(): Code {
    const [others, units, digits, highs, lows] = [this.#mask(), this.#mask(), this.#mask(), this.#mask(), this.#mask()];
    const is = this.#is;
    const stop = (letters: Code): Code => this.#stops.set(i64.or(this.#stops.get, before(letters, 1n)));
    const start = (letters: Code): Code => this.#starts.set(i64.or(this.#starts.get, before(letters, 1n)));
    return block(
      others.set(i64.and(this.#letters.get, not(this.#where((bytes) => is.oneOf(LETTERS, bytes))))),
      when(
        nonZero(others.get),
        this.#hard.set(others.get),
        units.set(this.#where((bytes) => is.equal("u", bytes))),
        units.set(i64.and(others.get, units.get)),
        stop(i64.xor(others.get, units.get)),
        start(i64.and(units.get, i64.of(~WHOLE))),
        units.set(i64.and(units.get, i64.of(WHOLE))),
        digits.set(this.#where((bytes) => v128.or(is.from("0", 10, bytes), is.from("a", 6, is.small(bytes))))),
        digits.set(i64.and(before(digits.get, 1n), before(digits.get, 2n))),
        digits.set(i64.and(digits.get, before(digits.get, 2n))),
        stop(i64.and(units.get, not(digits.get))),
        units.set(i64.and(units.get, digits.get)),
        highs.set(
          this.#surrogates(units, (bytes) => v128.or(is.from("8", 2, bytes), is.from("a", 2, is.small(bytes)))),
        ),
        lows.set(this.#surrogates(units, (bytes) => is.from("c", 4, is.small(bytes)))),
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
    const first = this.#where((bytes) => this.#is.equal("d", this.#is.small(bytes)));
    return i64.and(i64.and(units.get, before(first, 1n)), before(this.#where(second), 2n));
  }

  #wasWide(): Code {
    return i32.shl(i32.differ(v128.bitmask(this.#wide.get), i32.of(0)), i32.of(WIDE_BIT));
  }

  #byteBefore(): Code {
    return i32.load8(this.#at.get, LEAD - 1);
  }

  #mask(): Local {
    return this.#body.variable(I64);
  }

  #vectors(): Local[] {
    return [0, 1, 2, 3].map(() => this.#body.variable(V128));
  }

  /** The bytes of which the test is true. */
  #where(test: (bytes: Code) => Code): Code {
    return this.#block
      .map(({ get }, i) => i64.shl(i64.extend(v128.bitmask(test(get))), i64.of(BigInt(16 * i))))
      .reduce((all, part) => i64.or(all, part));
  }
}

function lowest(bits: Code): Code {
  return i64.and(bits, i64.sub(i64.of(0n), bits));
}
