/**
 * --speculative-config: vLLM's JSON, as far as it means something here.
 */
import { z } from "zod";
import { JsonError, parseJson } from "#base/json.ts";
import { MAX_GUESSES, type SpeculationOptions } from "#engine/speculation/proposer.ts";
import { StartupError } from "./startup-error.ts";

const FLAG = "--speculative-config";

/** Names and meanings of vllm/config/speculative.py. */
const Config = z.strictObject({
  method: z.enum(["ngram", "draft_model"]).optional(),
  model: z.string().min(1).optional(),
  num_speculative_tokens: z.int().min(1).max(MAX_GUESSES),
  prompt_lookup_max: z.int().min(1).max(64).optional(),
  prompt_lookup_min: z.int().min(1).max(64).optional(),
  disable_by_batch_size: z.int().min(1).optional(),
});

export interface SpeculationPlan {
  readonly options: SpeculationOptions;
  /** A smaller model, as a model is named on the command line. */
  readonly draft: string | undefined;
}

/** @throws StartupError */
export function speculationPlan(text: string): SpeculationPlan {
  const parsed = Config.safeParse(json(text));
  if (!parsed.success) throw new StartupError(`${FLAG}: ${z.prettifyError(parsed.error).split("\n")[0]}`);
  const { model, num_speculative_tokens: tokens, disable_by_batch_size: disableAbove } = parsed.data;
  const ngram = model === "ngram" || model === "[ngram]";
  const method = parsed.data.method ?? (model === undefined || ngram ? "ngram" : "draft_model");
  const draft = method === "draft_model" ? model : undefined;
  if (method === "draft_model" && (draft === undefined || ngram))
    throw new StartupError(`${FLAG}: draft_model needs a "model", a GGUF of the same vocabulary`);
  if (method === "ngram" && model !== undefined && !ngram) throw new StartupError(`${FLAG}: ngram takes no "model"`);
  const { prompt_lookup_min: min, prompt_lookup_max: max } = parsed.data;
  // As vLLM: one of the two gives the other, and 5 stands for neither.
  const lookupMax = max ?? min ?? 5;
  const lookupMin = min ?? max ?? 5;
  if (lookupMin > lookupMax) throw new StartupError(`${FLAG}: prompt_lookup_min is over prompt_lookup_max`);
  return {
    options: { method, tokens, lookupMin, lookupMax, ...(disableAbove === undefined ? {} : { disableAbove }) },
    draft,
  };
}

function json(text: string): unknown {
  try {
    return parseJson(text);
  } catch (error) {
    if (error instanceof JsonError) throw new StartupError(`${FLAG} is not JSON: ${error.message}`);
    throw error;
  }
}
