/**
 * A regular expression (ECMA-262, flag u) as an expression over characters. What is no regular language is refused by
 * name: look-around, back references, word borders, and anchors in the middle.
 *
 * The text is matched as a whole where `anchored`; as JSON Schema has it (a match anywhere), `^` and `$` at the ends say
 * where it stands and what is around it is free. Called by schema.ts and compile.ts.
 */
import { type AST, RegExpParser } from "@eslint-community/regexpp";
import { choice, EMPTY, type Expr, GrammarError, repeat, sequence } from "./builder.ts";
import { ANY, complement, normal, type Ranges, without } from "./chars.ts";

const MAX_SOURCE = 8192;
const MAX_REPEAT = 1000;
const MAX_NESTING = 100;
const LINE_ENDS: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const SPACES: Ranges = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const DIGITS: Ranges = [[0x30, 0x39]];
const WORDS: Ranges = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];

export interface RegexOptions {
  /** The whole text has to match; else a part of it, unless `^` and `$` say otherwise. */
  readonly anchored: boolean;
  /** How a set of characters is written where the match stands (in a JSON string some are escaped). */
  readonly write: (ranges: Ranges) => Expr;
}

/** @throws GrammarError */
export function compileRegex(source: string, options: RegexOptions): Expr {
  if (source.length > MAX_SOURCE)
    throw new GrammarError(`the regular expression has more than ${MAX_SOURCE} characters`);
  const { alternatives } = parse(source);
  const free = options.anchored ? EMPTY : repeat(options.write(ANY), 0);
  const compiler = new Compiler(options);
  return choice(
    ...alternatives.map(({ elements }) => {
      const start = isEdge(elements[0], "start");
      const end = isEdge(elements[elements.length - 1], "end");
      const inner = elements.slice(start ? 1 : 0, end ? elements.length - 1 : undefined);
      return sequence(start ? EMPTY : free, compiler.elements(inner), end ? EMPTY : free);
    }),
  );
}

function parse(source: string): AST.Pattern {
  try {
    return new RegExpParser({ ecmaVersion: 2025 }).parsePattern(source, 0, source.length, { unicode: true });
  } catch (error) {
    throw new GrammarError(`the regular expression cannot be read: ${(error as Error).message}`);
  }
}

function isEdge(element: AST.Element | undefined, kind: "start" | "end"): boolean {
  return element?.type === "Assertion" && element.kind === kind;
}

class Compiler {
  private readonly write: (ranges: Ranges) => Expr;
  private nesting = 0;

  constructor({ write }: RegexOptions) {
    this.write = write;
  }

  elements(elements: readonly AST.Element[]): Expr {
    if (++this.nesting > MAX_NESTING)
      throw new GrammarError(`the regular expression is nested more than ${MAX_NESTING} deep`);
    const all = sequence(...elements.map((element) => this.element(element)));
    this.nesting--;
    return all;
  }

  private element(element: AST.Element): Expr {
    switch (element.type) {
      case "Character":
        return this.write([[element.value, element.value]]);
      case "CharacterSet":
      case "CharacterClass":
        return this.write(rangesOf(element));
      case "Group":
        if (element.modifiers !== null) throw new GrammarError("regular expression modifiers are not supported");
        return choice(...element.alternatives.map((one) => this.elements(one.elements)));
      case "CapturingGroup":
        return choice(...element.alternatives.map((one) => this.elements(one.elements)));
      case "Quantifier":
        return this.quantified(element);
      case "Assertion":
        throw new GrammarError(`${ASSERTIONS[element.kind]} in a regular expression is not supported`);
      default:
        throw new GrammarError(`${element.raw} in a regular expression is not supported`);
    }
  }

  private quantified({ element, min, max }: AST.Quantifier): Expr {
    const bounded = max === Number.POSITIVE_INFINITY ? undefined : max;
    if (Math.max(min, bounded ?? 0) > MAX_REPEAT)
      throw new GrammarError(`a repetition in a regular expression goes beyond ${MAX_REPEAT}`);
    return repeat(this.element(element as AST.Element), min, bounded);
  }
}

const ASSERTIONS: Readonly<Record<string, string>> = {
  start: "^ that is not at the start",
  end: "$ that is not at the end",
  word: "a word border",
  lookahead: "look-ahead",
  lookbehind: "look-behind",
};

function rangesOf(element: AST.CharacterClassElement | AST.CharacterSet | AST.CharacterClass): Ranges {
  switch (element.type) {
    case "Character":
      return [[element.value, element.value]];
    case "CharacterClassRange":
      return [[element.min.value, element.max.value]];
    case "CharacterSet":
      return setOf(element);
    case "CharacterClass": {
      const ranges = normal(
        element.elements.flatMap((one) => [...rangesOf(one as AST.CharacterClassElement)] as [number, number][]),
      );
      return element.negate ? complement(ranges) : ranges;
    }
    default:
      throw new GrammarError(`${element.raw} in a regular expression is not supported`);
  }
}

function setOf(set: AST.CharacterSet): Ranges {
  if (set.kind === "any") return without(ANY, LINE_ENDS);
  if (set.kind === "property") throw new GrammarError(`${set.raw} in a regular expression is not supported`);
  const ranges = { digit: DIGITS, space: SPACES, word: WORDS }[set.kind];
  return set.negate ? complement(ranges) : ranges;
}
