/**
 * Values that a model writes as plain text, as JSON of the type that the function's schema gives them. The rules are
 * vLLM's: what does not fit its type stays text. Called by the families whose arguments are tagged text.
 */
import { parseJson } from "#base/json.ts";
import type { ToolDefinition } from "#core/chat.ts";
import { pythonToJson } from "./_python.ts";

/** A parameter's type by its schema. */
export interface ValueType {
  /** In lower case; absent: the schema does not know the parameter, or says nothing of its type. */
  readonly name: string | undefined;
  readonly nullable: boolean;
}

const UNKNOWN: ValueType = { name: undefined, nullable: false };
const TEXTS = ["string", "str", "text", "varchar", "char", "enum"];

export function typeOf(tools: readonly ToolDefinition[], tool: string, key: string): ValueType {
  const parameters = tools.find(({ name }) => name === tool)?.parameters;
  const schema = member(member(parameters, "properties"), key);
  const { type, anyOf } = asRecord(schema) ?? {};
  const options = anyOf === undefined ? [type].flat() : [anyOf].flat().map((option) => member(option, "type"));
  const names = options.filter((name) => typeof name === "string").map((name) => name.trim().toLowerCase());
  if (names.length === 0) return UNKNOWN;
  return { name: names.find((name) => name !== "null"), nullable: names.includes("null") };
}

function asRecord(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : undefined;
}

function member(value: unknown, key: string): unknown {
  const record = asRecord(value);
  return record !== undefined && Object.hasOwn(record, key) ? record[key] : undefined;
}

/** Whether the value is its text, whatever that is: it may be sent on while it comes. */
export function isText({ name, nullable }: ValueType): boolean {
  return name !== undefined && TEXTS.includes(name) && !nullable;
}

/** By the type; a value of an unknown parameter is text. */
export function typedToJson(text: string, type: ValueType): string {
  const { name, nullable } = type;
  const nothing = /^\s*(?:null|none)\s*$/i.test(text);
  if (nullable && nothing) return "null";
  if (name === undefined || TEXTS.includes(name)) return JSON.stringify(text);
  if (nothing) return "null";
  if (/^(?:int|uint|long|short|unsigned)/.test(name)) return wholeToJson(text) ?? JSON.stringify(text);
  if (/^(?:num|float)/.test(name)) return numberToJson(text) ?? JSON.stringify(text);
  if (["boolean", "bool", "binary"].includes(name)) return String(text.trim().toLowerCase() === "true");
  return looseToJson(text);
}

/** JSON, or a Python literal, or text. */
export function looseToJson(text: string): string {
  return canonical(text) ?? pythonToJson(text) ?? JSON.stringify(text);
}

/** The text itself if it is JSON: its numbers keep their digits. */
function canonical(text: string): string | undefined {
  try {
    parseJson(text);
    return text.trim();
  } catch {
    return undefined;
  }
}

function wholeToJson(text: string): string | undefined {
  return /^\s*[+-]?\d+\s*$/.test(text) ? pythonToJson(text) : undefined;
}

function numberToJson(text: string): string | undefined {
  return /^\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*$/.test(text) ? pythonToJson(text) : undefined;
}
