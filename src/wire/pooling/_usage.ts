/**
 * Usage as vLLM prints it where nothing is generated, and where it is.
 */
import { z } from "zod";
import type { Usage } from "#core/calls.ts";

export interface PrintedUsage {
  readonly prompt_tokens: number;
  readonly total_tokens: number;
  readonly completion_tokens: number;
  readonly prompt_tokens_details: null;
}

export function poolUsage({ promptTokens, completionTokens }: Usage): PrintedUsage {
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completionTokens,
    completion_tokens: completionTokens,
    prompt_tokens_details: null,
  };
}

const count = z.int().min(0);

export const PoolUsageReply = z.object({
  prompt_tokens: count,
  total_tokens: count,
  completion_tokens: count,
  prompt_tokens_details: z.null(),
});
