/**
 * What a request wants around the text, and how it wants it printed.
 */
import type { OutputOptions } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { decodeBeam } from "./_beam.ts";
import { decodeLogprobs, decodeStop, dropAbsent, type SharedBody } from "./_sampling.ts";
import { asksByFormat, decodeStructured } from "./_structured.ts";

/** How the answer is printed: what the encoders need of the request. */
export interface Print {
  readonly stream: boolean;
  /** A last chunk with the usage; only in streams. */
  readonly includeUsage: boolean;
  /** Usage on every chunk; only with includeUsage. */
  readonly continuousUsage: boolean;
  readonly returnTokenIds: boolean;
  /** Tokens in logprobs print as `token_id:N`. */
  readonly tokensAsIds: boolean;
  /** Likeliest tokens a position; absent = no logprobs; -1 = all that come. */
  readonly logprobs: number | undefined;
}

/** What decode has worked out already. */
export interface Decided {
  readonly n: number;
  readonly logprobs: number | undefined;
  /** Prompt logprobs that `echo` asks for. */
  readonly echoLogprobs: number | undefined;
  /** The budget, if given. */
  readonly maxTokens: number | undefined;
}

/** vllm/entrypoints/generate/base/protocol.py, validate_cache_salt. */
const SALT = /^[^@/\\\0]{1,128}$/u;

export function decodeOutput(body: SharedBody, caps: RequestCaps, decided: Decided): OutputOptions {
  const { n, logprobs, echoLogprobs, maxTokens } = decided;
  return dropAbsent<OutputOptions>({
    n,
    beam: decodeBeam(body, maxTokens),
    stop: decodeStop(body.stop, caps),
    includeStopString: body.include_stop_str_in_output ?? false,
    skipSpecialTokens: body.skip_special_tokens ?? true,
    logprobs,
    promptLogprobs: decodePromptLogprobs(body, caps) ?? echoLogprobs,
    returnTokenIds: body.return_token_ids ?? false,
    stream: body.stream ?? false,
    interval: body.stream ? (body.stream_interval ?? undefined) : undefined,
    runningUsage: wantsContinuousUsage(body) ? true : undefined,
    priority: body.priority,
    cacheSalt: decodeSalt(body.cache_salt),
    structured: decodeStructured(body, caps),
    structuredField: asksByFormat(body) ? "response_format" : undefined,
    truncatePrompt: decodeTruncation(body),
  });
}

export function decodePrint(body: SharedBody, logprobs: number | undefined): Print {
  const options = body.stream_options;
  const stream = body.stream ?? false;
  // pydantic's truth: {} and null are no options.
  if (!stream && options && Object.keys(options).length > 0) {
    throw invalid("stream_options", "Stream options can only be defined when `stream=True`.");
  }
  return {
    stream,
    includeUsage: options?.include_usage ?? false,
    continuousUsage: wantsContinuousUsage(body),
    returnTokenIds: body.return_token_ids ?? false,
    tokensAsIds: body.return_tokens_as_token_ids ?? false,
    // The tokens that were asked for by id are printed all.
    logprobs: logprobs !== undefined && isList(body.logprob_token_ids) ? -1 : logprobs,
  };
}

function isList(value: unknown): boolean {
  return Array.isArray(value);
}

function wantsContinuousUsage(body: SharedBody): boolean {
  const options = body.stream_options;
  return (body.stream ?? false) && (options?.include_usage ?? false) && (options?.continuous_usage_stats ?? false);
}

function decodePromptLogprobs(body: SharedBody, caps: RequestCaps): number | undefined {
  const value = decodeLogprobs("prompt_logprobs", body.prompt_logprobs, caps);
  if (value !== undefined && value !== 0 && body.stream) {
    throw invalid("prompt_logprobs", "`prompt_logprobs` are not available when `stream=True`.");
  }
  return value;
}

/** @throws Fault invalid_request */
export function decodeSalt(value: string | null | undefined): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (!SALT.test(value))
    throw invalid(
      "cache_salt",
      "cache_salt must have 1 to 128 characters and must not contain '@', '/', '\\\\' or NUL.",
    );
  return value;
}

function decodeTruncation(body: SharedBody): OutputOptions["truncatePrompt"] | undefined {
  const tokens = body.truncate_prompt_tokens;
  if (tokens === undefined || tokens === null) return undefined;
  return { tokens, side: body.truncation_side ?? "left" };
}
