/**
 * POST /tokenize and /detokenize, after vllm/entrypoints/serve/tokenize/protocol.py.
 */
import { z } from "zod";
import type { TemplateOptions } from "#core/calls.ts";
import type { ChatMessage, ToolDefinition } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { requireTokenIds } from "#wire/openai/_compound.ts";
import { bool, shape } from "#wire/openai/_fields.ts";
import { decodeMessages } from "#wire/openai/_messages.ts";
import { refuseUnsupported } from "#wire/openai/_refusals.ts";
import { decodeTemplateOptions } from "#wire/openai/_template.ts";
import { decodeTools } from "#wire/openai/_tools.ts";
import { MESSAGES_DOC, TOOLS_DOC } from "#wire/openai/chat-schema.ts";

/** Prompt form or chat form; exactly one of `prompt` and `messages`. */
export const TokenizeBody = z.object({
  model: z.string().nullish(),
  prompt: z.string().nullish(),
  messages: shape(MESSAGES_DOC),
  add_special_tokens: bool.optional(),
  return_token_strs: bool.nullish(),
  add_generation_prompt: bool.optional(),
  continue_final_message: bool.optional(),
  tools: shape(TOOLS_DOC),
  documents: shape({ type: "array", items: { type: "object" } }),
  chat_template: shape({ description: "Refused with 400." }),
  chat_template_kwargs: shape({ type: "object" }),
  media_io_kwargs: shape({ description: "Refused with 400." }),
  mm_processor_kwargs: shape({ description: "Refused with 400." }),
});

export const DetokenizeBody = z.object({
  model: z.string().nullish(),
  tokens: z.unknown().meta({ type: "array", items: { type: "integer", minimum: 0 } }),
});

export interface TokenizeCall {
  readonly model: string | undefined;
  readonly source:
    | { readonly kind: "prompt"; readonly prompt: string; readonly addSpecialTokens: boolean }
    | {
        readonly kind: "chat";
        readonly messages: readonly ChatMessage[];
        readonly tools: readonly ToolDefinition[];
        readonly template: TemplateOptions;
      };
  readonly withSpellings: boolean;
}

export interface DetokenizeCall {
  readonly model: string | undefined;
  readonly tokens: readonly number[];
}

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeTokenize(body: z.infer<typeof TokenizeBody>, caps: RequestCaps): TokenizeCall {
  refuseUnsupported(body);
  const hasPrompt = typeof body.prompt === "string";
  const hasMessages = body.messages !== undefined && body.messages !== null;
  if (hasPrompt && hasMessages) throw invalid("prompt", "Give either prompt or messages, not both.");
  const common = { model: body.model ?? undefined, withSpellings: body.return_token_strs ?? false };
  if (hasMessages) {
    const messages = decodeMessages(body.messages, caps);
    return {
      ...common,
      source: {
        kind: "chat",
        messages,
        tools: decodeTools(body.tools, caps),
        template: decodeTemplateOptions(body, caps),
      },
    };
  }
  if (!hasPrompt) throw invalid("prompt", "Either prompt or messages is required.");
  return {
    ...common,
    source: { kind: "prompt", prompt: body.prompt ?? "", addSpecialTokens: body.add_special_tokens ?? true },
  };
}

/** @throws Fault invalid_request */
export function decodeDetokenize(body: z.infer<typeof DetokenizeBody>): DetokenizeCall {
  return { model: body.model ?? undefined, tokens: requireTokenIds(body.tokens, "tokens", Number.POSITIVE_INFINITY) };
}

export const TokenizeReply = z.object({
  count: z.int(),
  max_model_len: z.int(),
  tokens: z.array(z.int()),
  token_strs: z.array(z.string()).nullable(),
});

export const DetokenizeReply = z.object({ prompt: z.string() });

export interface Tokenized {
  readonly tokens: readonly number[];
  readonly contextLength: number;
  readonly spellings?: readonly string[];
}

export function encodeTokenize(result: Tokenized): z.infer<typeof TokenizeReply> {
  return {
    count: result.tokens.length,
    max_model_len: result.contextLength,
    tokens: [...result.tokens],
    token_strs: result.spellings === undefined ? null : [...result.spellings],
  };
}
