/**
 * Fields that the pooling routes share (vllm/entrypoints/pooling/base/protocol.py) and what they mean.
 */
import { z } from "zod";
import { Fault, invalid } from "#core/fault.ts";
import type { PoolOptions, PoolSource, Truncation } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { bool, int, int64, shape } from "#wire/openai/_fields.ts";
import { decodeMessages } from "#wire/openai/_messages.ts";
import { decodeSalt } from "#wire/openai/_output.ts";
import { decodePrompts, PROMPTS_DOC } from "#wire/openai/_prompts.ts";
import { refuseUnsupported } from "#wire/openai/_refusals.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";
import { decodeTemplateOptions } from "#wire/openai/_template.ts";
import { MESSAGES_DOC } from "#wire/openai/chat-schema.ts";

const REFUSED = { description: "Refused with 400." };
const RENAMED = { deprecated: true, description: "Refused with 400: use_activation is its name." };

/** Of every route of the family but /v2/embed and /generative_scoring. */
export const basicFields = {
  model: z.string().nullish(),
  user: z.string().nullish(),
  truncate_prompt_tokens: int.gte(-1).nullish(),
  truncation_side: z.enum(["left", "right"]).nullish(),
  padding: z.enum(["max_length", "do_not_pad"]).nullish(),
  request_id: z.string().max(256).optional(),
  priority: int64.optional(),
  use_activation: bool.nullish(),
  cache_salt: z.string().nullish(),
  mm_processor_kwargs: shape({ type: "object", ...REFUSED }),
  chat_template: shape({ type: "string", ...REFUSED }),
  chat_template_kwargs: shape({ type: "object" }),
  normalize: shape(RENAMED),
  activation: shape(RENAMED),
  softmax: shape(RENAMED),
};

/** What to compute numbers of: `input`, or one conversation in `messages`. */
export const sourceFields = {
  input: shape(PROMPTS_DOC),
  messages: shape({ ...MESSAGES_DOC, description: "In place of input: the conversation under the model's template." }),
  add_special_tokens: bool.optional(),
  add_generation_prompt: bool.optional(),
  continue_final_message: bool.optional(),
  media_io_kwargs: shape({ type: "object", ...REFUSED }),
};

const Basic = z.object(basicFields);
const Source = z.object({ ...basicFields, ...sourceFields });
export type BasicBody = z.infer<typeof Basic>;
export type SourceBody = z.infer<typeof Source>;

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeOptions(body: BasicBody): PoolOptions {
  refuseUnsupported(body);
  for (const old of ["normalize", "activation", "softmax"] as const)
    if (body[old] !== undefined)
      throw invalid(old, `Parameter \`${old}\` was removed; use \`use_activation\` instead.`);
  // It names nothing here, as nothing is kept; a bad one is refused all the same.
  decodeSalt(body.cache_salt);
  if (body.padding === "max_length")
    throw new Fault("not_implemented", "padding is not supported by this server: inputs are as long as they are.", {
      param: "padding",
    });
  return dropAbsent<PoolOptions>({
    model: body.model ?? undefined,
    truncate: decodeTruncation(body),
    useActivation: body.use_activation ?? undefined,
    priority: body.priority,
    callId: undefined,
  });
}

function decodeTruncation({
  truncate_prompt_tokens: tokens,
  truncation_side: side,
}: BasicBody): Truncation | undefined {
  if (tokens === undefined || tokens === null) return undefined;
  return { tokens, side: side ?? "right", field: "truncate_prompt_tokens" };
}

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeSource(body: SourceBody, caps: RequestCaps): PoolSource {
  const chats = body.messages !== undefined && body.messages !== null;
  if (!chats)
    return {
      kind: "prompts",
      prompts: decodePrompts(body.input, "input", caps.poolingInputs),
      addSpecialTokens: body.add_special_tokens ?? true,
      field: "input",
    };
  if (body.input !== undefined && body.input !== null)
    throw invalid("input", "Give either input or messages, not both.");
  const template = { ...body, add_generation_prompt: body.add_generation_prompt ?? false };
  return {
    kind: "chat",
    messages: decodeMessages(body.messages, caps),
    template: decodeTemplateOptions(template, caps),
  };
}
