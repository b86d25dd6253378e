/**
 * Strings, numbers and words of a JSON text, passed over in its bytes. The tokens of json-scan.ts, which says what is
 * refused here and what is not.
 */
import { ESCAPED, PLACE, StringStops, WIDE } from "./_json-simd.ts";
import { JsonError } from "./json.ts";

export const SPACE = 0x20;
export const QUOTE = 0x22;
export const COMMA = 0x2c;
export const MINUS = 0x2d;
const DOT = 0x2e;
export const DIGIT_0 = 0x30;
export const DIGIT_9 = 0x39;
export const COLON = 0x3a;
export const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
export const CLOSE_BRACKET = 0x5d;
export const OPEN_BRACE = 0x7b;
export const CLOSE_BRACE = 0x7d;

/** Bytes of a string that are looked at one by one before another way is worth its call. */
const NEAR = 24;
/** Digits that are in a double's range whatever they are. */
export const SAFE_DIGITS = 300;
/** The escapes of one letter. */
const SIMPLE = new Uint8Array(256);
for (const letter of '"\\/bfnrt') SIMPLE[letter.charCodeAt(0)] = 1;

/** What a string holds that is neither its end nor an escape, nor refused. */
const PLAIN = new Uint8Array(256).fill(1, SPACE);
PLAIN[QUOTE] = 0;
PLAIN[BACKSLASH] = 0;

/** Made for the first long string; null: not yet. */
let shared: StringStops | undefined | null = null;

const NO_BYTES = Buffer.alloc(0);

/** The least byte that is not ASCII. */
const NOT_ASCII = 0x80;

/**
 * Whoever reads on stands at a token's first byte. One reads at a time: they share a window.
 *
 * Invariant: where `wide` is false all strings that were passed are ASCII; else nobody has looked yet whether they are UTF-8.
 */
export class JsonTokens {
  protected bytes: Buffer = NO_BYTES;
  protected at = 0;
  /** Of the string that was passed last: it has an escape. */
  protected escaped = false;
  /** A byte of a string may not be ASCII. */
  protected wide = false;
  /** For failures: the member that is being read. */
  protected name = "";
  private vectors = true;
  // Where in the bytes the window lies.
  private windowFrom = 0;
  private windowTo = 0;

  /** @param vectors false: without vector instructions, where there are some */
  protected read(bytes: Buffer, vectors: boolean): void {
    this.bytes = bytes;
    this.vectors = vectors;
    this.at = 0;
    this.wide = false;
    this.name = "";
    this.windowFrom = 0;
    this.windowTo = 0;
  }

  /** The bytes are another's again. */
  protected leave(): void {
    this.bytes = NO_BYTES;
  }

  protected fail(reason: string): never {
    throw new JsonError(reason, this.name, this.at);
  }

  /** Skips white space; gives the byte that stands then, -1 at the end. */
  protected next(): number {
    const bytes = this.bytes;
    for (let at = this.at; ; at++) {
      const c = bytes[at];
      if (c === SPACE || c === 0x0a || c === 0x0d || c === 0x09) continue;
      this.at = at;
      return c ?? -1;
    }
  }

  protected word(spelling: string): void {
    for (let i = 1; i < spelling.length; i++)
      if (this.bytes[this.at + i] !== spelling.charCodeAt(i)) this.fail("this is not a JSON value");
    this.at += spelling.length;
  }

  protected string(): void {
    const bytes = this.bytes;
    let at = this.at + 1;
    let all = 0;
    this.escaped = false;
    for (const near = at + NEAR; at < near; at++) {
      const c = bytes[at];
      if (c === QUOTE) {
        this.at = at + 1;
        if (all >= NOT_ASCII) this.wide = true;
        return;
      }
      if (c === BACKSLASH || c === undefined) break;
      if (c < SPACE) this.controlAt(at);
      all |= c;
    }
    if (all >= NOT_ASCII) this.wide = true;
    this.longString(at);
  }

  /** From a place within a string, and not within an escape. */
  private longString(from: number): void {
    if (shared === null) shared = StringStops.make();
    const stops = shared;
    if (stops === undefined || !this.vectors) {
      this.byBytes(from);
      return;
    }
    const { bytes } = this;
    for (let at = from; ; ) {
      if (at >= this.windowTo) {
        this.windowFrom = at;
        this.windowTo = Math.min(at + StringStops.WINDOW, bytes.length);
        stops.load(bytes, at, this.windowTo);
      }
      const stop = stops.stop(at - this.windowFrom);
      if ((stop & ESCAPED) !== 0) this.escaped = true;
      if ((stop & WIDE) !== 0) this.wide = true;
      at = this.windowFrom + (stop >> PLACE);
      const c = bytes[at];
      if (c === QUOTE) {
        this.at = at + 1;
        return;
      }
      if (c === BACKSLASH) at = this.escape(at);
      else if (c === undefined) this.unended();
      else if (c < SPACE) this.controlAt(at);
    }
  }

  /** The same without vectors. */
  private byBytes(from: number): void {
    const { bytes } = this;
    this.wide = true;
    for (let at = from; ; ) {
      while (PLAIN[bytes[at] ?? 0] === 1) at++;
      const c = bytes[at];
      if (c === QUOTE) {
        this.at = at + 1;
        return;
      }
      if (c === BACKSLASH) at = this.escape(at);
      else if (c === undefined) this.unended();
      else this.controlAt(at);
    }
  }

  private controlAt(at: number): never {
    this.at = at;
    this.fail("a control character stands in a string");
  }

  private unended(): never {
    this.at = this.bytes.length;
    this.fail("a string does not end");
  }

  /** @param at of the backslash @returns behind the escape */
  private escape(at: number): number {
    this.escaped = true;
    const c = this.bytes[at + 1];
    if (c === undefined) this.unended();
    if (SIMPLE[c] === 1) return at + 2;
    this.at = at;
    if (c !== 0x75) this.fail("an unknown escape stands in a string");
    const unit = this.hex(at + 2);
    if (unit < 0xd800 || unit > 0xdfff) return at + 6;
    const pair = this.bytes[at + 6] === BACKSLASH && this.bytes[at + 7] === 0x75 ? this.hex(at + 8) : 0;
    if (unit > 0xdbff || pair < 0xdc00 || pair > 0xdfff) this.fail("a string has a lone surrogate");
    return at + 12;
  }

  /** @returns the code unit that four digits at this place are */
  private hex(from: number): number {
    let unit = 0;
    for (let at = from; at < from + 4; at++) {
      const c = this.bytes[at] ?? 0;
      const digit = c <= DIGIT_9 ? c - DIGIT_0 : (c | 0x20) - 0x57;
      if (digit < 0 || digit > 15 || (digit < 10 && c > DIGIT_9)) this.fail("an unknown escape stands in a string");
      unit = unit * 16 + digit;
    }
    return unit;
  }

  protected number(): void {
    const bytes = this.bytes;
    const from = this.at;
    let at = bytes[from] === MINUS ? from + 1 : from;
    const leading = at;
    at = this.digits(at);
    if (bytes[leading] === DIGIT_0 && at > leading + 1) this.fail("this is not a JSON value");
    const c = bytes[at];
    if (c !== DOT && c !== 0x65 && c !== 0x45) {
      if (at - leading > SAFE_DIGITS) this.inRange(from, at);
      this.at = at;
      return;
    }
    const whole = at - leading;
    if (c === DOT) at = this.digits(at + 1);
    const exponent = bytes[at] === 0x65 || bytes[at] === 0x45;
    if (exponent) {
      at++;
      if (bytes[at] === MINUS || bytes[at] === 0x2b) at++;
      at = this.digits(at);
    }
    if (exponent || whole > SAFE_DIGITS) this.inRange(from, at);
    this.at = at;
  }

  /** One or more. */
  private digits(from: number): number {
    const bytes = this.bytes;
    let at = from;
    for (; ; at++) {
      const c = bytes[at];
      if (c === undefined || c < DIGIT_0 || c > DIGIT_9) break;
    }
    if (at === from) this.fail("this is not a JSON value");
    return at;
  }

  private inRange(from: number, to: number): void {
    if (!Number.isFinite(Number(this.bytes.toString("latin1", from, to)))) this.fail("the number is out of range");
  }
}
