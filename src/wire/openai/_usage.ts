/**
 * Usage as vLLM prints it: prompt, total, completion, in this order (serve/engine/protocol.py, UsageInfo).
 */
import type { Usage } from "#core/calls.ts";

/** Server settings about usage. */
export interface UsageDetails {
  /** `prompt_tokens_details` (--enable-prompt-tokens-details). */
  readonly cachedTokens: boolean;
  /** `completion_tokens_details`: the model has a reasoning parser. */
  readonly reasoningTokens: boolean;
  /** A usage chunk in every stream (--enable-force-include-usage). */
  readonly always: boolean;
}

interface Counts {
  readonly prompt_tokens: number;
  readonly total_tokens: number;
  readonly completion_tokens: number;
}

export type PrintedUsage = Counts & {
  readonly prompt_tokens_details?: unknown;
  readonly completion_tokens_details?: unknown;
};

function counts(usage: Usage): Counts {
  return {
    prompt_tokens: usage.promptTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    completion_tokens: usage.completionTokens,
  };
}

/** Full responses: every field, null where there is nothing. */
export function fullUsage(usage: Usage, details: UsageDetails): PrintedUsage {
  return {
    ...counts(usage),
    prompt_tokens_details: details.cachedTokens ? { cached_tokens: usage.cachedTokens } : null,
    completion_tokens_details: details.reasoningTokens ? { reasoning_tokens: usage.reasoningTokens } : null,
  };
}

/** The usage chunk that ends a stream: only what is there. */
export function finalUsage(usage: Usage, details: UsageDetails): PrintedUsage {
  return {
    ...counts(usage),
    ...(details.cachedTokens ? { prompt_tokens_details: { cached_tokens: usage.cachedTokens } } : {}),
    ...(details.reasoningTokens ? { completion_tokens_details: { reasoning_tokens: usage.reasoningTokens } } : {}),
  };
}

/** Usage on every chunk: chat has its details field there, completions do not. */
export function runningUsage(usage: Usage, details: UsageDetails, kind: "chat" | "completion"): PrintedUsage {
  if (kind === "completion") return counts(usage);
  return {
    ...counts(usage),
    completion_tokens_details: details.reasoningTokens ? { reasoning_tokens: usage.reasoningTokens } : null,
  };
}
