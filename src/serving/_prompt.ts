/**
 * From a prompt's tokens to work for the engine: vocabulary, truncation, window.
 */
import type { OutputOptions, SamplingInput } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import { ownedKey } from "#core/owned.ts";
import type { Principal } from "#core/principal.ts";
import type { PromptWork } from "./_generate.ts";
import { budget, requireInVocabulary, type SharedSampling } from "./_sampling.ts";
import type { ServedModel } from "./models.ts";

export interface PromptInput {
  readonly tokens: Int32Array;
  readonly text?: string;
  /** The request's field, for messages: `prompt`, `prompt.3`, `messages`. */
  readonly field: string;
}

/** @throws Fault invalid_request: empty, or too long with the budget */
export function planPrompt(
  input: PromptInput,
  model: ServedModel,
  request: SamplingInput,
  output: OutputOptions,
  shared: SharedSampling,
): PromptWork {
  const window = model.backend.model.contextLength;
  const tokens = truncate(input.tokens, output.truncatePrompt, window, request.maxTokens ?? 0);
  if (tokens.length === 0) throw invalid(input.field, "The prompt cannot be empty.");
  const maxTokens = budget(request, model, { prompt: tokens.length, window }, input.field);
  return {
    tokens,
    ...(input.text === undefined ? {} : { text: input.text }),
    sampling: {
      ...shared,
      maxTokens,
      ...(output.promptLogprobs === undefined ? {} : { promptLogprobs: output.promptLogprobs }),
    },
  };
}

/** @throws Fault invalid_request: an id outside the vocabulary */
export function promptFromIds(ids: readonly number[], field: string, model: ServedModel): Int32Array {
  requireInVocabulary(field, ids, model.backend.model.vocabularySize);
  return Int32Array.from(ids);
}

/**
 * Text that cannot fit is refused before it is tokenised: no token stands for more than `maxPieceBytes`.
 * @throws Fault invalid_request
 */
export function requireTokenizable(text: string, field: string, model: ServedModel, output: OutputOptions): void {
  if (output.truncatePrompt !== undefined) return;
  const window = model.backend.model.contextLength;
  const least = Math.ceil(Buffer.byteLength(text) / model.tokenizer.maxPieceBytes);
  if (least > window)
    throw invalid(
      field,
      `This model's maximum context length is ${window} tokens. However, your prompt has at least ${least} input tokens.`,
    );
}

function truncate(
  tokens: Int32Array,
  wanted: OutputOptions["truncatePrompt"],
  window: number,
  maxTokens: number,
): Int32Array {
  if (wanted === undefined) return tokens;
  if (wanted.tokens > window) {
    throw invalid(
      "truncate_prompt_tokens",
      `truncate_prompt_tokens value (${wanted.tokens}) is greater than max_model_len (${window}).`,
    );
  }
  // -1: what the window leaves, with room for one token where no budget is given.
  const keep = wanted.tokens === -1 ? Math.max(0, window - Math.max(1, maxTokens)) : wanted.tokens;
  if (tokens.length <= keep) return tokens;
  return wanted.side === "left" ? tokens.slice(tokens.length - keep) : tokens.slice(0, keep);
}

/** Two tenants never share a prefix, whatever salt a client sends: a NUL cannot stand in either part. */
export function cacheSalt(principal: Principal, output: OutputOptions): string {
  return ownedKey(principal.tenant, output.cacheSalt ?? "");
}

/** The answer's id as the engine knows it: the client may have chosen it, so it is the tenant's own. */
export function owned(principal: Principal, output: OutputOptions): OutputOptions {
  if (output.callId === undefined) return output;
  return { ...output, callId: ownedKey(principal.tenant, output.callId) };
}
