/**
 * Grammars written by clients: GBNF (llama.cpp) and the EBNF that vLLM's backends take, which is the same language:
 * `name ::= "text" [a-z] (…) | other*`, with `#` comments, {m,n}, and `root` as the start.
 *
 * Called by compile.ts.
 */
import { choice, type Expr, GrammarError, literal, repeat, rule, sequence } from "./builder.ts";
import { ANY, complement, normal, type Ranges } from "./chars.ts";

const MAX_SOURCE = 128 * 1024;
const MAX_DEPTH = 64;
const MAX_REPEAT = 2000;
const NAME = /[A-Za-z_][A-Za-z0-9_-]*/y;
const BLANK = /(?:[ \t\r\n]|#[^\n]*)*/y;

/** @throws GrammarError with the line where reading stopped */
export function ebnfRules(source: string): Map<string, Expr> {
  if (source.length > MAX_SOURCE) throw new GrammarError(`the grammar has more than ${MAX_SOURCE} characters`);
  if (/^\s*start\s*:/m.test(source) && !source.includes("::="))
    throw new GrammarError("Lark grammars are not supported; write name ::= … with a rule named root");
  const rules = new Reader(source).rules();
  if (!rules.has("root")) throw new GrammarError("the grammar has no rule named root");
  return rules;
}

class Reader {
  private readonly source: string;
  private at = 0;
  private depth = 0;

  constructor(source: string) {
    this.source = source;
  }

  rules(): Map<string, Expr> {
    const rules = new Map<string, Expr>();
    for (this.blank(); this.at < this.source.length; this.blank()) {
      const name = this.name() ?? this.fail("a rule's name is missing");
      this.expect("::=");
      if (rules.has(name)) this.fail(`rule ${name} is there twice`);
      rules.set(name, this.alternatives());
    }
    return rules;
  }

  private alternatives(): Expr {
    if (++this.depth > MAX_DEPTH) this.fail(`the grammar is nested more than ${MAX_DEPTH} deep`);
    const options = [this.sequence()];
    while (this.take("|")) options.push(this.sequence());
    this.depth--;
    return options.length === 1 ? (options[0] as Expr) : choice(...options);
  }

  private sequence(): Expr {
    const parts: Expr[] = [];
    for (let part = this.item(); part !== undefined; part = this.item()) parts.push(this.repeated(part));
    return parts.length === 1 ? (parts[0] as Expr) : sequence(...parts);
  }

  private item(): Expr | undefined {
    this.blank();
    const char = this.source[this.at];
    if (char === '"') return literal(this.text());
    if (char === "[") return { kind: "chars", ranges: this.set() };
    if (this.take(".")) return { kind: "chars", ranges: ANY };
    if (this.take("(")) {
      const inner = this.alternatives();
      this.expect(")");
      return inner;
    }
    const before = this.at;
    const name = this.name();
    this.blank();
    // The name of the next rule is no part of this one.
    if (name !== undefined && this.source.startsWith("::=", this.at)) {
      this.at = before;
      return undefined;
    }
    return name === undefined ? undefined : rule(name);
  }

  private repeated(part: Expr): Expr {
    let out = part;
    for (;;) {
      if (this.take("*")) out = repeat(out, 0);
      else if (this.take("+")) out = repeat(out, 1);
      else if (this.take("?")) out = repeat(out, 0, 1);
      else if (this.take("{")) out = this.counted(out);
      else return out;
    }
  }

  private counted(part: Expr): Expr {
    const found = this.match(/(\d{1,6})\s*(,\s*(\d{1,6})?)?\s*\}/y) ?? this.fail("a repetition is {m}, {m,} or {m,n}");
    const min = Number(found[1]);
    const max = found[2] === undefined ? min : found[3] === undefined ? undefined : Number(found[3]);
    if (Math.max(min, max ?? 0) > MAX_REPEAT) this.fail(`a repetition goes beyond ${MAX_REPEAT}`);
    if (max !== undefined && max < min) this.fail("a repetition ends before it begins");
    return repeat(part, min, max);
  }

  private text(): string {
    this.at++;
    let out = "";
    while (this.source[this.at] !== '"') out += this.char('"');
    this.at++;
    return out;
  }

  private set(): Ranges {
    this.at++;
    const negated = this.takeHere("^");
    const ranges: [number, number][] = [];
    while (this.source[this.at] !== "]") {
      const low = this.char("]").codePointAt(0) as number;
      let high = low;
      if (this.source[this.at] === "-" && this.source[this.at + 1] !== "]") {
        this.at++;
        high = this.char("]").codePointAt(0) as number;
      }
      if (high < low) this.fail("a range of characters ends before it begins");
      ranges.push([low, high]);
    }
    this.at++;
    return negated ? complement(normal(ranges)) : normal(ranges);
  }

  /** One character of a text or a set, escapes read. */
  private char(closing: string): string {
    const found =
      this.match(/\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([nrt"'\\[\]^-]))/y) ??
      this.match(/[^\\\n]/uy) ??
      this.fail(`${closing} is missing, or an escape is not known`);
    const [all, ...codes] = found;
    const short = codes[3];
    if (short !== undefined) return { n: "\n", r: "\r", t: "\t" }[short] ?? short;
    const code = codes.find((one) => one !== undefined);
    if (code === undefined) return all;
    const point = Number.parseInt(code, 16);
    if (point > 0x10_ffff || (point >= 0xd800 && point <= 0xdfff)) this.fail("an escape is no character");
    return String.fromCodePoint(point);
  }

  private name(): string | undefined {
    return this.match(NAME)?.[0];
  }

  private blank(): void {
    this.match(BLANK);
  }

  private take(sign: string): boolean {
    this.blank();
    return this.takeHere(sign);
  }

  private takeHere(sign: string): boolean {
    if (!this.source.startsWith(sign, this.at)) return false;
    this.at += sign.length;
    return true;
  }

  private expect(sign: string): void {
    if (!this.take(sign)) this.fail(`${sign} is missing`);
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.source);
    if (found !== null) this.at += found[0].length;
    return found;
  }

  private fail(message: string): never {
    const line = this.source.slice(0, this.at).split("\n").length;
    throw new GrammarError(`the grammar cannot be read: ${message} (line ${line})`);
  }
}
