/**
 * Rendered calls as bodies of POST /inference/v1/generate: what the client asked for, under the engine's names. What
 * it did not ask for stays out, so that the model's own defaults are found where it is generated.
 */
import { z } from "zod";
import { stringifyJson } from "#base/json.ts";
import type { OutputOptions, SamplingInput } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { StructuredOutput } from "#core/structured.ts";
import { isObject } from "#wire/openai/_compound.ts";
import { bool } from "#wire/openai/_fields.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";

const NOT_DONE = bool.nullish().meta({ description: "Only false." });
const ownFields = { return_token_offsets: NOT_DONE, return_mm_kwargs: NOT_DONE };

export const ChatRenderBody = ChatBody.extend(ownFields);
export const CompletionRenderBody = CompletionBody.extend(ownFields);

/** @throws Fault not_implemented: what nobody would find in the answer */
export function refuseOwnFields(
  body: { readonly [name in keyof typeof ownFields]?: boolean | null | undefined },
): void {
  const field = (["return_token_offsets", "return_mm_kwargs"] as const).find((name) => body[name] === true);
  if (field !== undefined)
    throw new Fault("not_implemented", `${field} is not supported by this server.`, { param: field });
}

export const RenderReply = z.object({
  request_id: z.string(),
  model: z.string(),
  token_ids: z.array(z.int().nonnegative()),
  features: z.null(),
  sampling_params: z.record(z.string(), z.unknown()),
  stream: z.boolean(),
  stream_options: z.record(z.string(), z.boolean()).nullable(),
  cache_salt: z.string().nullable(),
  priority: z.int(),
  kv_transfer_params: z.null(),
});

/** The structural tag of a request, if it has one. */
export function tagOf({ response_format: format, structured_outputs: outputs }: FormatBody): unknown {
  if (isObject(format) && format.type === "structural_tag") return format;
  return isObject(outputs) ? outputs.structural_tag : undefined;
}

interface FormatBody {
  readonly response_format?: unknown;
  readonly structured_outputs?: unknown;
}

export interface RenderedPrompt {
  readonly tokens: Int32Array;
  readonly maxTokens: number;
}

export interface RenderedCall {
  readonly id: string;
  /** Served name. */
  readonly model: string;
  readonly sampling: SamplingInput;
  readonly output: OutputOptions;
  /** The structural tag as the client wrote it, where the output has to follow one. */
  readonly tag: unknown;
  readonly usage: { readonly includeUsage: boolean; readonly continuousUsage: boolean };
}

export function encodeRendered({ tokens, maxTokens }: RenderedPrompt, call: RenderedCall): z.infer<typeof RenderReply> {
  const { output, usage } = call;
  const options = { include_usage: usage.includeUsage, continuous_usage_stats: usage.continuousUsage };
  return {
    request_id: call.id,
    model: call.model,
    token_ids: Array.from(tokens),
    features: null,
    sampling_params: printSampling({ ...call.sampling, maxTokens }, output, call.tag),
    stream: output.stream,
    stream_options: output.stream && usage.includeUsage ? options : null,
    cache_salt: output.cacheSalt ?? null,
    priority: output.priority ?? 0,
    kv_transfer_params: null,
  };
}

function printSampling(sampling: SamplingInput, output: OutputOptions, tag: unknown): Record<string, unknown> {
  const { repetition } = sampling;
  const fields = {
    n: output.n,
    temperature: sampling.temperature,
    top_k: sampling.topK,
    top_p: sampling.topP,
    min_p: sampling.minP,
    presence_penalty: sampling.presencePenalty,
    frequency_penalty: sampling.frequencyPenalty,
    repetition_penalty: sampling.repetitionPenalty,
    logit_bias: sampling.logitBias === undefined ? undefined : Object.fromEntries(sampling.logitBias),
    seed: sampling.seed,
    max_tokens: sampling.maxTokens,
    min_tokens: sampling.minTokens,
    stop: output.stop,
    stop_token_ids: sampling.stopTokenIds,
    include_stop_str_in_output: output.includeStopString,
    ignore_eos: sampling.ignoreEos,
    allowed_token_ids: sampling.allowedTokenIds,
    bad_words: sampling.badWords,
    logprobs: output.logprobs,
    prompt_logprobs: output.promptLogprobs,
    logprob_token_ids: sampling.logprobTokenIds,
    skip_special_tokens: output.skipSpecialTokens,
    structured_outputs: output.structured === undefined ? undefined : printStructured(output.structured, tag),
    thinking_token_budget: sampling.thinkingBudget,
    repetition_detection:
      repetition === undefined
        ? undefined
        : {
            max_pattern_size: repetition.maxSize,
            min_pattern_size: repetition.minSize,
            min_count: repetition.minCount,
          },
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function printStructured(wanted: StructuredOutput, tag: unknown): Record<string, unknown> {
  const compact = "compact" in wanted && wanted.compact ? { disable_any_whitespace: true } : {};
  switch (wanted.kind) {
    case "json_schema":
      return { json: wanted.schema, ...compact };
    case "json_object":
      return { json_object: true, ...compact };
    case "regex":
      return { regex: wanted.pattern };
    case "choice":
      return { choice: wanted.options };
    case "grammar":
      return { grammar: wanted.source };
    default:
      return { structural_tag: typeof tag === "string" ? tag : stringifyJson(tag) };
  }
}
