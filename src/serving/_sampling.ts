/**
 * A request's sampling against a model: defaults, budget, vocabulary. What wire could not know.
 */
import type { SamplingInput } from "#core/calls.ts";
import { type Fault, invalid } from "#core/fault.ts";
import type { Tokenizer } from "#core/model.ts";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import type { ServedModel } from "./models.ts";

/** Room in the window, in tokens. */
export interface Room {
  readonly prompt: number;
  readonly window: number;
}

export interface SamplingContext {
  readonly model: ServedModel;
  readonly n: number;
  readonly logprobs: number | undefined;
  /** Tokens that all bad words may make (VLLM: 1024). */
  readonly badWordTokens: number;
}

/** The part of the parameters that is the same for every prompt of a request; the budget comes by `withBudget`. */
export type SharedSampling = Omit<SamplingParams, "maxTokens" | "promptLogprobs">;

/** @throws Fault invalid_request naming the field */
export async function resolveSampling(input: SamplingInput, context: SamplingContext): Promise<SharedSampling> {
  const { model, n, logprobs } = context;
  const given = { ...NEUTRAL_SAMPLING, ...model.defaults, ...input };
  if (given.temperature === 0 && n > 1) throw invalid("n", `n must be 1 when using greedy sampling, got ${n}.`);
  const vocabulary = model.backend.model.vocabularySize;
  requireInVocabulary("stop_token_ids", input.stopTokenIds, vocabulary);
  requireInVocabulary("allowed_token_ids", input.allowedTokenIds, vocabulary);
  requireInVocabulary("logprob_token_ids", input.logprobTokenIds, vocabulary);
  requireInVocabulary(
    "logit_bias",
    input.logitBias?.map(([token]) => token),
    vocabulary,
  );
  const greedy = given.temperature === 0;
  return {
    temperature: given.temperature,
    topK: greedy ? 0 : given.topK,
    topP: greedy ? 1 : given.topP,
    minP: greedy ? 0 : given.minP,
    presencePenalty: given.presencePenalty,
    frequencyPenalty: given.frequencyPenalty,
    repetitionPenalty: given.repetitionPenalty,
    logitBias: given.logitBias,
    minTokens: given.minTokens,
    stopTokenIds: [...new Set([...(input.stopTokenIds ?? []), ...(model.defaults.stopTokenIds ?? [])])],
    ignoreEos: given.ignoreEos,
    badWords: await encodeBadWords(input.badWords ?? [], model.tokenizer, context.badWordTokens),
    ...(given.seed === undefined ? {} : { seed: given.seed }),
    ...(given.repetition === undefined ? {} : { repetition: given.repetition }),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(given.logprobTokenIds === undefined ? {} : { logprobTokenIds: given.logprobTokenIds }),
    ...(given.allowedTokenIds === undefined ? {} : { allowedTokenIds: [...new Set(given.allowedTokenIds)] }),
  };
}

/** @throws Fault invalid_request: an id that the model does not have, by its place in the field */
export function requireInVocabulary(field: string, ids: ArrayLike<number> | undefined, vocabulary: number): void {
  for (let i = 0; i < (ids?.length ?? 0); i++) {
    const id = ids?.[i] ?? 0;
    if (id < 0 || id >= vocabulary) {
      throw invalid(
        field === "logit_bias" ? `${field}.${id}` : `${field}.${i}`,
        `token id ${id} is out of vocabulary: ids lie between 0 and ${vocabulary - 1}.`,
      );
    }
  }
}

/**
 * Tokens to generate at most (vLLM: get_max_tokens): what the request says, else the rest of the window; the
 * model's own default lowers both.
 * @throws Fault invalid_request when prompt and budget do not fit, in vLLM's words
 */
export function budget(input: SamplingInput, model: ServedModel, room: Room, promptField: string): number {
  const asked = input.maxTokens;
  const free = room.window - room.prompt;
  if (free < 1 && !(asked === 0 && free === 0)) throw tooLong(room, asked ?? 1, promptField);
  if (asked !== undefined && asked > free) throw tooLong(room, asked, "max_tokens");
  const tokens = Math.min(asked ?? free, model.defaults.maxTokens ?? free);
  const least = input.minTokens ?? 0;
  if (least > tokens)
    throw invalid("min_tokens", `min_tokens must be less than or equal to max_tokens=${tokens}, got ${least}.`);
  return tokens;
}

function tooLong(room: Room, asked: number, param: string): Fault {
  return invalid(
    param,
    `This model's maximum context length is ${room.window} tokens. However, you requested ${asked} output tokens and ` +
      `your prompt contains ${room.prompt} input tokens, for a total of ${room.prompt + asked} tokens. ` +
      "Please reduce the length of the input prompt or the number of requested output tokens.",
  );
}

/**
 * Each word as it stands at the start of a text and after a space (vLLM: SamplingParams.update_from_tokenizer).
 * The spaced form counts only when the space changed the first token and added none.
 */
async function encodeBadWords(
  words: readonly string[],
  tokenizer: Tokenizer,
  cap: number,
): Promise<readonly (readonly number[])[]> {
  const forms: number[][] = [];
  let tokens = 0;
  for (const [i, word] of [...new Set(words)].entries()) {
    const bare = Array.from(await tokenizer.encodeText(word.trimStart()));
    if (bare.length === 0) throw invalid(`bad_words.${i}`, "bad_words entries must tokenize to at least one token.");
    const spaced = Array.from(await tokenizer.encodeText(` ${word.trimStart()}`));
    const own = spaced.length === bare.length && spaced[0] !== bare[0] ? [bare, spaced] : [bare];
    tokens += own.reduce((sum, form) => sum + form.length, 0);
    if (tokens > cap) throw invalid("bad_words", `bad_words make more than ${cap} tokens.`);
    forms.push(...own);
  }
  return forms;
}
