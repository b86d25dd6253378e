/**
 * The one JSON reader of the server: RFC 8259, strict, with every bound checked while reading.
 *
 * Why not JSON.parse: it keeps the last of two equal keys (two readers of one body then disagree), turns 1e999
 * into Infinity, recurses as deep as the text nests, and lets lone surrogates through, which no UTF-8 can carry.
 * Time and memory are linear in the input. Objects have no prototype hazard: `__proto__` is refused as a key.
 *
 * Callers: everybody who reads JSON that this process did not write. `stringifyJson` stands here for symmetry.
 */

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

export interface JsonLimits {
  /** Nesting of arrays and objects; 64 unless said. */
  readonly maxDepth?: number;
  /** Values in all; a container counts as 8 and a key as 8, after what they cost. 4,000,000 unless said. */
  readonly maxValues?: number;
}

/** `path` is dotted (`messages.0.content`), `offset` a character index into the text. */
export class JsonError extends Error {
  readonly path: string;
  readonly offset: number;
  constructor(reason: string, path: string, offset: number) {
    super(reason);
    this.name = "JsonError";
    this.path = path;
    this.offset = offset;
  }
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * @param input text, or UTF-8 bytes.
 * @throws JsonError
 */
export function parseJson(input: string | Uint8Array, limits: JsonLimits = {}): JsonValue {
  if (typeof input !== "string") return new Reader(decodeUtf8(input), limits).document();
  // Text from UTF-8 has no lone surrogate; other text is asked once, so that strings need no look each.
  if (!input.isWellFormed()) throw new JsonError("the text has a lone surrogate", "", 0);
  return new Reader(input, limits).document();
}

/** As parseJson; undefined: it is none that is taken. */
export function tryParseJson(input: string | Uint8Array, limits?: JsonLimits): JsonValue | undefined {
  try {
    return parseJson(input, limits);
  } catch (error) {
    if (error instanceof JsonError) return undefined;
    throw error;
  }
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new JsonError("the text is not valid UTF-8", "", 0);
  }
}

/** Text for the wire or a log. */
export function stringifyJson(value: unknown): string {
  return JSON.stringify(value);
}

// The characters that decide, as UTF-16 code units; String.prototype.charCodeAt gives NaN at the end.
const TAB = 0x09;
const LINE_FEED = 0x0a;
const RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DOT = 0x2e;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

// Sticky: both match at lastIndex only. No nested quantifiers, so linear.
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
/** What a container, and a key, take from `maxValues` besides the value's own 1. */
const HEAVY = 7;
/** Integers of up to this many digits are exact in a double, whatever the digits. */
const EXACT_DIGITS = 15;

class Reader {
  private readonly text: string;
  private readonly maxDepth: number;
  private valuesLeft: number;
  private at = 0;
  private depth = 0;
  /** The key or index at each open container; entries from `depth` on are left over. */
  private readonly path: (string | number)[] = [];

  constructor(text: string, limits: JsonLimits) {
    this.text = text;
    this.maxDepth = limits.maxDepth ?? 64;
    this.valuesLeft = limits.maxValues ?? 4_000_000;
  }

  document(): JsonValue {
    const value = this.value();
    if (!Number.isNaN(this.next())) this.fail("there is text after the value");
    return value;
  }

  private fail(reason: string): never {
    throw new JsonError(reason, this.path.slice(0, this.depth).join("."), this.at);
  }

  /** Skips white space; gives the code unit that stands then, NaN at the end. */
  private next(): number {
    for (;;) {
      const c = this.text.charCodeAt(this.at);
      if (c !== SPACE && c !== LINE_FEED && c !== RETURN && c !== TAB) return c;
      this.at++;
    }
  }

  private value(): JsonValue {
    if (--this.valuesLeft < 0) this.fail("the text holds too many values");
    const c = this.next();
    switch (c) {
      case QUOTE:
        return this.string();
      case OPEN_BRACE:
        return this.object();
      case OPEN_BRACKET:
        return this.array();
      case 0x74:
        return this.word("true", true);
      case 0x66:
        return this.word("false", false);
      case 0x6e:
        return this.word("null", null);
      default:
        return Number.isNaN(c) ? this.fail("the text ends where a value should stand") : this.number();
    }
  }

  private word<T>(spelling: string, value: T): T {
    if (!this.text.startsWith(spelling, this.at)) this.fail("this is not a JSON value");
    this.at += spelling.length;
    return value;
  }

  private number(): number {
    return this.plainInteger() ?? this.anyNumber();
  }

  /** The common case, without a regular expression: an optional minus and at most 15 digits. */
  private plainInteger(): number | undefined {
    const text = this.text;
    const negative = text.charCodeAt(this.at) === MINUS;
    const start = negative ? this.at + 1 : this.at;
    let at = start;
    let value = 0;
    let c = text.charCodeAt(at);
    while (c >= DIGIT_0 && c <= DIGIT_9 && at - start < EXACT_DIGITS) {
      value = value * 10 + (c - DIGIT_0);
      c = text.charCodeAt(++at);
    }
    const more = (c >= DIGIT_0 && c <= DIGIT_9) || c === DOT || c === 0x65 || c === 0x45;
    const leadingZero = at - start > 1 && text.charCodeAt(start) === DIGIT_0;
    if (at === start || more || leadingZero) return undefined;
    this.at = at;
    return negative ? -value : value;
  }

  private anyNumber(): number {
    NUMBER.lastIndex = this.at;
    const match = NUMBER.exec(this.text);
    if (match === null) return this.fail("this is not a JSON value");
    const value = Number(match[0]);
    if (!Number.isFinite(value)) this.fail("the number is out of range");
    this.at += match[0].length;
    return value;
  }

  private enter(): void {
    if (this.depth >= this.maxDepth) this.fail(`values nest deeper than ${this.maxDepth}`);
    this.valuesLeft -= HEAVY;
    this.at++;
  }

  private leave(): void {
    this.depth--;
    this.at++;
  }

  private array(): JsonValue[] {
    this.enter();
    const items: JsonValue[] = [];
    if (this.next() === CLOSE_BRACKET) {
      this.at++;
      return items;
    }
    this.depth++;
    for (;;) {
      this.path[this.depth - 1] = items.length;
      items.push(this.value());
      const c = this.next();
      if (c === CLOSE_BRACKET) break;
      if (c !== COMMA) this.fail("a comma or ] should stand here");
      this.at++;
    }
    this.leave();
    return items;
  }

  private object(): { [key: string]: JsonValue } {
    this.enter();
    const entries: { [key: string]: JsonValue } = {};
    if (this.next() === CLOSE_BRACE) {
      this.at++;
      return entries;
    }
    this.depth++;
    for (;;) {
      const key = this.key(entries);
      entries[key] = this.value();
      const c = this.next();
      if (c === CLOSE_BRACE) break;
      if (c !== COMMA) this.fail("a comma or } should stand here");
      this.at++;
    }
    this.leave();
    return entries;
  }

  private key(entries: object): string {
    this.path[this.depth - 1] = "";
    this.valuesLeft -= HEAVY + 1;
    if (this.next() !== QUOTE) this.fail("a key should stand here");
    const key = this.string();
    this.path[this.depth - 1] = key;
    if (key === "__proto__") this.fail("the key __proto__ is not allowed");
    if (Object.hasOwn(entries, key)) this.fail("the key stands twice in one object");
    if (this.next() !== COLON) this.fail("a colon should stand here");
    this.at++;
    return key;
  }

  private string(): string {
    this.at++;
    const start = this.at;
    this.plainRun();
    if (this.text.charCodeAt(this.at) !== QUOTE) return this.escapedString(start);
    this.at++;
    return this.text.slice(start, this.at - 1);
  }

  /**
   * A string with escapes, or a faulty one. The engine's own parser decodes the one token, several times faster
   * than we could (one string has none of the hazards above); where it refuses, `stringFault` says why.
   */
  private escapedString(start: number): string {
    const end = this.closingQuote();
    const token = this.text.slice(start - 1, end + 1);
    const value = end < 0 ? undefined : decodeString(token);
    if (value === undefined) return this.stringFault();
    if (!value.isWellFormed()) this.fail("a string has a lone surrogate");
    this.at = end + 1;
    return value;
  }

  /** The index of the quote that ends the string whose first backslash or fault stands at `at`; -1: none. */
  private closingQuote(): number {
    const text = this.text;
    for (let at = this.at; at < text.length; at++) {
      const c = text.charCodeAt(at);
      if (c === QUOTE) return at;
      if (c === BACKSLASH) at++;
    }
    return -1;
  }

  private stringFault(): never {
    for (;;) {
      this.plainRun();
      const c = this.text.charCodeAt(this.at);
      if (c !== BACKSLASH) break;
      ESCAPE.lastIndex = this.at;
      if (!ESCAPE.test(this.text)) this.fail("an unknown escape stands in a string");
      this.at = ESCAPE.lastIndex;
    }
    const ended = this.at >= this.text.length;
    return this.fail(ended ? "a string does not end" : "a control character stands in a string");
  }

  private plainRun(): void {
    const text = this.text;
    let at = this.at;
    for (;;) {
      const c = text.charCodeAt(at);
      // NaN at the end compares false with everything.
      if (!(c >= SPACE) || c === QUOTE || c === BACKSLASH) break;
      at++;
    }
    this.at = at;
  }
}

function decodeString(token: string): string | undefined {
  try {
    return JSON.parse(token) as string;
  } catch {
    return undefined;
  }
}
