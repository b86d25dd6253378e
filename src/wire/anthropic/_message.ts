/**
 * What a whole message and the two ends of a stream have in common: its head, why it stopped, what it used.
 */
import type { CallEvent, Usage } from "#core/calls.ts";

export interface MessageIdentity {
  /** `msg_…`. */
  readonly id: string;
  /** Whether cached prompt tokens are told apart (--enable-prompt-tokens-details). */
  readonly cachedTokens: boolean;
  /** Seals a thought. As vLLM's it proves nothing: whoever sends a thought back is believed. */
  readonly signature: () => string;
}

export type Finish = Extract<CallEvent, { type: "finish" }>;

export interface Stop {
  readonly stop_reason: string | null;
  readonly stop_sequence: string | null;
}

export const NOT_STOPPED: Stop = { stop_reason: null, stop_sequence: null };

/** @param called whether the message has a tool_use block: one that the client asked for by name counts, too */
export function printStop(finish: Finish | undefined, called: boolean): Stop {
  switch (finish?.reason) {
    case "length":
      return { stop_reason: "max_tokens", stop_sequence: null };
    case "tool_calls":
    case "stop":
      if (called) return { stop_reason: "tool_use", stop_sequence: null };
      return typeof finish.stop === "string"
        ? { stop_reason: "stop_sequence", stop_sequence: finish.stop }
        : { stop_reason: "end_turn", stop_sequence: null };
    default:
      return NOT_STOPPED;
  }
}

/** Anthropic's sums: input_tokens are those that were not read from a cache. */
export function printUsage(usage: Usage, { cachedTokens }: Pick<MessageIdentity, "cachedTokens">) {
  const cached = cachedTokens ? usage.cachedTokens : 0;
  return {
    input_tokens: usage.promptTokens - cached,
    output_tokens: usage.completionTokens,
    cache_creation_input_tokens: null,
    cache_read_input_tokens: cachedTokens ? cached : null,
  };
}

export function messageHead({ id }: MessageIdentity, model: string) {
  return { id, type: "message", role: "assistant", model } as const;
}
