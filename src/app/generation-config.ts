/**
 * --override-generation-config, --default-chat-template-kwargs and --embed-prefixes: JSON from the operator, checked like a request's.
 */
import { z } from "zod";
import type { SamplingInput } from "#core/calls.ts";
import { operatorJson, operatorObject } from "./operator-json.ts";
import { StartupError } from "./startup-error.ts";

/** Names and ranges of vLLM's generation config. */
const GenerationConfig = z.strictObject({
  temperature: z.number().min(0).max(2).optional(),
  top_k: z.int().min(-1).optional(),
  top_p: z.number().gt(0).max(1).optional(),
  min_p: z.number().min(0).max(1).optional(),
  repetition_penalty: z.number().gt(0).max(10).optional(),
  max_new_tokens: z.int().min(1).optional(),
});

/** @throws StartupError */
export function generationDefaults(text: string | undefined): SamplingInput {
  if (text === undefined) return {};
  const parsed = operatorObject("--override-generation-config", text, GenerationConfig);
  const {
    temperature,
    top_k: topK,
    top_p: topP,
    min_p: minP,
    repetition_penalty: repetitionPenalty,
    max_new_tokens: maxTokens,
  } = parsed;
  const given = { temperature, topK: topK === -1 ? 0 : topK, topP, minP, repetitionPenalty, maxTokens };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** @throws StartupError */
export function templateKwargs(text: string | undefined): Readonly<Record<string, unknown>> {
  if (text === undefined) return {};
  const value = operatorJson("--default-chat-template-kwargs", text);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new StartupError("--default-chat-template-kwargs is a JSON object");
  return value as Record<string, unknown>;
}

const Prefixes = z.record(z.string().max(64), z.string().max(4096));

/** @throws StartupError */
export function embedPrefixes(text: string | undefined): ReadonlyMap<string, string> {
  return new Map(text === undefined ? [] : Object.entries(operatorObject("--embed-prefixes", text, Prefixes)));
}
