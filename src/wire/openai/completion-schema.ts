/**
 * The body of POST /v1/completions, after vLLM's CompletionRequest
 * (vllm/entrypoints/openai/completion/protocol.py). Unknown fields are dropped.
 */
import { z } from "zod";
import { bool, int, shape, sharedFields } from "./_fields.ts";
import { PROMPTS_DOC } from "./_prompts.ts";

export const CompletionBody = z.object({
  ...sharedFields,
  prompt: shape(PROMPTS_DOC),
  prompt_embeds: shape({ description: "Refused with 400." }),
  echo: bool.nullish(),
  logprobs: int.nullish(),
  max_tokens: int.nullish(),
  n: int.optional(),
  suffix: z.string().nullish(),
});

export type CompletionBodyValue = z.infer<typeof CompletionBody>;
