/**
 * The body of POST /v1/completions, after vLLM's CompletionRequest
 * (vllm/entrypoints/openai/completion/protocol.py). Unknown fields are dropped.
 */
import { z } from "zod";
import { bool, int, shape, sharedFields } from "./_fields.ts";

const IDS = { type: "array", items: { type: "integer", minimum: 0 } };

export const CompletionBody = z.object({
  ...sharedFields,
  prompt: shape({
    anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }, IDS, { type: "array", items: IDS }],
  }),
  prompt_embeds: shape({ description: "Refused with 400." }),
  echo: bool.nullish(),
  logprobs: int.nullish(),
  max_tokens: int.nullish(),
  n: int.optional(),
  suffix: z.string().nullish(),
});

export type CompletionBodyValue = z.infer<typeof CompletionBody>;
