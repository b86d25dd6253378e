/**
 * Whether options of oneOf exclude each other, seen from the schemas alone: by type, by value, or by a property that
 * both require and that tells them apart. When in doubt they do not. Pure. Called by schema.ts.
 */
import { isDeepStrictEqual } from "node:util";
import type { Schema } from "./merge.ts";

export function disjoint(options: readonly (Schema | boolean)[]): boolean {
  return options.every((a, at) => options.slice(at + 1).every((b) => apart(a, b)));
}

function apart(a: Schema | boolean, b: Schema | boolean): boolean {
  if (a === false || b === false) return true;
  if (a === true || b === true) return false;
  const [mine, theirs] = [valuesOf(a), valuesOf(b)];
  if (mine !== undefined && theirs !== undefined)
    return !mine.some((one) => theirs.some((other) => isDeepStrictEqual(one, other)));
  const [types, others] = [typesOf(a), typesOf(b)];
  if (types !== undefined && others !== undefined && !types.some((type) => others.includes(type))) return true;
  return bothObjects(types, others) && sharedRequired(a, b).some((name) => apart(property(a, name), property(b, name)));
}

function valuesOf(schema: Schema): readonly unknown[] | undefined {
  if ("const" in schema) return [schema["const"]];
  return Array.isArray(schema["enum"]) ? schema["enum"] : undefined;
}

function typesOf(schema: Schema): string[] | undefined {
  const values = valuesOf(schema);
  if (schema["type"] === undefined && values !== undefined) return [...new Set(values.map(typeOfValue))];
  if (schema["type"] === undefined) return undefined;
  // An integer is a number: as names they would look apart.
  return [schema["type"]].flat().map((type) => (type === "integer" ? "number" : String(type)));
}

function typeOfValue(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}

function bothObjects(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  return a?.join() === "object" && b?.join() === "object";
}

function sharedRequired(a: Schema, b: Schema): string[] {
  const required = (schema: Schema): unknown[] => (Array.isArray(schema["required"]) ? schema["required"] : []);
  return required(a).filter((name): name is string => typeof name === "string" && required(b).includes(name));
}

function property(schema: Schema, name: string): Schema | boolean {
  const properties = (schema["properties"] ?? {}) as Record<string, Schema | boolean>;
  return Object.hasOwn(properties, name) ? (properties[name] as Schema | boolean) : true;
}
