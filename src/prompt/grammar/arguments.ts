/**
 * Arguments that are no JSON object, as rules: keywords with Python literals, or keys and values between tags; and which
 * functions' arguments can be written so.
 *
 * Invariants: what a rule lets through, the family's reader makes valid JSON of, under the function's schema; a function
 * that may not be writable is refused here, before anything is compiled. Called by calls.ts and serving/_call-form.ts.
 */
import type { ArgumentForm, CallableTool, TaggedArguments } from "#core/structured.ts";
import { choice, EMPTY, type Expr, literal, optional, repeat, rule, sequence } from "./builder.ts";
import { pointsOf, type Ranges, without } from "./chars.ts";
import { embed } from "./embed.ts";
import { freeText } from "./free-text.ts";
import { ANNOTATIONS } from "./merge.ts";
import { schemaRules } from "./schema.ts";

type Schema = Readonly<Record<string, unknown>>;

interface Parameters {
  readonly properties: readonly (readonly [key: string, schema: Schema])[];
  readonly required: ReadonlySet<string>;
  /** Any names, of which nothing is known. */
  readonly any: boolean;
  /** Where references lead. */
  readonly shared: Schema;
}

const ROOT: ReadonlySet<string> = new Set(["type", "properties", "required", "additionalProperties", ...ANNOTATIONS]);
const IDENTIFIER = /^[A-Za-z_]\w*$/;
/** One that leads past the definitions: where a value's rules are made of its own schema, there is nothing there. */
const OTHER_REFERENCE = /"\$ref":"(?!#\/(?:\$defs|definitions)\/)/;
const MOST_FREE = 32;

/** Whether every call of the function can be written in this form, so that the form is a grammar's. */
export function canWrite(form: ArgumentForm | undefined, { name, parameters }: CallableTool): boolean {
  if (form === undefined) return true;
  const found = parametersOf(parameters);
  if (found === undefined) return false;
  if (form.kind === "python")
    return /^[A-Za-z_][\w.-]*$/.test(name) && found.properties.every(([key]) => IDENTIFIER.test(key));
  if (mayAskForTags(found.shared)) return false;
  return found.properties.every(([key, schema]) => /^[\w.-]+$/.test(key) && valueKind(schema) !== "none");
}

/** Adds the rules of the arguments; returns what calls them. @throws GrammarError */
export function argumentRules(rules: Map<string, Expr>, prefix: string, form: ArgumentForm, parameters: unknown): Expr {
  const found = parametersOf(parameters) ?? { properties: [], required: new Set(), any: false, shared: {} };
  const [before, middle] = form.kind === "python" ? ["", "="] : [form.open, form.middle];
  const joint = form.kind === "python" ? literal(", ") : EMPTY;
  if (found.any)
    return freeMembers(sequence(literal(before), NAME, literal(middle), anyValue(rules, prefix, form)), joint);
  const members = found.properties.map(([key, schema], at) => {
    const value = valueRules(rules, `${prefix}.${at}`, form, schema, found.shared);
    return { needed: found.required.has(key), member: sequence(literal(before + key + middle), value) };
  });
  return inOrder(rules, prefix, members, joint);
}

/** @returns undefined: more is asked of the arguments than names and values */
function parametersOf(given: unknown): Parameters | undefined {
  if (given === undefined || given === null) return { properties: [], required: new Set(), any: true, shared: {} };
  const schema = recordOf(given);
  if (schema === undefined || Object.keys(schema).some((key) => !ROOT.has(key))) return undefined;
  if (OTHER_REFERENCE.test(JSON.stringify(schema))) return undefined;
  const { type, properties = {}, required = [], additionalProperties: others = false, $defs, definitions } = schema;
  const known = recordOf(properties);
  if ((type !== undefined && type !== "object") || known === undefined || typeof others !== "boolean") return undefined;
  const entries = Object.entries(known).flatMap(([key, value]) => {
    const one = recordOf(value);
    return one === undefined ? [] : [[key, one] as const];
  });
  if (entries.length < Object.keys(known).length || !Array.isArray(required)) return undefined;
  if (required.some((key) => typeof key !== "string" || !Object.hasOwn(known, key))) return undefined;
  return {
    properties: entries,
    required: new Set(required as readonly string[]),
    any: others && entries.length === 0,
    shared: { ...($defs !== undefined && { $defs }), ...(definitions !== undefined && { definitions }) },
  };
}

function recordOf(value: unknown): Schema | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Schema) : undefined;
}

/** Members in the schema's order; optional ones are left out or not. */
function inOrder(
  rules: Map<string, Expr>,
  prefix: string,
  members: readonly { readonly needed: boolean; readonly member: Expr }[],
  joint: Expr,
): Expr {
  let [first, later]: [Expr, Expr] = [EMPTY, EMPTY];
  for (const [at, { needed, member }] of [...members.entries()].reverse()) {
    const one = named(rules, `${prefix}.member ${at}`, member);
    const [withFirst, withLater] = [sequence(one, later), sequence(joint, one, later)];
    first = named(rules, `${prefix}.first ${at}`, needed ? withFirst : choice(first, withFirst));
    later = named(rules, `${prefix}.later ${at}`, needed ? withLater : choice(later, withLater));
  }
  return first;
}

function named(rules: Map<string, Expr>, name: string, expr: Expr): Expr {
  rules.set(name, expr);
  return rule(name);
}

const LETTERS: Ranges = [
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const WORD: Ranges = [[0x30, 0x39], ...LETTERS];
const NAME: Expr = sequence({ kind: "chars", ranges: LETTERS }, repeat({ kind: "chars", ranges: WORD }, 0, 40));

function freeMembers(member: Expr, joint: Expr): Expr {
  return optional(sequence(member, repeat(sequence(joint, member), 0, MOST_FREE - 1)));
}

function anyValue(rules: Map<string, Expr>, prefix: string, form: ArgumentForm): Expr {
  return form.kind === "python" ? pythonValue(rules, prefix, true) : textValue(rules, prefix, form);
}

function valueRules(
  rules: Map<string, Expr>,
  prefix: string,
  form: ArgumentForm,
  schema: Schema,
  shared: Schema,
): Expr {
  const whole = { ...schema, ...shared };
  if (form.kind === "python") return pythonValue(rules, prefix, whole);
  const kind = valueKind(schema);
  if (kind === "text") return textValue(rules, prefix, form);
  const end = literal(form.close + form.after);
  if (kind === "choice") return sequence(choice(...optionsOf(schema).map((value) => literal(String(value)))), end);
  return sequence(embed(rules, mapped(schemaRules(whole), untagged), prefix), end);
}

/** Any text up to the tag, and the tag. */
function textValue(
  rules: Map<string, Expr>,
  prefix: string,
  { middle, close, after, excludes }: TaggedArguments,
): Expr {
  const text = freeText(rules, `${prefix}.text`, { ends: [close], triggers: new Map(), excludes, behind: middle });
  return sequence(text, literal(after));
}

type ValueKind = "text" | "choice" | "json" | "none";

/**
 * How a reader of tagged text takes a value of this schema: a type that it knows as text is the text itself, another one is
 * JSON. What it could take for something else is "none".
 */
function valueKind(schema: Schema): ValueKind {
  if (mayAskForTags(schema)) return "none";
  const { type } = schema;
  const types = [type].flat();
  if (types.some((one) => typeof one !== "string" || !JSON_TYPES.has(one))) return "none";
  const nullable = types.includes("null");
  const [only, ...more] = types.filter((one) => one !== "null");
  if (only === undefined || more.length > 0) return "none";
  if (only !== "string") return schema["enum"] === undefined && schema["const"] === undefined ? "json" : "none";
  if (nullable) return "none";
  const keys = Object.keys(schema).filter((key) => key !== "type" && !ANNOTATIONS.has(key) && !key.startsWith("x-"));
  if (keys.length === 0) return "text";
  const options = optionsOf(schema);
  const plain = (value: unknown): boolean => typeof value === "string" && !/[\n\r]/.test(value);
  const known = keys.length === 1 && (keys[0] === "enum" || keys[0] === "const");
  return known && options.length > 0 && options.every(plain) ? "choice" : "none";
}

/** A pattern may ask for the characters of a tag, and only JSON can write them in another way. */
function mayAskForTags(schema: Schema): boolean {
  const source = JSON.stringify(schema, (key, value: unknown) =>
    ANNOTATIONS.has(key) && typeof value === "string" ? undefined : value,
  );
  return source.includes("<") || source.includes('"pattern"');
}

const JSON_TYPES: ReadonlySet<string> = new Set(["string", "integer", "number", "boolean", "array", "object", "null"]);

function optionsOf(schema: Schema): readonly unknown[] {
  const { enum: options, const: only } = schema;
  return Array.isArray(options) ? options : only === undefined ? [] : [only];
}

/** JSON as Python writes it; escapes that Python does not know are left out. */
function pythonValue(rules: Map<string, Expr>, prefix: string, schema: unknown): Expr {
  return embed(rules, mapped(schemaRules(schema), pythonic), prefix);
}

const PYTHON: ReadonlyMap<string, string> = new Map([
  ["true", "True"],
  ["false", "False"],
  ["null", "None"],
]);

function pythonic(expr: Expr): Expr {
  if (expr.kind === "literal") return literal(PYTHON.get(expr.text) ?? expr.text);
  if (expr.kind !== "choice") return expr;
  return choice(...expr.options.filter((option) => option.kind !== "literal" || option.text !== "\\/"));
}

const TAG: Ranges = pointsOf("<");

/** JSON in whose strings no tag stands: its first character is written as an escape. */
function untagged(expr: Expr): Expr {
  if (expr.kind !== "chars" || without(TAG, expr.ranges).length > 0) return expr;
  return choice({ kind: "chars", ranges: without(expr.ranges, TAG) }, literal("\\u003c"));
}

function mapped(rules: ReadonlyMap<string, Expr>, change: (expr: Expr) => Expr): Map<string, Expr> {
  return new Map([...rules].map(([name, expr]) => [name, walked(expr, change)]));
}

function walked(expr: Expr, change: (expr: Expr) => Expr): Expr {
  switch (expr.kind) {
    case "sequence":
      return change({ kind: "sequence", parts: expr.parts.map((part) => walked(part, change)) });
    case "choice":
      return change({ kind: "choice", options: expr.options.map((option) => walked(option, change)) });
    case "repeat":
      return change({ ...expr, of: walked(expr.of, change) });
    default:
      return change(expr);
  }
}
