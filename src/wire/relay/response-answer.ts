/**
 * What an upstream answered to a responses request, read as far as it is kept or told. Never throws.
 */
import { JsonError, parseJson } from "#base/json.ts";
import type { ResponseBody } from "#core/responses.ts";
import { isObject } from "#wire/openai/_compound.ts";

/** An answer nests what a request may, and a little more. */
const LIMITS = { maxDepth: 128 };
/** Characters of a message that are passed on. */
const MOST = 1000;

/** @returns undefined: it is no response */
export function responseOf(bytes: Uint8Array | undefined): ResponseBody | undefined {
  const value = bytes === undefined ? undefined : readable(bytes);
  return isObject(value) && Array.isArray(value["output"]) ? value : undefined;
}

/** OpenAI's words of a failure; undefined: there are none. */
export function refusalText(body: Uint8Array): string | undefined {
  const value = readable(body);
  const error = isObject(value) ? value["error"] : undefined;
  const message = isObject(error) ? error["message"] : undefined;
  return typeof message === "string" ? message.slice(0, MOST).toWellFormed() : undefined;
}

function readable(bytes: Uint8Array): unknown {
  try {
    return parseJson(bytes, LIMITS);
  } catch (error) {
    if (error instanceof JsonError) return undefined;
    throw error;
  }
}
