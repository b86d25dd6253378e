/**
 * The messages of `/v1/realtime` (vLLM's streaming transcription): what a client may say, written anew for the upstream,
 * and what of an upstream's is passed on. Pure.
 *
 * Source: vLLM, entrypoints/openai/realtime (protocol.py, connection.py). Invariants: three kinds of messages go on, each
 * with the members that are known and no other (Wall: T130); speech is whole samples in canonical base64, so that every
 * reader counts the same bytes. Callers: serving/upstreams/realtime.ts.
 */
import { JsonError, type JsonValue, parseJson, stringifyJson, tryParseJson } from "#base/json.ts";
import type { Usage } from "#core/calls.ts";
import { NO_USAGE } from "#core/metering.ts";

/** vLLM's codes, and two for what vLLM does not refuse. */
export type RealtimeCode =
  | "invalid_json"
  | "invalid_event"
  | "unknown_event"
  | "model_not_found"
  | "model_not_validated"
  | "invalid_audio"
  | "processing_error"
  | "rate_limit_exceeded"
  | "not_supported";

/** What a client is told without its session ending. */
export class RealtimeError extends Error {
  readonly code: RealtimeCode;
  constructor(code: RealtimeCode, message: string) {
    super(message);
    this.name = "RealtimeError";
    this.code = code;
  }
}

export type ClientEvent =
  | { readonly type: "update"; readonly model: string }
  /** `bytes` of speech: 16 bits a sample, 16,000 a second. */
  | { readonly type: "append"; readonly bytes: number; readonly written: string }
  | { readonly type: "commit"; readonly final: boolean; readonly written: string };

/** PCM16 at 16 kHz, one channel. */
export const BYTES_PER_SECOND = 32_000;

const LIMITS = { maxDepth: 16, maxValues: 4096 };
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

/** @throws RealtimeError */
export function readClientEvent(text: string): ClientEvent {
  const event = read(text);
  switch (event.type) {
    case "session.update":
      if (typeof event.model !== "string") throw new RealtimeError("invalid_event", "session.update names no model.");
      return { type: "update", model: event.model };
    case "input_audio_buffer.append":
      return append(event.audio);
    case "input_audio_buffer.commit": {
      const { final = false } = event;
      if (typeof final !== "boolean") throw new RealtimeError("invalid_event", "final is true or false.");
      return { type: "commit", final, written: stringifyJson({ type: "input_audio_buffer.commit", final }) };
    }
    default:
      if (typeof event.type !== "string") throw new RealtimeError("invalid_event", "The event has no type.");
      throw new RealtimeError("unknown_event", `Unknown event type: ${event.type.slice(0, 100)}`);
  }
}

function read(text: string): { readonly [key: string]: JsonValue } {
  let value: JsonValue;
  try {
    value = parseJson(text, LIMITS);
  } catch (error) {
    if (error instanceof JsonError) throw new RealtimeError("invalid_json", "Invalid JSON");
    throw error;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new RealtimeError("invalid_event", "The event is no object.");
  return value;
}

function append(audio: JsonValue | undefined): ClientEvent {
  if (typeof audio !== "string" || audio.length % 4 !== 0 || !BASE64.test(audio))
    throw new RealtimeError("invalid_audio", "audio is not base64.");
  const bytes = (audio.length / 4) * 3 - (audio.endsWith("==") ? 2 : audio.endsWith("=") ? 1 : 0);
  if (bytes % 2 !== 0) throw new RealtimeError("invalid_audio", "audio is not 16 bits a sample.");
  return { type: "append", bytes, written: `{"type":"input_audio_buffer.append","audio":"${audio}"}` };
}

/** @param model as the upstream calls it */
export function writtenUpdate(model: string): string {
  return stringifyJson({ type: "session.update", model });
}

/** @param created Unix seconds */
export function writtenCreated(id: string, created: number): string {
  return stringifyJson({ type: "session.created", id: `sess-${id}`, created });
}

export function writtenError(code: RealtimeCode, message: string): string {
  return stringifyJson({ type: "error", error: message, code });
}

export type ServerEvent =
  /** `usage`: it says none that can be read. */
  | { readonly type: "done"; readonly usage: Usage | undefined }
  | { readonly type: "delta" | "error" }
  /** Not the client's: the gateway says it by itself, or nobody knows it. */
  | { readonly type: "other" };

/** @returns undefined: it is no event */
export function readServerEvent(text: string): ServerEvent | undefined {
  const event = tryParseJson(text, { maxDepth: 16 });
  if (typeof event !== "object" || event === null || Array.isArray(event)) return undefined;
  switch (event.type) {
    case "transcription.delta":
      return { type: "delta" };
    case "error":
      return { type: "error" };
    case "transcription.done":
      return { type: "done", usage: usageOf(event.usage) };
    default:
      return typeof event.type === "string" ? { type: "other" } : undefined;
  }
}

function usageOf(usage: JsonValue | undefined): Usage | undefined {
  if (typeof usage !== "object" || usage === null || Array.isArray(usage)) return undefined;
  const { prompt_tokens: promptTokens, completion_tokens: completionTokens = 0 } = usage;
  return isCount(promptTokens) && isCount(completionTokens)
    ? { ...NO_USAGE, promptTokens, completionTokens }
    : undefined;
}

function isCount(value: JsonValue | undefined): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
