/**
 * The sampling fields that chat and completions share: ranges as in vllm/sampling_params.py (`_verify_args`).
 */
import type { SamplingInput } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import type { RepetitionRule } from "#core/sampling.ts";
import { requireList, requireObject, requireString, requireTokenIds } from "./_compound.ts";
import type { ChatBodyValue } from "./chat-schema.ts";
import type { CompletionBodyValue } from "./completion-schema.ts";

export type SharedBody = Omit<
  CompletionBodyValue,
  "prompt" | "prompt_embeds" | "echo" | "logprobs" | "max_tokens" | "n" | "suffix"
> &
  Pick<ChatBodyValue, "n">;

/** Below this vLLM raises a temperature that is not 0 (numerical safety). */
const LOWEST_TEMPERATURE = 0.01;

/**
 * @param maxTokens the budget, if given
 * @param logprobs whether logprobs are asked for
 * @throws Fault invalid_request naming the field
 */
export function decodeSampling(
  body: SharedBody,
  caps: RequestCaps,
  maxTokens: number | undefined,
  logprobs: boolean,
): SamplingInput {
  const temperature = decodeTemperature(body.temperature);
  if (temperature === 0 && (body.n ?? 1) > 1 && !body.use_beam_search)
    throw invalid("n", `n must be 1 when using greedy sampling, got ${body.n}.`);
  return dropAbsent({
    temperature,
    topK: decodeTopK(body.top_k),
    topP: inRange("top_p", body.top_p, (value) => value > 0 && value <= 1, "in (0, 1]"),
    minP: inRange("min_p", body.min_p, (value) => value >= 0 && value <= 1, "in [0, 1]"),
    presencePenalty: inRange("presence_penalty", body.presence_penalty, withinTwo, "in [-2, 2]"),
    frequencyPenalty: inRange("frequency_penalty", body.frequency_penalty, withinTwo, "in [-2, 2]"),
    repetitionPenalty: inRange(
      "repetition_penalty",
      body.repetition_penalty,
      (value) => value > 0,
      "greater than zero",
    ),
    logitBias: decodeLogitBias(body.logit_bias, caps),
    seed: decodeSeed(body.seed),
    maxTokens,
    minTokens: decodeMinTokens(body.min_tokens, maxTokens),
    stopTokenIds: optionalIds("stop_token_ids", body.stop_token_ids, caps.stopTokenIds),
    ignoreEos: body.ignore_eos,
    allowedTokenIds: decodeAllowed(body.allowed_token_ids, caps),
    badWords: decodeBadWords(body.bad_words, caps),
    repetition: decodeRepetition(body.repetition_detection),
    logprobTokenIds: decodeLogprobIds(body.logprob_token_ids, caps, logprobs),
    thinkingBudget: decodeThinking(body.thinking_token_budget),
  });
}

function decodeLogprobIds(value: unknown, caps: RequestCaps, logprobs: boolean): readonly number[] | undefined {
  const field = "logprob_token_ids";
  const ids = optionalIds(field, value, caps.logprobTokenIds);
  if (ids === undefined) return undefined;
  if (ids.length === 0) throw invalid(field, "`logprob_token_ids` must not be an empty list.");
  if (!logprobs) throw invalid(field, "when using `logprob_token_ids`, `logprobs` must be set.");
  return [...new Set(ids)];
}

/** -1 means none, as in vLLM. */
function decodeThinking(value: number | null | undefined): number | undefined {
  return value === undefined || value === null || value === -1 ? undefined : value;
}

/** Tokens of a run, and repetitions, that are looked at: each token costs so many comparisons at most. */
const MAX_RUN = 512;
const MAX_COUNT = 256;

/** vllm/sampling_params.py, RepetitionDetectionParams; a largest size of 0 switches it off. */
function decodeRepetition(value: unknown): RepetitionRule | undefined {
  if (value === undefined || value === null) return undefined;
  const field = "repetition_detection";
  const given = requireObject(value, field);
  const whole = (name: string, most: number): number => {
    const number = given[name] ?? 0;
    if (typeof number !== "number" || !Number.isInteger(number) || number < 0 || number > most)
      throw invalid(`${field}.${name}`, `${field}.${name} must be an integer between 0 and ${most}.`);
    return number;
  };
  const [maxSize, minSize] = [whole("max_pattern_size", MAX_RUN), whole("min_pattern_size", MAX_RUN)];
  const minCount = whole("min_count", MAX_COUNT);
  if (minSize > maxSize)
    throw invalid(`${field}.min_pattern_size`, "min_pattern_size must be at most max_pattern_size.");
  if (maxSize === 0) return undefined;
  if (minCount < 2) throw invalid(`${field}.min_count`, "min_count must be at least 2.");
  return { minSize: Math.max(1, minSize), maxSize, minCount };
}

/** exactOptionalPropertyTypes: an absent field is no key. */
export function dropAbsent<T extends object>(fields: { readonly [K in keyof T]: T[K] | undefined }): T {
  // By hand: a request comes through here several times, and a list of pairs costs more than all its checks.
  const kept: { [name: string]: unknown } = {};
  const given: Readonly<Record<string, unknown>> = fields;
  for (const name of Object.keys(given)) if (given[name] !== undefined) kept[name] = given[name];
  return kept as T;
}

/** `n`, its cap and the cap on all choices together. */
export function decodeN(n: number | null | undefined, prompts: number, caps: RequestCaps): number {
  const count = n ?? 1;
  if (count < 1) throw invalid("n", `n must be at least 1, got ${count}.`);
  if (count > caps.n) throw invalid("n", `n must be at most ${caps.n}, got ${count}.`);
  if (count * prompts > caps.choices)
    throw invalid(
      "n",
      `${prompts} prompts with n=${count} make ${count * prompts} choices; at most ${caps.choices} are taken.`,
    );
  return count;
}

/** A count of likeliest tokens: `top_logprobs`, `logprobs`, `prompt_logprobs`. */
export function decodeLogprobs(field: string, value: number | null | undefined, caps: RequestCaps): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (value < -1) throw invalid(field, `\`${field}\` must be a positive value or -1.`);
  if (caps.logprobs === -1) return value;
  if (value === -1)
    throw invalid(field, `${field} of -1 (the whole vocabulary) is greater than max allowed: ${caps.logprobs}`);
  if (value > caps.logprobs)
    throw invalid(field, `Requested ${field} of ${value}, which is greater than max allowed: ${caps.logprobs}`);
  return value;
}

export function decodeStop(value: unknown, caps: RequestCaps, field = "stop"): readonly string[] {
  if (value === undefined || value === null) return [];
  const list = typeof value === "string" ? [value] : requireList(value, field, caps.stopStrings);
  return list.map((entry, i) => {
    const param = typeof value === "string" ? field : `${field}.${i}`;
    const text = requireString(entry, param);
    if (text === "") throw invalid(param, `${field} cannot contain an empty string.`);
    if (text.length > caps.stopLength) throw invalid(param, `a stop string has at most ${caps.stopLength} characters.`);
    return text;
  });
}

function inRange(
  field: string,
  value: number | null | undefined,
  holds: (value: number) => boolean,
  range: string,
): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (!holds(value)) throw invalid(field, `${field} must be ${range}, got ${value}.`);
  return value;
}

function withinTwo(value: number): boolean {
  return value >= -2 && value <= 2;
}

function decodeTemperature(value: number | null | undefined): number | undefined {
  const checked = inRange("temperature", value, (given) => given >= 0 && given <= 2, "in [0, 2]");
  return checked === undefined || checked === 0 ? checked : Math.max(checked, LOWEST_TEMPERATURE);
}

function decodeTopK(value: number | null | undefined): number | undefined {
  const checked = inRange("top_k", value, (given) => given >= -1, "0 (disable), or at least 1");
  return checked === -1 ? 0 : checked;
}

/** -1 means none, as in vLLM. What a double cannot hold exactly is folded, so that seed + i stays distinct. */
function decodeSeed(value: number | null | undefined): number | undefined {
  if (value === undefined || value === null || value === -1) return undefined;
  return Number.isSafeInteger(value) ? value : Number(BigInt.asUintN(52, BigInt(value)));
}

function decodeMinTokens(value: number | undefined, maxTokens: number | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (value < 0) throw invalid("min_tokens", `min_tokens must be greater than or equal to 0, got ${value}.`);
  if (maxTokens !== undefined && value > maxTokens)
    throw invalid("min_tokens", `min_tokens must be less than or equal to max_tokens=${maxTokens}, got ${value}.`);
  return value;
}

function decodeLogitBias(value: unknown, caps: RequestCaps): readonly (readonly [number, number])[] | undefined {
  if (value === undefined || value === null) return undefined;
  const entries = Object.entries(requireObject(value, "logit_bias"));
  if (entries.length > caps.logitBias)
    throw invalid("logit_bias", `logit_bias has ${entries.length} entries; at most ${caps.logitBias} are taken.`);
  return entries.map(([key, bias]) => {
    if (!/^[0-9]{1,10}$/.test(key)) throw invalid("logit_bias", "logit_bias keys must be token ids.");
    if (typeof bias !== "number") throw invalid(`logit_bias.${key}`, "logit_bias values must be numbers.");
    return [Number(key), Math.min(100, Math.max(-100, bias))];
  });
}

function optionalIds(field: string, value: unknown, cap: number): readonly number[] | undefined {
  return value === undefined || value === null ? undefined : requireTokenIds(value, field, cap);
}

function decodeAllowed(value: unknown, caps: RequestCaps): readonly number[] | undefined {
  const ids = optionalIds("allowed_token_ids", value, caps.allowedTokenIds);
  if (ids?.length === 0) throw invalid("allowed_token_ids", "allowed_token_ids must not be empty.");
  return ids;
}

function decodeBadWords(value: unknown, caps: RequestCaps): readonly string[] | undefined {
  if (value === undefined || value === null) return undefined;
  return requireList(value, "bad_words", caps.badWords).map((entry, i) => {
    const word = requireString(entry, `bad_words.${i}`);
    if (word.trim() === "") throw invalid(`bad_words.${i}`, "bad_words cannot contain an empty string.");
    return word;
  });
}
