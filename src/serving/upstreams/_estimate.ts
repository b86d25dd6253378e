/**
 * What a call to an upstream may cost: reserved, and set right by what the answer says. Pure. Private to forwarding.ts.
 */
import type { Work } from "#core/metering.ts";
import type { AudioVerdict } from "#wire/relay/audio.ts";
import type { RelayVerdict } from "#wire/relay/judge.ts";
import { AUDIO_TOKENS_PER_SECOND } from "#wire/relay/usage.ts";

/** A token of text has three bytes at least, taken over all languages that are not looked at one by one. */
const BYTES_PER_TOKEN = 3;
/** Where neither the client nor the upstream says how long an answer may be. */
const SOME_TOKENS = 4096;
/** About, of an image or another medium. */
const MEDIUM_TOKENS = 1024;
/** What a template prints of its own, before and around what is said to it, at most. */
const TEMPLATE_TOKENS = 1024;
/** What stands before and around a text without one: brackets, the prefix of a kind of input. */
const BRACKET_TOKENS = 16;

type Text = Pick<
  RelayVerdict,
  "promptIds" | "promptBytes" | "otherBytes" | "templated" | "prompts" | "n" | "maxTokens" | "media"
>;

/** What is likely, and what it may come to (core/metering.ts). */
export type Estimate = Omit<Work, "model">;

/** @param window tokens that a sequence may hold; 0: not known */
export function expect(verdict: Text, window: number): Estimate {
  const { promptIds, promptBytes, prompts, n, maxTokens, media } = verdict;
  const written = promptBytes - media.reduce((sum, { start, end }) => sum + end - start, 0);
  const guess = promptIds + Math.ceil(written / BYTES_PER_TOKEN) + media.length * MEDIUM_TOKENS;
  const most = window > 0 ? window : Number.POSITIVE_INFINITY;
  const promptTokens = Math.min(guess, most * prompts);
  const left = window > 0 ? Math.max(1, window - Math.floor(promptTokens / prompts)) : SOME_TOKENS;
  const completionTokens = Math.min(maxTokens ?? left, most) * n * prompts;
  const sequences = n * prompts;
  // Token ids are as many as they are.
  if (written + media.length === 0 && !verdict.templated && maxTokens !== undefined)
    return { promptTokens, completionTokens, sequences };
  const atMost = {
    promptTokens: Math.max(promptTokens, Math.min(mostOf(verdict, window), most * prompts)),
    completionTokens: Math.min(maxTokens ?? (window || SOME_TOKENS), most) * n * prompts,
  };
  return { promptTokens, completionTokens, sequences, atMost };
}

/**
 * A token has a byte at least. Of a medium nobody but its model knows how many it is: all that a sequence may hold, and
 * where that is not known either, the guess.
 */
function mostOf({ promptIds, promptBytes, otherBytes, templated, prompts, media }: Text, window: number): number {
  if (media.length > 0 && window > 0) return window * prompts;
  const around = (templated ? TEMPLATE_TOKENS : BRACKET_TOKENS) * prompts;
  return promptIds + promptBytes + otherBytes + around + media.length * MEDIUM_TOKENS;
}

/** The upstream says how long it was; until then it is as long as sparse speech of so many bytes. */
const BYTES_PER_SECOND = 4000;
/** What vLLM takes. */
const MOST_SECONDS = 600;
/** That a model of speech hears at once. */
const WINDOW_SECONDS = 30;
const SOME_HEARD_TOKENS = 448;

export function expectAudio({ fileBytes, n, maxTokens }: AudioVerdict, window: number): Estimate {
  const most = window || SOME_HEARD_TOKENS;
  const heard = (seconds: number) => ({
    promptTokens: seconds * AUDIO_TOKENS_PER_SECOND,
    completionTokens: Math.min(maxTokens ?? most, most) * Math.ceil(seconds / WINDOW_SECONDS) * n,
  });
  const likely = heard(Math.min(MOST_SECONDS, Math.ceil(fileBytes / BYTES_PER_SECOND)));
  return { ...likely, sequences: n, atMost: heard(MOST_SECONDS) };
}
