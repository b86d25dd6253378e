/**
 * /tokenize and /detokenize: the tokenizer and the template without the engine.
 */
import type { TemplateOptions } from "#core/calls.ts";
import type { ChatMessage, ToolDefinition } from "#core/chat.ts";
import type { Tokenizer } from "#core/model.ts";
import type { Grant } from "#core/principal.ts";
import { encodeChat, encodePrompt } from "#prompt/encode.ts";
import { requireInVocabulary } from "./_sampling.ts";
import type { Serving } from "./context.ts";

export type TokenizeSource =
  | { readonly kind: "prompt"; readonly prompt: string; readonly addSpecialTokens: boolean }
  | {
      readonly kind: "chat";
      readonly messages: readonly ChatMessage[];
      readonly tools: readonly ToolDefinition[];
      readonly template: TemplateOptions;
    };

export interface TokenizeRequest {
  readonly model: string | undefined;
  readonly source: TokenizeSource;
  readonly withSpellings: boolean;
}

export interface TokenizeResult {
  readonly tokens: readonly number[];
  readonly contextLength: number;
  /** The vocabulary's own spelling of each token, when asked for. */
  readonly spellings?: readonly string[];
}

/** @throws Fault invalid_request | model_not_found */
export async function tokenize(
  grant: Grant<"tokenize">,
  serving: Serving,
  request: TokenizeRequest,
): Promise<TokenizeResult> {
  const { backend, tokenizer, template } = serving.models.resolve(request.model, grant.principal);
  const { source } = request;
  const tokens =
    source.kind === "prompt"
      ? await encodePrompt(tokenizer, source.prompt, source.addSpecialTokens)
      : (await encodeChat(tokenizer, template, { messages: source.messages, tools: source.tools, ...source.template }))
          .tokens;
  const ids = Array.from(tokens);
  return {
    tokens: ids,
    contextLength: backend.model.contextLength,
    ...(request.withSpellings ? { spellings: ids.map((id) => tokenizer.spelling(id)) } : {}),
  };
}

/** @throws Fault invalid_request (an id outside the vocabulary) | model_not_found */
export function detokenize(
  grant: Grant<"tokenize">,
  serving: Serving,
  request: { readonly model: string | undefined; readonly tokens: readonly number[] },
): string {
  const model = serving.models.resolve(request.model, grant.principal);
  requireInVocabulary("tokens", request.tokens, model.backend.model.vocabularySize);
  return detokenizeAll(model.tokenizer, request.tokens);
}

/** Control tokens are spelt out; bytes that are no UTF-8 become U+FFFD. */
export function detokenizeAll(tokenizer: Pick<Tokenizer, "piece">, tokens: readonly number[]): string {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return (
    tokens.map((token) => decoder.decode(tokenizer.piece(token, true), { stream: true })).join("") + decoder.decode()
  );
}
