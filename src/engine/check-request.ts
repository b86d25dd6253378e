/**
 * Judges a request before any engine sees it. Called by fleet.ts.
 */
import { invalid } from "#core/fault.ts";
import type { GenerateRequest } from "#core/generate.ts";
import { type ModelInfo, tasksOf } from "#core/model.ts";

/** @throws Fault invalid_request, naming the field */
export function checkRequest({ prompt, samples }: GenerateRequest, model: ModelInfo): void {
  const { contextLength, vocabularySize } = model;
  const tasks = tasksOf(model);
  if (!tasks.includes("generate")) throw invalid("model", `the model does not generate; it serves ${tasks.join(", ")}`);
  if (prompt.length === 0) throw invalid("prompt", "the prompt is empty");
  if (prompt.length > contextLength) {
    throw invalid("prompt", `the prompt has ${prompt.length} tokens, the context holds ${contextLength}`);
  }
  for (const token of prompt) {
    if (token < 0 || token >= vocabularySize) throw invalid("prompt", `token ${token} is not in the vocabulary`);
  }
  if (!Number.isInteger(samples) || samples < 1) throw invalid("n", "n is at least 1");
}
