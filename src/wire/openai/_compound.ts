/**
 * Walks over compound fields: each stops at the first bad entry and names it by its dotted path.
 *
 * Invariant: linear in the input, and the cap is checked before the first entry.
 */
import { stringifyJson } from "#base/json.ts";
import { invalid } from "#core/fault.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A JSON value's kind, for messages. */
export function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

export function requireObject(value: unknown, param: string): JsonObject {
  if (!isObject(value)) throw invalid(param, `${param} must be an object, not ${kindOf(value)}.`);
  return value;
}

export function requireString(value: unknown, param: string): string {
  if (typeof value !== "string") throw invalid(param, `${param} must be a string, not ${kindOf(value)}.`);
  return value;
}

/** @throws Fault when it is no list, or longer than `cap`. */
export function requireList(value: unknown, param: string, cap: number): readonly unknown[] {
  if (!Array.isArray(value)) throw invalid(param, `${param} must be a list, not ${kindOf(value)}.`);
  if (value.length > cap) throw invalid(param, `${param} has ${value.length} entries; at most ${cap} are taken.`);
  return value;
}

/** Token ids: whole and not negative. The vocabulary's upper bound is checked in serving. */
export function requireTokenIds(value: unknown, param: string, cap: number): readonly number[] {
  const list = requireList(value, param, cap);
  for (let i = 0; i < list.length; i++) {
    const id = list[i];
    if (!Number.isSafeInteger(id) || (id as number) < 0)
      throw invalid(`${param}.${i}`, `${param} must hold token ids: whole numbers from 0 up.`);
  }
  return list as readonly number[];
}

/** @throws Fault when the value nests deeper than `maxDepth` or its JSON text is longer than `maxLength`. */
export function requireSize(value: unknown, param: string, maxLength: number, maxDepth: number): void {
  if (deeperThan(value, maxDepth)) throw invalid(param, `${param} nests deeper than ${maxDepth} levels.`);
  if (stringifyJson(value).length > maxLength)
    throw invalid(param, `${param} is larger than ${maxLength} characters of JSON.`);
}

function deeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (levels === 0) return true;
  return Object.values(value).some((entry) => deeperThan(entry, levels - 1));
}
