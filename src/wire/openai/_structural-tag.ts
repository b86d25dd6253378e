/**
 * Structural tags as they are sent: the form `format` and the older `structures` with `triggers`. Shapes and sizes here;
 * formats and fields that this server does not know are refused by name. Sense is prompt/grammar's.
 */
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import type { Tag, TagFormat, TriggeredTags } from "#core/structural-tag.ts";
import { isObject, type JsonObject, requireList, requireObject, requireSize, requireString } from "./_compound.ts";

/** Formats inside formats, and entries of one list. */
const MAX_NESTING = 32;
const MAX_ENTRIES = 1024;
const MAX_REPEAT = 1000;

/** @throws Fault invalid_request naming the field */
export function decodeStructuralTag(value: unknown, field: string, caps: RequestCaps): TagFormat {
  const given = requireObject(value, field);
  requireSize(given, field, caps.grammarCharacters, caps.grammarDepth);
  if ((given["structures"] ?? undefined) !== undefined) return decodeStructures(given, field);
  knownFields(given, ["type", "format"], field);
  if ((given["type"] ?? "structural_tag") !== "structural_tag")
    throw invalid(`${field}.type`, `${field}.type must be structural_tag.`);
  return decodeFormat(given["format"], `${field}.format`, 0);
}

/** The older form: tags around JSON in free text. */
function decodeStructures(given: JsonObject, field: string): TagFormat {
  knownFields(given, ["type", "structures", "triggers"], field);
  const tags = entries(given["structures"], `${field}.structures`).map((entry, i): Tag => {
    const at = `${field}.structures.${i}`;
    const structure = requireObject(entry, at);
    knownFields(structure, ["begin", "schema", "end"], at);
    const content = { kind: "json_schema", schema: schemaOf(structure["schema"] ?? {}, `${at}.schema`) } as const;
    const begin = requireString(structure["begin"], `${at}.begin`);
    return { kind: "tag", begin, content, ends: [requireString(structure["end"], `${at}.end`)] };
  });
  const triggers = strings(given["triggers"], `${field}.triggers`);
  return { kind: "triggered_tags", triggers, tags, excludes: [], atLeastOne: false, stopAfterFirst: false };
}

function decodeFormat(value: unknown, field: string, depth: number): TagFormat {
  const given = requireObject(value, field);
  if (depth > MAX_NESTING) throw invalid(field, `${field}: formats nest deeper than ${MAX_NESTING} levels.`);
  const type = given["type"];
  const reader = typeof type === "string" && Object.hasOwn(FORMATS, type) ? FORMATS[type] : undefined;
  if (reader === undefined)
    throw invalid(`${field}.type`, `${field}.type must be one of ${Object.keys(FORMATS).join(", ")}.`);
  knownFields(given, ["type", ...reader.fields], field);
  return reader.read(given, field, depth + 1);
}

interface Reader {
  readonly fields: readonly string[];
  readonly read: (given: JsonObject, field: string, depth: number) => TagFormat;
}

const repeated = (min: number, max?: number): Reader => ({
  fields: ["content"],
  read: (given, field, depth) => {
    const content = decodeFormat(given["content"], `${field}.content`, depth);
    return { kind: "repeat", content, min, ...(max === undefined ? {} : { max }) };
  },
});

const FORMATS: Readonly<Record<string, Reader>> = {
  const_string: {
    fields: ["value"],
    read: (given, field) => ({ kind: "const_string", value: requireString(given["value"], `${field}.value`) }),
  },
  json_schema: { fields: ["json_schema", "style", "any_order"], read: decodeJson },
  regex: {
    fields: ["pattern"],
    read: (given, field) => ({ kind: "regex", pattern: requireString(given["pattern"], `${field}.pattern`) }),
  },
  grammar: {
    fields: ["grammar"],
    read: (given, field) => ({ kind: "grammar", source: requireString(given["grammar"], `${field}.grammar`) }),
  },
  any_text: {
    fields: ["excludes"],
    read: (given, field) => ({ kind: "any_text", excludes: optionalStrings(given["excludes"], `${field}.excludes`) }),
  },
  sequence: { fields: ["elements"], read: (...of) => ({ kind: "sequence", elements: decodeElements(...of) }) },
  or: { fields: ["elements"], read: (...of) => ({ kind: "or", elements: decodeElements(...of) }) },
  optional: repeated(0, 1),
  plus: repeated(1),
  star: repeated(0),
  repeat: { fields: ["content", "min", "max"], read: decodeRepeat },
  tag: { fields: ["begin", "content", "end"], read: decodeTag },
  triggered_tags: {
    fields: ["triggers", "tags", "excludes", "at_least_one", "stop_after_first"],
    read: decodeTriggered,
  },
  tags_with_separator: {
    fields: ["tags", "separator", "at_least_one", "stop_after_first"],
    read: (given, field, depth) => ({
      kind: "tags_with_separator",
      tags: decodeTags(given["tags"], `${field}.tags`, depth),
      separator: requireString(given["separator"], `${field}.separator`),
      ...bounds(given, field),
    }),
  },
};

function decodeJson(given: JsonObject, field: string): TagFormat {
  if ((given["style"] ?? "json") !== "json") throw invalid(`${field}.style`, `${field}.style must be json.`);
  if (flag(given["any_order"], `${field}.any_order`))
    throw invalid(`${field}.any_order`, `${field}.any_order is not supported.`);
  return { kind: "json_schema", schema: schemaOf(given["json_schema"], `${field}.json_schema`) };
}

function decodeRepeat(given: JsonObject, field: string, depth: number): TagFormat {
  const whole = (name: string, least: number): number => {
    const value = given[name];
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > MAX_REPEAT)
      throw invalid(`${field}.${name}`, `${field}.${name} must be an integer between ${least} and ${MAX_REPEAT}.`);
    return value;
  };
  const [min, max] = [whole("min", 0), whole("max", -1)];
  if (max >= 0 && max < min) throw invalid(`${field}.max`, `${field}.max must be at least min.`);
  const content = decodeFormat(given["content"], `${field}.content`, depth);
  return { kind: "repeat", content, min, ...(max < 0 ? {} : { max }) };
}

function decodeTriggered(given: JsonObject, field: string, depth: number): TriggeredTags {
  return {
    kind: "triggered_tags",
    triggers: strings(given["triggers"], `${field}.triggers`),
    tags: decodeTags(given["tags"], `${field}.tags`, depth),
    excludes: optionalStrings(given["excludes"], `${field}.excludes`),
    ...bounds(given, field),
  };
}

function decodeElements(given: JsonObject, field: string, depth: number): readonly TagFormat[] {
  return entries(given["elements"], `${field}.elements`).map((entry, i) =>
    decodeFormat(entry, `${field}.elements.${i}`, depth),
  );
}

/** In a list of tags, `type` may be left out. */
function decodeTags(value: unknown, field: string, depth: number): readonly Tag[] {
  return entries(value, field).map((entry, i) => {
    const at = `${field}.${i}`;
    const given = requireObject(entry, at);
    if ((given["type"] ?? "tag") !== "tag") throw invalid(`${at}.type`, `${at}.type must be tag.`);
    knownFields(given, ["type", "begin", "content", "end"], at);
    return decodeTag(given, at, depth + 1);
  });
}

function decodeTag(given: JsonObject, field: string, depth: number): Tag {
  const end = Array.isArray(given["end"])
    ? entries(given["end"], `${field}.end`).map((one, i) => requireString(one, `${field}.end.${i}`))
    : [requireString(given["end"], `${field}.end`)];
  const content = decodeFormat(given["content"], `${field}.content`, depth);
  const begin = requireString(given["begin"], `${field}.begin`);
  return { kind: "tag", begin, content, ends: end as [string, ...string[]] };
}

function bounds(given: JsonObject, field: string): { readonly atLeastOne: boolean; readonly stopAfterFirst: boolean } {
  return {
    atLeastOne: flag(given["at_least_one"], `${field}.at_least_one`),
    stopAfterFirst: flag(given["stop_after_first"], `${field}.stop_after_first`),
  };
}

function flag(value: unknown, field: string): boolean {
  if (value === undefined || value === null) return false;
  if (typeof value !== "boolean") throw invalid(field, `${field} must be true or false.`);
  return value;
}

function schemaOf(value: unknown, field: string): unknown {
  if (!isObject(value) && typeof value !== "boolean") throw invalid(field, `${field} must be a JSON schema.`);
  return value;
}

function entries(value: unknown, field: string): readonly unknown[] {
  const list = requireList(value, field, MAX_ENTRIES);
  if (list.length === 0) throw invalid(field, `${field} must not be empty.`);
  return list;
}

/** Strings, none of them empty. */
function strings(value: unknown, field: string): readonly string[] {
  return entries(value, field).map((entry, i) => {
    const text = requireString(entry, `${field}.${i}`);
    if (text === "") throw invalid(`${field}.${i}`, `${field} cannot contain an empty string.`);
    return text;
  });
}

function optionalStrings(value: unknown, field: string): readonly string[] {
  return value === undefined || value === null || (Array.isArray(value) && value.length === 0)
    ? []
    : strings(value, field);
}

function knownFields(given: JsonObject, known: readonly string[], field: string): void {
  // A null is a field that was left out, as the libraries that write such tags print it.
  const unknown = Object.keys(given).find((key) => !known.includes(key) && given[key] !== null);
  if (unknown !== undefined) throw invalid(`${field}.${unknown}`, `${field}.${unknown} is not supported.`);
}
