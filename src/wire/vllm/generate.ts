/**
 * POST /inference/v1/generate: token ids in, token ids out (vllm/entrypoints/serve/disagg/protocol.py). The sampling
 * parameters are those of a completion, under the engine's names.
 */
import { z } from "zod";
import type { CompletionCall } from "#core/calls.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { requireTokenIds } from "#wire/openai/_compound.ts";
import { bool, int, int64, shape, sharedFields } from "#wire/openai/_fields.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";
import { type CompletionPrint, decodeCompletion } from "#wire/openai/completion-decode.ts";

const { frequency_penalty, presence_penalty, repetition_penalty, temperature, top_p, top_k, min_p } = sharedFields;
const { logit_bias, seed, stop, stop_token_ids, include_stop_str_in_output, ignore_eos, min_tokens } = sharedFields;
const { skip_special_tokens, spaces_between_special_tokens, prompt_logprobs, logprob_token_ids } = sharedFields;
const { allowed_token_ids, bad_words, structured_outputs, repetition_detection, thinking_token_budget } = sharedFields;

const REFUSED = { description: "Refused with 400." };

export const SamplingBody = z.object({
  n: int.optional(),
  frequency_penalty,
  presence_penalty,
  repetition_penalty,
  temperature,
  top_p,
  top_k,
  min_p,
  seed,
  logit_bias,
  stop,
  stop_token_ids,
  include_stop_str_in_output,
  ignore_eos,
  max_tokens: int.nullish(),
  min_tokens,
  logprobs: int.nullish(),
  prompt_logprobs,
  logprob_token_ids,
  skip_special_tokens,
  spaces_between_special_tokens,
  allowed_token_ids,
  bad_words,
  structured_outputs,
  repetition_detection,
  thinking_token_budget,
  logits_processors: shape(REFUSED),
  extra_args: shape(REFUSED),
});

export const GenerateBody = z.object({
  request_id: z.string().max(256).nullish(),
  model: z.string().nullish(),
  token_ids: z.unknown().meta({ type: "array", minItems: 1, items: { type: "integer", minimum: 0 } }),
  sampling_params: SamplingBody.nullish(),
  features: shape(REFUSED),
  content_parts: shape(REFUSED),
  return_token_ids: bool.nullish(),
  output_mode: z.enum(["tokens", "text"]).nullish(),
  stream: bool.nullish(),
  stream_options: sharedFields.stream_options,
  cache_salt: z.string().nullish(),
  priority: int64.nullish(),
  kv_transfer_params: shape(REFUSED),
  ec_transfer_params: shape(REFUSED),
  reasoning_parser_kwargs: shape(REFUSED),
});

export interface GeneratePrint extends CompletionPrint {
  /** `output_mode: "text"`: the text besides the ids. */
  readonly text: boolean;
  /** `return_token_ids`: the prompt's, too. */
  readonly promptIds: boolean;
}

export interface DecodedGenerate {
  readonly call: CompletionCall;
  readonly print: GeneratePrint;
}

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeGenerate(body: z.infer<typeof GenerateBody>, caps: RequestCaps): DecodedGenerate {
  const { sampling_params: sampling, request_id: _, return_token_ids: promptIds, ...own } = body;
  // A client's word for what its media hash to would meet others' in the cache.
  for (const field of ["features", "content_parts", "reasoning_parser_kwargs"] as const)
    requireNothing(own[field], field);
  requireNothing(sampling?.extra_args, "sampling_params.extra_args");
  const prompt = requireTokenIds(body.token_ids, "token_ids", Number.POSITIVE_INFINITY);
  if (prompt.length === 0) throw invalid("token_ids", "token_ids must hold at least one id.");
  const { stream, stream_options, cache_salt, kv_transfer_params, ec_transfer_params } = own;
  const { call, print } = within(sampling ?? {}, () =>
    decodeCompletion(
      dropAbsent<Parameters<typeof decodeCompletion>[0]>({
        ...sampling,
        model: own.model,
        prompt,
        stream,
        stream_options,
        cache_salt,
        kv_transfer_params,
        ec_transfer_params,
        priority: own.priority ?? undefined,
        return_token_ids: true,
      }),
      caps,
    ),
  );
  const { output } = call;
  const field = output.structured === undefined ? {} : { structuredField: "sampling_params.structured_outputs" };
  return {
    call: { ...call, output: { ...output, ...field } },
    print: { ...print, text: body.output_mode === "text", promptIds: promptIds ?? false },
  };
}

function requireNothing(value: unknown, field: string): void {
  if (value === undefined || value === null) return;
  if (typeof value === "object" && Object.keys(value).length === 0) return;
  throw invalid(field, `${field} is not accepted from clients.`);
}

/** A failure's field, where it stands in this body. */
function within<T>(sampling: object, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    const name = error instanceof Fault ? error.param?.split(".")[0] : undefined;
    if (!(error instanceof Fault) || name === undefined || !Object.hasOwn(sampling, name)) throw error;
    throw new Fault(error.kind, error.message, { param: `sampling_params.${error.param}` });
  }
}
