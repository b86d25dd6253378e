/**
 * A completion request → core.
 */
import type { CompletionCall } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { decodeOutput, decodePrint, type Print } from "./_output.ts";
import { decodePrompts } from "./_prompts.ts";
import { refuseUnsupported } from "./_refusals.ts";
import { decodeLogprobs, decodeN, decodeSampling, dropAbsent } from "./_sampling.ts";
import type { CompletionBodyValue } from "./completion-schema.ts";

export interface CompletionPrint extends Print {
  readonly echo: boolean;
}

export interface DecodedCompletion {
  readonly call: CompletionCall;
  readonly print: CompletionPrint;
}

/** What vLLM generates when nothing is said (OpenAI's own default). */
const DEFAULT_MAX_TOKENS = 16;

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeCompletion(body: CompletionBodyValue, caps: RequestCaps): DecodedCompletion {
  refuseUnsupported(body);
  const prompts = decodePrompts(body.prompt, "prompt", caps.completionPrompts);
  if (body.prompt === "") throw invalid("prompt", "prompt must be provided and non-empty.");
  const n = decodeN(body.n, prompts.length, caps);
  const logprobs = decodeLogprobs("logprobs", body.logprobs, caps);
  const echo = body.echo ?? false;
  const maxTokens = decodeBudget(body.max_tokens, echo);
  if (maxTokens === 0 && Array.isArray(body.logprob_token_ids))
    throw invalid("logprob_token_ids", "`logprob_token_ids` is not supported when no tokens are generated.");
  const call = dropAbsent<CompletionCall>({
    model: body.model ?? undefined,
    prompts,
    echo,
    addSpecialTokens: body.add_special_tokens ?? true,
    sampling: decodeSampling(body, caps, maxTokens, logprobs !== undefined),
    output: decodeOutput(body, caps, { n, logprobs, echoLogprobs: echo ? logprobs : undefined, maxTokens }),
  });
  return { call, print: { ...decodePrint(body, logprobs), echo } };
}

function decodeBudget(value: number | null | undefined, echo: boolean): number {
  const tokens = value ?? DEFAULT_MAX_TOKENS;
  if (tokens < 0 || (tokens === 0 && !echo))
    throw invalid("max_tokens", `max_tokens must be at least 1, got ${tokens}.`);
  return tokens;
}
