/**
 * What an upstream answered to a responses request, read as far as it is kept or told. Never throws.
 */
import { parseJson, stringifyJson, tryParseJson } from "#base/json.ts";
import { sseEvent } from "#base/sse.ts";
import type { ResponseBody, ResponseError } from "#core/responses.ts";
import { isObject } from "#wire/openai/_compound.ts";

/** An answer nests what a request may, and a little more. */
const LIMITS = { maxDepth: 128 };
/** Characters of a message that are passed on. */
const MOST = 1000;

/** @returns undefined: it is no response */
export function responseOf(bytes: Uint8Array | undefined): ResponseBody | undefined {
  const value = bytes === undefined ? undefined : tryParseJson(bytes, LIMITS);
  return isObject(value) && Array.isArray(value["output"]) ? value : undefined;
}

/** OpenAI's words of a failure; undefined: there are none. */
export function refusalText(body: Uint8Array): string | undefined {
  const value = tryParseJson(body, LIMITS);
  const error = isObject(value) ? value["error"] : undefined;
  const message = isObject(error) ? error["message"] : undefined;
  return typeof message === "string" ? message.slice(0, MOST).toWellFormed() : undefined;
}

/** The last event of a stream that the upstream did not end. @param first the response as it began */
export function failedEvent(
  first: Uint8Array,
  edits: ReadonlyMap<string, string>,
  sequence: number,
  error: ResponseError,
): string | undefined {
  const begun = responseOf(first);
  if (begun === undefined) return undefined;
  const ours = Object.fromEntries([...edits].map(([name, text]) => [name, parseJson(text)] as const));
  const response = { ...begun, ...ours, error, status: "failed", usage: null };
  const type = "response.failed";
  return sseEvent(type, stringifyJson({ response, sequence_number: sequence, type }));
}
