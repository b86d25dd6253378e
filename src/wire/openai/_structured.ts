/**
 * `response_format` and `structured_outputs` (vllm/sampling_params.py, StructuredOutputsParams). Sizes here; sense is
 * prompt/grammar's.
 */
import { JsonError, parseJson } from "#base/json.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import type { StructuredOutput } from "#core/structured.ts";
import {
  isObject,
  type JsonObject,
  kindOf,
  requireList,
  requireObject,
  requireSize,
  requireString,
} from "./_compound.ts";
import { decodeStructuralTag } from "./_structural-tag.ts";

const KINDS = ["json", "regex", "choice", "grammar", "json_object", "structural_tag"] as const;
/** disable_any_whitespace is followed, the others ask for less than is done anyway. */
const OPTIONS = ["disable_fallback", "disable_any_whitespace", "disable_additional_properties"];

interface Body {
  readonly response_format?: unknown;
  readonly structured_outputs?: unknown;
}

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeStructured(body: Body, caps: RequestCaps): StructuredOutput | undefined {
  const format = decodeFormat(body.response_format, caps);
  const params = decodeParams(body.structured_outputs, caps);
  if (format !== undefined && params !== undefined)
    throw invalid("structured_outputs", "structured_outputs and response_format cannot both be given.");
  return format ?? params;
}

/** Whether it is `response_format` that says what the output has to look like. */
export function asksByFormat({ response_format: format }: Body): boolean {
  return isObject(format) && format.type !== "text";
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function decodeFormat(value: unknown, caps: RequestCaps): StructuredOutput | undefined {
  if (!isGiven(value)) return undefined;
  if (!isObject(value)) throw invalid("response_format", `response_format must be an object, not ${kindOf(value)}.`);
  switch (value.type) {
    case "text":
      return undefined;
    case "json_object":
      return { kind: "json_object" };
    case "json_schema": {
      const wrapped = requireObject(value.json_schema, "response_format.json_schema");
      return decodeSchema(wrapped.schema ?? {}, "response_format.json_schema.schema", caps);
    }
    case "structural_tag":
      return { kind: "structural_tag", format: decodeStructuralTag(value, "response_format", caps) };
    default:
      throw invalid(
        "response_format.type",
        "response_format.type must be text, json_object, json_schema or structural_tag.",
      );
  }
}

function decodeParams(value: unknown, caps: RequestCaps): StructuredOutput | undefined {
  if (!isGiven(value)) return undefined;
  const params = requireObject(value, "structured_outputs");
  checkOptions(params);
  const given = KINDS.filter((kind) => isGiven(params[kind]) && params[kind] !== false);
  const unknown = Object.keys(params).find(
    (key) => !(KINDS as readonly string[]).includes(key) && !OPTIONS.includes(key) && isGiven(params[key]),
  );
  if (unknown !== undefined)
    throw invalid(`structured_outputs.${unknown}`, `structured_outputs.${unknown} is not supported.`);
  const [kind, another] = given;
  if (kind === undefined || another !== undefined)
    throw invalid("structured_outputs", `structured_outputs takes exactly one of ${KINDS.join(", ")}.`);
  return decodeKind(kind, params, caps);
}

function checkOptions(params: JsonObject): void {
  const wrong = ["json_object", ...OPTIONS].find((name) => isGiven(params[name]) && typeof params[name] !== "boolean");
  if (wrong !== undefined)
    throw invalid(`structured_outputs.${wrong}`, `structured_outputs.${wrong} must be true or false.`);
}

function decodeKind(kind: (typeof KINDS)[number], params: JsonObject, caps: RequestCaps): StructuredOutput {
  const field = `structured_outputs.${kind}`;
  const value = params[kind];
  const compact = params["disable_any_whitespace"] === true ? ({ compact: true } as const) : {};
  switch (kind) {
    case "json":
      return {
        ...decodeSchema(typeof value === "string" ? parsed(value, field, caps) : value, field, caps),
        ...compact,
      };
    case "json_object":
      return { kind: "json_object", ...compact };
    case "regex":
      return { kind: "regex", pattern: bounded(value, field, caps) };
    case "grammar":
      return { kind: "grammar", source: bounded(value, field, caps) };
    case "choice": {
      const options = requireList(value, field, caps.grammarChoices);
      if (options.length === 0) throw invalid(field, `${field} must not be empty.`);
      return { kind: "choice", options: options.map((option, i) => bounded(option, `${field}.${i}`, caps)) };
    }
    case "structural_tag":
      return {
        kind: "structural_tag",
        format: decodeStructuralTag(typeof value === "string" ? parsed(value, field, caps) : value, field, caps),
      };
  }
}

function decodeSchema(
  schema: unknown,
  field: string,
  caps: RequestCaps,
): Extract<StructuredOutput, { kind: "json_schema" }> {
  if (!isObject(schema) && typeof schema !== "boolean")
    throw invalid(field, `${field} must be a JSON schema, not ${kindOf(schema)}.`);
  requireSize(schema, field, caps.grammarCharacters, caps.grammarDepth);
  return { kind: "json_schema", schema };
}

function parsed(text: string, field: string, caps: RequestCaps): unknown {
  try {
    return parseJson(bounded(text, field, caps), { maxDepth: caps.grammarDepth });
  } catch (error) {
    if (error instanceof JsonError) throw invalid(field, `${field} is not JSON: ${error.message}.`);
    throw error;
  }
}

function bounded(value: unknown, field: string, caps: RequestCaps): string {
  const text = requireString(value, field);
  if (text.length > caps.grammarCharacters)
    throw invalid(field, `${field} has more than ${caps.grammarCharacters} characters.`);
  return text;
}
