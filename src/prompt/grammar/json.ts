/**
 * Pieces of JSON as expressions (RFC 8259): strings, numbers, white space, values of any kind.
 *
 * White space is what people write and no more (none, one space, or one line break and some indent), because a small
 * model that may write spaces for ever does. Rules named `json.…` are shared by all schemas.
 */
import { choice, type Expr, literal, optional, repeat, rule, sequence } from "./builder.ts";
import { intersection, type Ranges, without } from "./chars.ts";

const MAX_INDENT = 24;

/** Characters that stand for themselves in a string. */
export const PLAIN: Ranges = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0xd7ff],
  [0xe000, 0x10_ffff],
];
const SHORT_ESCAPES: ReadonlyMap<number, string> = new Map([
  [0x22, '\\"'],
  [0x5c, "\\\\"],
  [0x08, "\\b"],
  [0x0c, "\\f"],
  [0x0a, "\\n"],
  [0x0d, "\\r"],
  [0x09, "\\t"],
]);

const chars = (ranges: Ranges): Expr => ({ kind: "chars", ranges });

/** One of these characters as it is written inside a JSON string. */
export function inString(ranges: Ranges): Expr {
  const options: Expr[] = [];
  const plain = intersection(ranges, PLAIN);
  if (plain.length > 0) options.push(chars(plain));
  for (const [point, written] of SHORT_ESCAPES)
    if (ranges.some(([low, high]) => point >= low && point <= high)) options.push(literal(written));
  const short: Ranges = [...SHORT_ESCAPES.keys()].map((point) => [point, point] as const);
  for (const [low, high] of without(intersection(ranges, [[0, 0x1f]]), short)) {
    for (let point = low; point <= high; point++) options.push(literal(`\\u${point.toString(16).padStart(4, "0")}`));
  }
  return options.length === 1 ? (options[0] as Expr) : choice(...options);
}

/** Any character of a string, escapes of the short kind included. */
export const STRING_CHAR: Expr = choice(chars(PLAIN), ...[...SHORT_ESCAPES.values(), "\\/"].map(literal));

export const quoted = (content: Expr): Expr => sequence(literal('"'), content, literal('"'));
export const SPACE: Expr = rule("json.space");
export const DIGIT: Expr = chars([[0x30, 0x39]]);
const NONZERO: Expr = chars([[0x31, 0x39]]);
export const INTEGER: Expr = sequence(
  optional(literal("-")),
  choice(literal("0"), sequence(NONZERO, repeat(DIGIT, 0, 18))),
);
export const NUMBER: Expr = sequence(
  INTEGER,
  optional(sequence(literal("."), repeat(DIGIT, 1, 18))),
  optional(
    sequence(
      chars([
        [0x45, 0x45],
        [0x65, 0x65],
      ]),
      optional(
        chars([
          [0x2b, 0x2b],
          [0x2d, 0x2d],
        ]),
      ),
      repeat(DIGIT, 1, 2),
    ),
  ),
);

/** Items with commas between them, in brackets; `items` says how the list goes. */
export const bracketed = (open: string, content: Expr, close: string): Expr =>
  sequence(literal(open), SPACE, content, SPACE, literal(close));

export const COMMA: Expr = sequence(literal(","), SPACE);
export const member = (key: Expr, value: Expr): Expr => sequence(key, literal(":"), SPACE, value);

/** One or more, with commas between. */
export const listed = (one: Expr, min: number, max?: number): Expr =>
  sequence(one, repeat(sequence(SPACE, COMMA, one), Math.max(0, min - 1), max === undefined ? undefined : max - 1));

/** In place of json.space: one space at most. */
export const COMPACT_SPACE: readonly [string, Expr] = ["json.space", optional(literal(" "))];

export const SHARED_RULES: ReadonlyMap<string, Expr> = new Map<string, Expr>([
  [
    "json.space",
    optional(
      choice(
        literal(" "),
        sequence(
          literal("\n"),
          repeat(
            chars([
              [0x09, 0x09],
              [0x20, 0x20],
            ]),
            0,
            MAX_INDENT,
          ),
        ),
      ),
    ),
  ],
  ["json.string", quoted(repeat(STRING_CHAR, 0))],
  ["json.number", NUMBER],
  [
    "json.value",
    choice(
      rule("json.object"),
      rule("json.array"),
      rule("json.string"),
      rule("json.number"),
      literal("true"),
      literal("false"),
      literal("null"),
    ),
  ],
  ["json.array", bracketed("[", optional(listed(rule("json.value"), 0)), "]")],
  ["json.object", bracketed("{", optional(listed(member(rule("json.string"), rule("json.value")), 0)), "}")],
]);
