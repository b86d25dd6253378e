/**
 * What a whole answer of an upstream says it used. Never throws: an answer that says nothing, or nothing sensible, is
 * one without usage, and its caller estimates.
 */
import { JsonError, tryParseJson } from "#base/json.ts";
import { type JsonMember, type JsonScan, scanJson } from "#base/json-scan.ts";
import type { Usage } from "#core/calls.ts";
import { isObject } from "#wire/openai/_compound.ts";
import { plainUsage } from "./_plain-usage.ts";

/** Larger ones are not read: a real one has hundreds of bytes. */
const MAX_USAGE = 64 * 1024;
/** More is no length of a file. */
const MAX_SECONDS = 1_000_000;
/** As which a second of speech counts: so many a model of Whisper's kind hears. */
export const AUDIO_TOKENS_PER_SECOND = 50;
/** A stream's event may hold what it answers besides: `message` (Messages), `response` (Responses). */
const WRAPPERS = ["message", "response"];

/** Of an answer in any of the dialects. @param body JSON; whatever else is without usage */
export function usageOf(body: Uint8Array): Usage | undefined {
  const scan = scanned(body);
  return scan === undefined ? undefined : usageIn(body, scan);
}

/** @returns undefined: it is no JSON object */
export function scanned(body: Uint8Array): JsonScan | undefined {
  const scan = anyScan(body);
  return scan?.kind === "object" ? scan : undefined;
}

/** Whether it is whole, if it is meant to be JSON. */
export function isJson(body: Uint8Array): boolean {
  return anyScan(body) !== undefined;
}

function anyScan(body: Uint8Array): JsonScan | undefined {
  try {
    return scanJson(body);
  } catch (error) {
    if (error instanceof JsonError) return undefined;
    throw error;
  }
}

export function memberOf({ members }: JsonScan, name: string): JsonMember | undefined {
  return members.find((member) => member.name === name);
}

/** The usage that stands on the first level of an answer or of a stream's event, or in what the event wraps. */
export function usageIn(body: Uint8Array, scan: JsonScan): Usage | undefined {
  const own = memberOf(scan, "usage");
  if (own?.kind === "object") return plainUsage(body, own.start, own.end) ?? readUsage(readValue(body, own));
  const wrapped = scan.members.find(({ name, kind }) => kind === "object" && WRAPPERS.includes(name));
  if (wrapped !== undefined) {
    const inner = body.subarray(wrapped.start, wrapped.end);
    const within = scanned(inner);
    const usage = within && memberOf(within, "usage");
    return usage?.kind === "object" ? readUsage(readValue(inner, usage)) : undefined;
  }
  // Cohere's answers, and count_tokens.
  const meta = memberOf(scan, "meta");
  if (meta?.kind === "object") {
    const value = readValue(body, meta);
    return isObject(value) ? readUsage(value["tokens"]) : undefined;
  }
  const counted = memberOf(scan, "input_tokens");
  return counted === undefined ? undefined : readUsage({ input_tokens: readValue(body, counted) });
}

function readValue(body: Uint8Array, { start, end }: JsonMember): unknown {
  if (end - start > MAX_USAGE) return undefined;
  // That it is UTF-8 its scan has seen.
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  return tryParseJson(bytes.toString("utf8", start, end));
}

/** OpenAI's names, Anthropic's and Responses' (which are Anthropic's with details). */
export function readUsage(value: unknown): Usage | undefined {
  if (!isObject(value)) return undefined;
  if (value["type"] === "duration") return heard(value["seconds"]);
  const prompt = count(value["prompt_tokens"]) ?? count(value["input_tokens"]) ?? count(value["total_tokens"]);
  if (prompt === undefined) return undefined;
  const details = value["prompt_tokens_details"] ?? value["input_tokens_details"];
  const made = value["completion_tokens_details"] ?? value["output_tokens_details"];
  // Anthropic counts what came from the cache, or went into it, beside the input.
  const read = count(value["cache_read_input_tokens"]);
  const beside = (read ?? 0) + (count(value["cache_creation_input_tokens"]) ?? 0);
  return {
    promptTokens: prompt + beside,
    completionTokens: count(value["completion_tokens"]) ?? count(value["output_tokens"]) ?? 0,
    cachedTokens: read ?? (isObject(details) ? (count(details["cached_tokens"]) ?? 0) : 0),
    reasoningTokens: isObject(made) ? (count(made["reasoning_tokens"]) ?? 0) : 0,
  };
}

/** Transcriptions say how long the speech was. */
function heard(seconds: unknown): Usage | undefined {
  if (typeof seconds !== "number" || !(seconds >= 0) || seconds > MAX_SECONDS) return undefined;
  const promptTokens = Math.ceil(seconds * AUDIO_TOKENS_PER_SECOND);
  return { promptTokens, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 };
}

function count(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined;
}
