/**
 * The conjunction of two JSON schemas (allOf, and what stands beside anyOf and oneOf), where it can be written as one
 * schema; else a refusal that names the keyword. Pure. Called by schema.ts.
 */
import { isDeepStrictEqual } from "node:util";
import { GrammarError } from "./builder.ts";

export type Schema = Readonly<Record<string, unknown>>;

/** Keywords that say nothing about what is valid. */
export const ANNOTATIONS: ReadonlySet<string> = new Set([
  "title",
  "description",
  "default",
  "examples",
  "$comment",
  "$schema",
  "$id",
  "$anchor",
  "$defs",
  "definitions",
  "deprecated",
  "readOnly",
  "writeOnly",
  "contentEncoding",
  "contentMediaType",
  "discriminator",
  "strict",
]);

const TIGHTEST: Readonly<Record<string, (a: number, b: number) => number>> = {
  minimum: Math.max,
  exclusiveMinimum: Math.max,
  minLength: Math.max,
  minItems: Math.max,
  maximum: Math.min,
  exclusiveMaximum: Math.min,
  maxLength: Math.min,
  maxItems: Math.min,
};

const isObject = (value: unknown): boolean => typeof value === "object" && value !== null && !Array.isArray(value);
const isTexts = (value: unknown): boolean => Array.isArray(value) && value.every((one) => typeof one === "string");
const isNumber = (value: unknown): boolean => typeof value === "number" && Number.isFinite(value);

/** What keywords are that are read before anybody looks at them closely. */
const SHAPES: Readonly<Record<string, readonly [is: (value: unknown) => boolean, what: string]>> = {
  properties: [isObject, "an object of schemas"],
  required: [isTexts, "a list of names"],
  enum: [Array.isArray, "a list of values"],
  allOf: [Array.isArray, "a list of schemas"],
  anyOf: [Array.isArray, "a list of schemas"],
  oneOf: [Array.isArray, "a list of schemas"],
  prefixItems: [Array.isArray, "a list of schemas"],
  type: [(value) => typeof value === "string" || isTexts(value), "a name or a list of names"],
  format: [(value) => typeof value === "string", "a name"],
  pattern: [(value) => typeof value === "string", "a string"],
  ...Object.fromEntries(Object.keys(TIGHTEST).map((keyword) => [keyword, [isNumber, "a number"]] as const)),
};

/** An object whose keywords have the form that they need. @throws GrammarError naming what has not */
export function requireSchema(given: unknown): Schema {
  if (!isObject(given)) throw new GrammarError("a schema is an object, true or false");
  for (const [keyword, value] of Object.entries(given as Schema)) {
    const [is, what] = Object.hasOwn(SHAPES, keyword) ? (SHAPES[keyword] ?? []) : [];
    if (is?.(value) === false) throw new GrammarError(`${keyword} of a JSON schema is ${what}`);
  }
  return given as Schema;
}

/** @throws GrammarError */
export function mergeSchemas(a: Schema | boolean, b: Schema | boolean): Schema | boolean {
  if (a === false || b === false) return false;
  if (a === true) return b;
  if (b === true) return a;
  const out: Record<string, unknown> = { ...a };
  for (const [keyword, value] of Object.entries(b)) {
    const mine = out[keyword];
    if (mine === undefined || ANNOTATIONS.has(keyword) || isDeepStrictEqual(mine, value)) out[keyword] ??= value;
    else out[keyword] = mergeKeyword(keyword, mine, value);
  }
  closeProperties(a, b, out);
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    if (one["prefixItems"] !== undefined && other["prefixItems"] === undefined && other["items"] !== undefined)
      throw new GrammarError("prefixItems and items in different parts of allOf are not supported");
  }
  return out;
}

function mergeKeyword(keyword: string, mine: unknown, theirs: unknown): unknown {
  const tighter = Object.hasOwn(TIGHTEST, keyword) ? TIGHTEST[keyword] : undefined;
  if (tighter !== undefined) return tighter(mine as number, theirs as number);
  switch (keyword) {
    case "type": {
      const both = [mine].flat().filter((type) => [theirs].flat().includes(type));
      if (both.length === 0) throw new GrammarError("allOf: the types exclude each other");
      return both;
    }
    case "required":
      return [...new Set([...(mine as string[]), ...(theirs as string[])])];
    case "enum":
      return (mine as unknown[]).filter((one) => (theirs as unknown[]).some((other) => isDeepStrictEqual(one, other)));
    case "properties":
      return mergeProperties(mine as Record<string, Schema>, theirs as Record<string, Schema>);
    case "items":
    case "additionalProperties":
      return mergeSchemas(schemaOf(mine), schemaOf(theirs));
    case "allOf":
      return [...(mine as Schema[]), ...(theirs as Schema[])];
    default:
      throw new GrammarError(`${keyword} that is said twice (allOf) is not supported`);
  }
}

const schemaOf = (value: unknown): Schema | boolean => (typeof value === "boolean" ? value : requireSchema(value));

function mergeProperties(a: Readonly<Record<string, Schema>>, b: Readonly<Record<string, Schema>>): unknown {
  const out: Record<string, Schema | boolean> = { ...a };
  for (const [name, schema] of Object.entries(b)) {
    const mine = Object.hasOwn(out, name) ? out[name] : undefined;
    out[name] = mine === undefined ? schema : mergeSchemas(schemaOf(mine), schemaOf(schema));
  }
  return out;
}

/** What a schema says about properties that it does not name also holds for those that only the other one names. */
function closeProperties(a: Schema, b: Schema, out: Record<string, unknown>): void {
  const names = (schema: Schema): string[] => Object.keys((schema["properties"] ?? {}) as object);
  for (const [closed, other] of [
    [a, b],
    [b, a],
  ] as const) {
    const others = closed["additionalProperties"] as Schema | boolean | undefined;
    if (others === undefined || others === true) continue;
    const properties = { ...(out["properties"] as Record<string, Schema | boolean> | undefined) };
    for (const name of names(other))
      if (!names(closed).includes(name)) properties[name] = mergeSchemas(schemaOf(properties[name]), schemaOf(others));
    out["properties"] = properties;
  }
}
