/**
 * Python literals as JSON, read by hand: no text is ever evaluated (Wall: T88).
 *
 * Strings (also raw, triple-quoted and adjacent ones), numbers, True, False, None, lists, tuples, dicts with constant keys.
 * Everything else is refused: names, calls, operators, f-strings, bytes, sets. JSON's own true, false and null are taken,
 * because models write them. Each character is read once; nesting is bounded. Called by the families.
 */

const DEEPEST = 64;
const REFUSED = Symbol("refused");

/** JSON of the literal that is the whole text; undefined: it is none. */
export function pythonToJson(text: string): string | undefined {
  return attempt(() => {
    const reader = new Reader(text);
    const json = reader.value(0);
    return reader.atEnd() ? json : undefined;
  });
}

/** JSON of keyword arguments, `a=1, b="x"`; undefined: they are none. */
export function keywordsToJson(text: string): string | undefined {
  return attempt(() => new Reader(text).keywords());
}

function attempt(read: () => string | undefined): string | undefined {
  try {
    return read();
  } catch (error) {
    if (error === REFUSED) return undefined;
    throw error;
  }
}

const WORDS = new Map([
  ["True", "true"],
  ["False", "false"],
  ["None", "null"],
  ["true", "true"],
  ["false", "false"],
  ["null", "null"],
]);
const ESCAPES = new Map([
  ["\n", ""],
  ["\\", "\\"],
  ["'", "'"],
  ['"', '"'],
  ["a", "\x07"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["v", "\v"],
]);
const SPACE = /\s*/y;
const WORD = /[A-Za-z_]\w*/y;
const NUMBER = /[+-]?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)/y;
const PREFIX = /[rRuU]?(?=["'])/y;
const QUOTE = /(?:"""|'''|"|')/y;
const CODES = /x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|([0-7]{1,3})/y;

class Reader {
  private readonly text: string;
  private at = 0;
  /** Whether the last run of items ended with a comma. */
  private trailing = false;

  constructor(text: string) {
    this.text = text;
  }

  atEnd(): boolean {
    this.take(SPACE);
    return this.at === this.text.length;
  }

  keywords(): string {
    const members: string[] = [];
    while (!this.atEnd()) {
      const name = this.take(WORD) ?? refuse();
      this.expect("=");
      members.push(`${JSON.stringify(name)}: ${this.value(0)}`);
      if (!this.skip(",") && !this.atEnd()) refuse();
    }
    return `{${members.join(", ")}}`;
  }

  value(depth: number): string {
    if (depth > DEEPEST) refuse();
    this.take(SPACE);
    const c = this.text[this.at];
    if (c === "[") return `[${this.items("[", "]", () => this.value(depth + 1)).join(", ")}]`;
    if (c === "(") return this.tuple(depth);
    if (c === "{") return `{${this.items("{", "}", () => this.member(depth)).join(", ")}}`;
    const text = this.string();
    return text === undefined ? this.plain() : JSON.stringify(text);
  }

  private items(open: string, close: string, item: () => string): string[] {
    this.expect(open);
    const items: string[] = [];
    let more = true;
    while (more && !this.skip(close)) {
      items.push(item());
      more = this.skip(",");
      if (!more) this.expect(close);
    }
    this.trailing = more;
    return items;
  }

  /** Brackets around one value without a comma are brackets and no tuple. */
  private tuple(depth: number): string {
    const items = this.items("(", ")", () => this.value(depth + 1));
    const [only] = items;
    return only !== undefined && items.length === 1 && !this.trailing ? only : `[${items.join(", ")}]`;
  }

  private member(depth: number): string {
    this.take(SPACE);
    const key = this.string() ?? this.plain();
    this.expect(":");
    return `${JSON.stringify(key)}: ${this.value(depth + 1)}`;
  }

  private plain(): string {
    const word = this.take(WORD);
    if (word !== undefined) return WORDS.get(word) ?? refuse();
    return numberToJson(this.take(NUMBER) ?? refuse());
  }

  /** One string, or several side by side. */
  private string(): string | undefined {
    let text: string | undefined;
    for (;;) {
      const part = this.oneString();
      if (part === undefined) return text;
      text = (text ?? "") + part;
      this.take(SPACE);
    }
  }

  private oneString(): string | undefined {
    const raw = (this.take(PREFIX) ?? "").toLowerCase() === "r";
    const quote = this.take(QUOTE);
    return quote === undefined ? undefined : this.untilQuote(quote, raw);
  }

  private untilQuote(quote: string, raw: boolean): string {
    const parts: string[] = [];
    let from = this.at;
    for (; this.at < this.text.length; this.at++) {
      if (this.text.startsWith(quote, this.at)) {
        parts.push(this.text.slice(from, this.at));
        this.at += quote.length;
        return parts.join("");
      }
      if (this.text[this.at] !== "\\") continue;
      if (raw) this.at++;
      else {
        parts.push(this.text.slice(from, this.at), this.escape());
        from = this.at--;
      }
    }
    return refuse();
  }

  /** Behind it when it returns. An escape that Python does not know is what it looks like. */
  private escape(): string {
    this.at++;
    const codes = this.match(CODES);
    if (codes !== undefined) {
      this.at += codes[0].length;
      const hex = codes[1] ?? codes[2] ?? codes[3];
      return String.fromCodePoint(hex === undefined ? Number.parseInt(codes[4] ?? "0", 8) : Number.parseInt(hex, 16));
    }
    const c = this.text[this.at];
    if (c === undefined) refuse();
    this.at++;
    return ESCAPES.get(c) ?? `\\${c}`;
  }

  private skip(literal: string): boolean {
    this.take(SPACE);
    if (!this.text.startsWith(literal, this.at)) return false;
    this.at += literal.length;
    return true;
  }

  private expect(literal: string): void {
    if (!this.skip(literal)) refuse();
  }

  private take(pattern: RegExp): string | undefined {
    const match = this.match(pattern);
    this.at += match?.[0].length ?? 0;
    return match?.[0];
  }

  private match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text) ?? undefined;
  }
}

/** Whole numbers keep all their digits. */
function numberToJson(text: string): string {
  const digits = text.replaceAll("_", "").replace(/^\+/, "");
  if (/^-?\d+$/.test(digits)) return digits.replace(/^(-?)0+(?=\d)/, "$1");
  const sign = digits.startsWith("-") ? "-" : "";
  if (/^-?0[xXoObB]/.test(digits)) return sign + BigInt(digits.slice(sign.length)).toString();
  const value = Number(digits);
  return Number.isFinite(value) ? JSON.stringify(value) : refuse();
}

function refuse(): never {
  throw REFUSED;
}
