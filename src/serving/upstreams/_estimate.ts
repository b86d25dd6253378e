/**
 * What a call to an upstream may cost: reserved, and set right by what the answer says. Pure. Private to forwarding.ts.
 */
import type { AudioVerdict } from "#wire/relay/audio.ts";
import type { RelayVerdict } from "#wire/relay/judge.ts";
import { AUDIO_TOKENS_PER_SECOND } from "#wire/relay/usage.ts";

/** A token of text has three bytes at least, taken over all languages that are not looked at one by one. */
const BYTES_PER_TOKEN = 3;
/** Where neither the client nor the upstream says how long an answer may be. */
const SOME_TOKENS = 4096;
export interface Estimate {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly sequences: number;
}

/** @param window tokens that a sequence may hold; 0: not known */
export function expect({ promptIds, promptBytes, prompts, n, maxTokens }: RelayVerdict, window: number): Estimate {
  const text = Math.ceil(promptBytes / BYTES_PER_TOKEN);
  const promptTokens = window > 0 ? Math.min(promptIds + text, window * prompts) : promptIds + text;
  const left = window > 0 ? Math.max(1, window - Math.floor(promptTokens / prompts)) : SOME_TOKENS;
  const each = Math.min(maxTokens ?? left, window > 0 ? window : Number.POSITIVE_INFINITY);
  return { promptTokens, completionTokens: each * n * prompts, sequences: n * prompts };
}

/** The upstream says how long it was; until then it is as long as sparse speech of so many bytes. */
const BYTES_PER_SECOND = 4000;
/** What vLLM takes. */
const MOST_SECONDS = 600;
/** That a model of speech hears at once. */
const WINDOW_SECONDS = 30;
const SOME_HEARD_TOKENS = 448;

export function expectAudio({ fileBytes, n, maxTokens }: AudioVerdict, window: number): Estimate {
  const seconds = Math.min(MOST_SECONDS, Math.ceil(fileBytes / BYTES_PER_SECOND));
  const windows = Math.ceil(seconds / WINDOW_SECONDS);
  const most = window || SOME_HEARD_TOKENS;
  const completionTokens = Math.min(maxTokens ?? most, most) * windows * n;
  return { promptTokens: seconds * AUDIO_TOKENS_PER_SECOND, completionTokens, sequences: n };
}
