/**
 * A JSON schema as rules: everything that they let through is valid under the schema. Not everything that is valid is
 * let through: properties come in the schema's order, properties that it does not name only where
 * `additionalProperties` asks for them, and lengths stop at LONGEST.
 *
 * Keywords are those of draft 2020-12 (and `definitions`, `items` as a list of older ones). One that restricts what is
 * valid and is not known here is refused by name: ignoring it would lose a constraint. Called by compile.ts.
 */
import { choice, EMPTY, type Expr, GrammarError, literal, NEVER, optional, repeat, rule, sequence } from "./builder.ts";
import { pointsOf, without } from "./chars.ts";
import { FORMATS, UNSUPPORTED_FORMATS } from "./formats.ts";
import {
  bracketed,
  COMMA,
  INTEGER,
  inString,
  listed,
  member,
  PLAIN,
  quoted,
  SHARED_RULES,
  SPACE,
  STRING_CHAR,
} from "./json.ts";
import { ANNOTATIONS, mergeSchemas, requireSchema, type Schema } from "./merge.ts";
import { disjoint } from "./one-of.ts";
import { integerBetween, type NumberBounds, numberBetween } from "./range.ts";
import { compileRegex } from "./regex.ts";

const MAX_DEPTH = 64;
const MAX_SCHEMAS = 5000;
const LONGEST = 10_000;

const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  object: ["properties", "required", "additionalProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["minLength", "maxLength", "pattern", "format"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
};
const GENERAL = ["type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"];
const KNOWN = new Set([...GENERAL, ...Object.values(KEYWORDS).flat()]);
/** These restrict nothing at these values. */
const HARMLESS: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ["uniqueItems", false],
  ["minProperties", 0],
  ["unevaluatedProperties", true],
  ["unevaluatedItems", true],
]);

/** @returns rules whose start is `root` @throws GrammarError */
export function schemaRules(schema: unknown): Map<string, Expr> {
  const compiler = new SchemaCompiler(schema);
  compiler.rules.set("root", compiler.value(schema, 0));
  return compiler.rules;
}

class SchemaCompiler {
  readonly rules = new Map<string, Expr>(SHARED_RULES);
  private readonly root: unknown;
  private count = 0;

  constructor(root: unknown) {
    this.root = root;
    this.rules.set("json.char", STRING_CHAR);
    this.rules.set("json.integer", INTEGER);
  }

  value(given: unknown, depth: number): Expr {
    if (given === true) return rule("json.value");
    if (given === false) return NEVER;
    const schema = this.checked(given, depth);
    if (schema["$ref"] !== undefined) return this.reference(schema, depth);
    if (schema["allOf"] !== undefined) return this.value(this.all(schema), depth + 1);
    for (const keyword of ["anyOf", "oneOf"] as const)
      if (schema[keyword] !== undefined) return this.options(keyword, schema, depth);
    if ("const" in schema) return this.given([schema["const"]], schema);
    if (schema["enum"] !== undefined) return this.given(list(schema, "enum"), schema);
    const types = typesOf(schema);
    if (types.length === 0) return rule("json.value");
    return choice(...types.map((type) => this.typed(type, schema, depth)));
  }

  private checked(given: unknown, depth: number): Schema {
    const schema = requireSchema(given);
    if (depth > MAX_DEPTH) throw new GrammarError(`the schema is nested more than ${MAX_DEPTH} deep`);
    if (++this.count > MAX_SCHEMAS) throw new GrammarError(`the schema has more than ${MAX_SCHEMAS} parts`);
    for (const [keyword, value] of Object.entries(schema)) {
      const harmless = HARMLESS.has(keyword) && HARMLESS.get(keyword) === value;
      if (harmless || KNOWN.has(keyword) || ANNOTATIONS.has(keyword) || keyword.startsWith("x-")) continue;
      throw new GrammarError(`the keyword ${keyword} of a JSON schema is not supported`);
    }
    return schema;
  }

  private reference(schema: Schema, depth: number): Expr {
    const target = this.resolve(schema["$ref"]);
    const { $ref: _, ...beside } = schema;
    if (Object.keys(beside).some((keyword) => !ANNOTATIONS.has(keyword)))
      return this.value(mergeSchemas(typeof target === "boolean" ? target : requireSchema(target), beside), depth + 1);
    const name = `ref ${String(schema["$ref"])}`;
    if (!this.rules.has(name)) {
      this.rules.set(name, NEVER); // so that a schema may contain itself
      this.rules.set(name, this.value(target, depth + 1));
    }
    return rule(name);
  }

  private resolve(reference: unknown): unknown {
    if (typeof reference !== "string" || !/^#(\/|$)/.test(reference))
      throw new GrammarError("$ref has to be a pointer into the schema itself (#/…)");
    let at: unknown = this.root;
    for (const part of reference.split("/").slice(1)) {
      const key = decoded(part).replaceAll("~1", "/").replaceAll("~0", "~");
      at =
        typeof at === "object" && at !== null && Object.hasOwn(at, key)
          ? (at as Record<string, unknown>)[key]
          : undefined;
    }
    if (at === undefined) throw new GrammarError(`$ref ${reference} leads nowhere`);
    return at;
  }

  /** What stands in allOf and beside it, as one schema. */
  private all(schema: Schema): Schema | boolean {
    const { allOf, ...beside } = schema;
    const parts = list({ allOf }, "allOf").map((part) => this.opened(part));
    return parts.reduce<Schema | boolean>((all, part) => mergeSchemas(all, part), beside);
  }

  /** A reference is looked up before it is merged. */
  private opened(given: unknown): Schema | boolean {
    // Lists of lists of references could double at every step, and references lead in a circle.
    if (++this.count > MAX_SCHEMAS) throw new GrammarError(`the schema has more than ${MAX_SCHEMAS} parts`);
    if (typeof given === "boolean") return given;
    const { $ref, ...beside } = requireSchema(given);
    return $ref === undefined ? beside : mergeSchemas(this.opened(this.resolve($ref)), beside);
  }

  private options(keyword: "anyOf" | "oneOf", schema: Schema, depth: number): Expr {
    const { [keyword]: _, ...beside } = schema;
    const options = list(schema, keyword).map((option) => mergeSchemas(beside, this.opened(option)));
    if (keyword === "oneOf" && !disjoint(options))
      throw new GrammarError("oneOf whose options may overlap is not supported; use anyOf");
    return choice(...options.map((option) => this.value(option, depth + 1)));
  }

  private given(values: readonly unknown[], schema: Schema): Expr {
    const restricts = (keyword: string): boolean =>
      !ANNOTATIONS.has(keyword) && !["type", "enum", "const"].includes(keyword);
    const other = Object.keys(schema).find(restricts);
    if (other !== undefined) throw new GrammarError(`${other} beside enum or const is not supported`);
    const types = schema["type"] === undefined ? undefined : typesOf(schema);
    const fitting = values.filter((value) => types === undefined || types.some((type) => isOfType(value, type)));
    if (fitting.length === 0) throw new GrammarError("enum leaves no value");
    return choice(...fitting.map((value) => literal(JSON.stringify(value))));
  }

  private typed(type: string, schema: Schema, depth: number): Expr {
    switch (type) {
      case "null":
        return literal("null");
      case "boolean":
        return choice(literal("true"), literal("false"));
      case "integer":
        return bounded(schema) ? integerBetween(boundsOf(schema).integers) : rule("json.integer");
      case "number":
        return bounded(schema) ? numberBetween(boundsOf(schema)) : rule("json.number");
      case "string":
        return this.string(schema);
      case "array":
        return this.array(schema, depth);
      case "object":
        return this.object(schema, depth);
      default:
        throw new GrammarError(`type ${type} is not one of JSON's`);
    }
  }

  private string(schema: Schema): Expr {
    const [min, max] = [limit(schema, "minLength") ?? 0, limit(schema, "maxLength")];
    const named = String(schema["format"]);
    if (UNSUPPORTED_FORMATS.has(named)) throw new GrammarError(`the format ${named} of a JSON schema is not supported`);
    const format = FORMATS.get(named);
    const pattern = schema["pattern"];
    if (pattern === undefined && format === undefined) {
      if (min > LONGEST) throw new GrammarError(`minLength goes beyond ${LONGEST}`);
      if (min === 0 && max === undefined) return rule("json.string");
      return quoted(
        repeat(rule("json.char"), min, max === undefined ? undefined : atLeast(Math.min(max, LONGEST), min)),
      );
    }
    if ((pattern !== undefined && format !== undefined) || min > 0 || max !== undefined)
      throw new GrammarError("pattern, format and lengths of one string together are not supported");
    if (pattern === undefined) return quoted(compileRegex(format as string, { anchored: true, write: inString }));
    if (typeof pattern !== "string") throw new GrammarError("pattern is a string");
    return quoted(compileRegex(pattern, { anchored: false, write: inString }));
  }

  private array(schema: Schema, depth: number): Expr {
    const old = Array.isArray(schema["items"]);
    const first = (old ? schema["items"] : (schema["prefixItems"] ?? [])) as readonly unknown[];
    const rest = old ? true : (schema["items"] ?? true);
    const min = limit(schema, "minItems") ?? 0;
    const max = limit(schema, "maxItems") ?? LONGEST;
    if (min > LONGEST || min > max) throw new GrammarError("minItems goes beyond what the array may hold");
    const most = rest === false ? Math.min(max, first.length) : Math.min(max, LONGEST);
    if (min > most) return NEVER;
    const item = this.named("items", this.value(rest, depth + 1));
    const prefix = first.slice(0, most).map((one) => this.named("item", this.value(one, depth + 1)));
    return bracketed("[", this.items(prefix, item, min, most), "]");
  }

  /** @param prefix the first items, of which the array may stop short */
  private items(prefix: readonly Expr[], item: Expr, min: number, max: number): Expr {
    const unbounded = max >= LONGEST;
    const more = unbounded ? undefined : Math.max(0, max - prefix.length);
    const tail = repeat(sequence(SPACE, COMMA, item), Math.max(0, min - Math.max(1, prefix.length)), more);
    if (prefix.length === 0) {
      if (max === 0) return EMPTY;
      const filled = listed(item, min, unbounded ? undefined : max);
      return min === 0 ? optional(filled) : filled;
    }
    let rest: Expr = max > prefix.length ? tail : EMPTY;
    for (let at = prefix.length - 1; at > 0; at--) {
      const next = sequence(SPACE, COMMA, prefix[at] as Expr, rest);
      rest = at < min ? next : optional(next);
    }
    const all = sequence(prefix[0] as Expr, rest);
    return min === 0 ? optional(all) : all;
  }

  private object(schema: Schema, depth: number): Expr {
    const properties = { ...((schema["properties"] ?? {}) as Record<string, unknown>) };
    const required = new Set(list(schema, "required", []) as string[]);
    const others = schema["additionalProperties"];
    for (const name of required) if (!Object.hasOwn(properties, name)) properties[name] = others ?? true;
    const members = Object.entries(properties)
      .filter(([name, value]) => value !== false || required.has(name))
      .map(([name, value]) => ({
        needed: required.has(name),
        member: member(literal(JSON.stringify(name)), this.named("property", this.value(value, depth + 1))),
      }));
    const free = others === undefined || others === false ? undefined : this.value(others, depth + 1);
    const more =
      free === undefined ? undefined : member(keyOtherThan(Object.keys(properties)), this.named("other", free));
    return bracketed("{", this.members(members, more), "}");
  }

  /** One rule a place and whether a comma is due: the members in order, optional ones left out or not. */
  private members(
    members: readonly { readonly needed: boolean; readonly member: Expr }[],
    more: Expr | undefined,
  ): Expr {
    const comma = sequence(SPACE, COMMA);
    const rest = more === undefined ? EMPTY : repeat(sequence(comma, more), 0);
    let [first, later]: [Expr, Expr] = [more === undefined ? EMPTY : optional(sequence(more, rest)), rest];
    for (const { needed, member: one } of members.toReversed()) {
      const [withFirst, withLater] = [sequence(one, later), sequence(comma, one, later)];
      [first, later] = [
        this.named("members", needed ? withFirst : choice(first, withFirst)),
        this.named("members", needed ? withLater : choice(later, withLater)),
      ];
    }
    return first;
  }

  /** A rule of its own, so that what is used in several places exists once. */
  private named(what: string, expr: Expr): Expr {
    if (expr.kind === "rule") return expr;
    const name = `${what} ${this.rules.size}`;
    this.rules.set(name, expr);
    return rule(name);
  }
}

/** A key that is none of these, written without escapes, so that no spelling of one of them gets through. */
function keyOtherThan(names: readonly string[]): Expr {
  const free = repeat({ kind: "chars", ranges: PLAIN }, 0);
  const rest = (left: readonly (readonly string[])[], isName: boolean): Expr => {
    const starts = [...new Set(left.flatMap(([first]) => (first === undefined ? [] : [first])))];
    const known = pointsOf(starts.join(""));
    return choice(
      isName ? NEVER : EMPTY,
      sequence({ kind: "chars", ranges: without(PLAIN, known) }, free),
      ...starts.map((start) => {
        const next = left.filter(([first]) => first === start).map((name) => name.slice(1));
        return sequence(
          literal(start),
          rest(
            next,
            next.some((name) => name.length === 0),
          ),
        );
      }),
    );
  };
  const split = names.filter((name) => JSON.stringify(name) === `"${name}"`).map((name) => [...name]);
  return quoted(
    rest(
      split,
      split.some((name) => name.length === 0),
    ),
  );
}

/** Part of a pointer; what is no percent-encoding stands for itself. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function typesOf(schema: Schema): string[] {
  const { type } = schema;
  if (type !== undefined) {
    const types = [type].flat();
    if (types.length === 0 || types.some((one) => typeof one !== "string"))
      throw new GrammarError("type is a name or a list of names");
    return types as string[];
  }
  return Object.entries(KEYWORDS)
    .filter(([, keywords]) => keywords.some((keyword) => schema[keyword] !== undefined))
    .map(([name]) => name);
}

function isOfType(value: unknown, type: string): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}

function list(schema: Schema, keyword: string, absent?: readonly unknown[]): readonly unknown[] {
  const value = schema[keyword] ?? absent;
  if (!Array.isArray(value) || (value.length === 0 && absent === undefined))
    throw new GrammarError(`${keyword} is a list with something in it`);
  return value;
}

function limit(schema: Schema, keyword: string): number | undefined {
  const value = schema[keyword];
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0)
    throw new GrammarError(`${keyword} is a whole number from 0 on`);
  return value;
}

function atLeast(max: number, min: number): number {
  if (max < min) throw new GrammarError("maxLength is less than minLength");
  return max;
}

function bounded(schema: Schema): boolean {
  return (KEYWORDS["number"] ?? []).some((keyword) => schema[keyword] !== undefined);
}

function boundsOf(schema: Schema): NumberBounds {
  const of = (keyword: string, absent: number): number => {
    const value = schema[keyword] ?? absent;
    if (typeof value !== "number" || Number.isNaN(value)) throw new GrammarError(`${keyword} is a number`);
    return value;
  };
  const [min, max] = [of("minimum", -Infinity), of("maximum", Infinity)];
  const [over, under] = [of("exclusiveMinimum", -Infinity), of("exclusiveMaximum", Infinity)];
  return {
    min: Math.max(min, over),
    max: Math.min(max, under),
    integers: { min: Math.max(min, Math.floor(over) + 1), max: Math.min(max, Math.ceil(under) - 1) },
  };
}
