/**
 * `text`: what the answer has to look like. `include`, `metadata`: what is printed around it.
 */
import { Fault, invalid } from "#core/fault.ts";
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
} from "#wire/openai/_compound.ts";

const VERBOSITIES: readonly unknown[] = ["low", "medium", "high"];
const NAME_LENGTH = 64;

export interface DecodedText {
  readonly format: StructuredOutput | undefined;
  /** As it is printed. */
  readonly echo: JsonObject;
}

/** @throws Fault invalid_request naming the field */
export function decodeText(value: unknown, caps: RequestCaps): DecodedText {
  if (value === undefined || value === null) return { format: undefined, echo: { format: { type: "text" } } };
  const text = requireObject(value, "text");
  const { verbosity } = text;
  if (verbosity !== undefined && verbosity !== null && !VERBOSITIES.includes(verbosity))
    throw invalid("text.verbosity", "text.verbosity must be low, medium or high.");
  const format = text["format"] ?? { type: "text" };
  const echo = { format, ...(verbosity === undefined || verbosity === null ? {} : { verbosity }) };
  return { format: decodeFormat(requireObject(format, "text.format"), caps), echo };
}

function decodeFormat(format: JsonObject, caps: RequestCaps): StructuredOutput | undefined {
  switch (format["type"]) {
    case "text":
      return undefined;
    case "json_object":
      return { kind: "json_object" };
    case "json_schema": {
      const name = requireString(format["name"], "text.format.name");
      if (name === "" || name.length > NAME_LENGTH)
        throw invalid("text.format.name", `text.format.name has 1 to ${NAME_LENGTH} characters.`);
      const schema = format["schema"];
      if (!isObject(schema) && typeof schema !== "boolean")
        throw invalid("text.format.schema", `text.format.schema must be a JSON schema, not ${kindOf(schema)}.`);
      requireSize(format, "text.format", caps.grammarCharacters, caps.grammarDepth);
      return { kind: "json_schema", schema };
    }
    default:
      throw invalid("text.format.type", "text.format.type must be text, json_object or json_schema.");
  }
}

const LOGPROBS = "message.output_text.logprobs";
/** Parts of items that there are none of here, so that nothing is left out. */
const VACUOUS: readonly string[] = [
  "code_interpreter_call.outputs",
  "computer_call_output.output.image_url",
  "file_search_call.results",
  "message.input_image.image_url",
  "web_search_call.action.sources",
  "web_search_call.results",
  // Reasoning is printed as it is.
  "reasoning.encrypted_content",
];

/** @returns likeliest tokens a position that are printed; undefined: no logprobs */
export function decodeInclude(include: unknown, top: number | undefined): number | undefined {
  const list = include === undefined || include === null ? [] : requireList(include, "include", VACUOUS.length + 1);
  for (const [i, entry] of list.entries()) {
    const name = requireString(entry, `include.${i}`);
    if (name !== LOGPROBS && !VACUOUS.includes(name))
      throw new Fault("not_implemented", `include.${i} is not something that this server prints.`, {
        param: `include.${i}`,
      });
  }
  if (list.includes(LOGPROBS)) return top ?? 0;
  if (top !== undefined && top !== 0) throw invalid("top_logprobs", `top_logprobs needs ${LOGPROBS} in include.`);
  return undefined;
}

const PAIRS = 16;
const KEY_LENGTH = 64;
const VALUE_LENGTH = 512;

/** OpenAI's bounds. */
export function decodeMetadata(value: unknown): Readonly<Record<string, string>> | null {
  if (value === undefined || value === null) return null;
  const entries = Object.entries(requireObject(value, "metadata"));
  if (entries.length > PAIRS)
    throw invalid("metadata", `metadata has ${entries.length} entries; at most ${PAIRS} are taken.`);
  for (const [key, text] of entries) {
    if (key.length > KEY_LENGTH) throw invalid("metadata", `a key of metadata has at most ${KEY_LENGTH} characters.`);
    if (requireString(text, `metadata.${key}`).length > VALUE_LENGTH)
      throw invalid(`metadata.${key}`, `a value of metadata has at most ${VALUE_LENGTH} characters.`);
  }
  return Object.fromEntries(entries) as Record<string, string>;
}
