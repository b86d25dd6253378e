/**
 * How much one request may ask for. The app builds it from the settings; decode enforces it before any work.
 *
 * Invariant: every list, map and string of a request that is not bounded by the body's size alone has its cap here.
 */
export interface RequestCaps {
  /** `n`: choices a prompt (VLLM_MAX_N_SEQUENCES). */
  readonly n: number;
  /** Prompts × n of one request. */
  readonly choices: number;
  /** Prompts of one completion (VLLM_MAX_COMPLETION_PROMPTS). */
  readonly prompts: number;
  readonly messages: number;
  /** Content parts of one message. */
  readonly contentParts: number;
  /** Stop strings (VLLM_MAX_STOP_STRINGS), and UTF-16 units of each. */
  readonly stopStrings: number;
  readonly stopLength: number;
  readonly stopTokenIds: number;
  /** Words as sent (VLLM_MAX_NUM_BAD_WORDS) and tokens of all their forms. */
  readonly badWords: number;
  readonly badWordTokens: number;
  readonly logitBias: number;
  readonly allowedTokenIds: number;
  /** `logprob_token_ids` (vLLM: MAX_LOGPROB_TOKEN_IDS). */
  readonly logprobTokenIds: number;
  /** `top_logprobs`, `logprobs`, `prompt_logprobs`; -1 lifts the cap and permits -1 in requests (--max-logprobs). */
  readonly logprobs: number;
  readonly tools: number;
  /** Of all tools together: UTF-16 units of their JSON text, and nesting. */
  readonly toolBytes: number;
  readonly toolDepth: number;
  /** Of `chat_template_kwargs` and of `documents`: UTF-16 units of the JSON text. */
  readonly templateBytes: number;
  /** Whether a `priority` other than 0 is taken (--scheduling-policy priority). */
  readonly priority: boolean;
}

export const DEFAULT_CAPS: RequestCaps = {
  n: 128,
  choices: 1024,
  prompts: 1024,
  messages: 10_000,
  contentParts: 1000,
  stopStrings: 4,
  stopLength: 1024,
  stopTokenIds: 1024,
  badWords: 128,
  badWordTokens: 1024,
  logitBias: 1024,
  allowedTokenIds: 262_144,
  logprobTokenIds: 128,
  logprobs: 20,
  tools: 128,
  toolBytes: 512 * 1024,
  toolDepth: 32,
  templateBytes: 1024 * 1024,
  priority: false,
};
