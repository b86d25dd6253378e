/**
 * The one JSON reader of the server: RFC 8259, strict, with every bound checked while reading.
 *
 * Why not JSON.parse: it keeps the last of two equal keys (two readers of one body then disagree), turns 1e999
 * into Infinity, recurses as deep as the text nests, and lets lone surrogates through, which no UTF-8 can carry.
 * Time and memory are linear in the input. Objects have no prototype hazard: `__proto__` is refused as a key.
 *
 * Callers: everybody who reads JSON that this process did not write. `stringify` stands here for symmetry.
 */

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

export interface JsonLimits {
  /** Nesting of arrays and objects; 64 unless said. */
  readonly maxDepth?: number;
  /** Values in all, containers included; 4,000,000 unless said. */
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
  const reader = new Reader(typeof input === "string" ? input : decodeUtf8(input), limits);
  return reader.document();
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

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};
// Sticky: matches at lastIndex only. No nested quantifiers, so linear.
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const HEX4 = /[0-9a-fA-F]{4}/y;

class Reader {
  private readonly text: string;
  private readonly maxDepth: number;
  private valuesLeft: number;
  private at = 0;
  private readonly path: (string | number)[] = [];

  constructor(text: string, limits: JsonLimits) {
    this.text = text;
    this.maxDepth = limits.maxDepth ?? 64;
    this.valuesLeft = limits.maxValues ?? 4_000_000;
  }

  document(): JsonValue {
    const value = this.value();
    this.space();
    if (this.at < this.text.length) this.fail("there is text after the value");
    return value;
  }

  private fail(reason: string): never {
    throw new JsonError(reason, this.path.join("."), this.at);
  }

  private space(): void {
    for (;;) {
      const c = this.text.charCodeAt(this.at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
      this.at++;
    }
  }

  private value(): JsonValue {
    if (--this.valuesLeft < 0) this.fail("the text holds too many values");
    this.space();
    switch (this.text[this.at]) {
      case "{":
        return this.nested(() => this.object());
      case "[":
        return this.nested(() => this.array());
      case '"':
        return this.string();
      case "t":
        return this.word("true", true);
      case "f":
        return this.word("false", false);
      case "n":
        return this.word("null", null);
      case undefined:
        return this.fail("the text ends where a value should stand");
      default:
        return this.number();
    }
  }

  private nested<T>(read: () => T): T {
    if (this.path.length >= this.maxDepth) this.fail(`values nest deeper than ${this.maxDepth}`);
    this.at++;
    return read();
  }

  private word<T>(spelling: string, value: T): T {
    if (!this.text.startsWith(spelling, this.at)) this.fail("this is not a JSON value");
    this.at += spelling.length;
    return value;
  }

  private number(): number {
    NUMBER.lastIndex = this.at;
    const match = NUMBER.exec(this.text);
    if (match === null) return this.fail("this is not a JSON value");
    const value = Number(match[0]);
    if (!Number.isFinite(value)) this.fail("the number is out of range");
    this.at += match[0].length;
    return value;
  }

  private array(): JsonValue[] {
    const items: JsonValue[] = [];
    this.space();
    if (this.take("]")) return items;
    for (;;) {
      this.path.push(items.length);
      items.push(this.value());
      this.path.pop();
      this.space();
      if (this.take("]")) return items;
      if (!this.take(",")) this.fail("a comma or ] should stand here");
    }
  }

  private object(): { [key: string]: JsonValue } {
    const entries: { [key: string]: JsonValue } = {};
    this.space();
    if (this.take("}")) return entries;
    for (;;) {
      this.space();
      if (this.text[this.at] !== '"') this.fail("a key should stand here");
      const key = this.string();
      this.path.push(key);
      if (key === "__proto__") this.fail("the key __proto__ is not allowed");
      if (Object.hasOwn(entries, key)) this.fail("the key stands twice in one object");
      this.space();
      if (!this.take(":")) this.fail("a colon should stand here");
      entries[key] = this.value();
      this.path.pop();
      this.space();
      if (this.take("}")) return entries;
      if (!this.take(",")) this.fail("a comma or } should stand here");
    }
  }

  private take(c: string): boolean {
    if (this.text[this.at] !== c) return false;
    this.at++;
    return true;
  }

  private string(): string {
    this.at++;
    let out = "";
    for (;;) {
      const start = this.at;
      this.plainRun();
      out += this.text.slice(start, this.at);
      const c = this.text.charCodeAt(this.at);
      if (c === QUOTE) break;
      if (c !== BACKSLASH) this.fail(this.at >= this.text.length ? "a string does not end" : "a control character stands in a string");
      out += this.escape();
    }
    this.at++;
    if (!out.isWellFormed()) this.fail("a string has a lone surrogate");
    return out;
  }

  private plainRun(): void {
    const text = this.text;
    let at = this.at;
    for (;;) {
      const c = text.charCodeAt(at);
      // NaN at the end compares false with everything.
      if (!(c >= 0x20) || c === QUOTE || c === BACKSLASH) break;
      at++;
    }
    this.at = at;
  }

  private escape(): string {
    const c = this.text[this.at + 1] ?? "";
    const plain = ESCAPES[c];
    if (plain !== undefined) {
      this.at += 2;
      return plain;
    }
    if (c !== "u") this.fail("an unknown escape stands in a string");
    HEX4.lastIndex = this.at + 2;
    const match = HEX4.exec(this.text);
    if (match === null) return this.fail("a \\u escape has four hex digits");
    this.at += 6;
    return String.fromCharCode(Number.parseInt(match[0], 16));
  }
}
