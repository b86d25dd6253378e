/**
 * What the model's tokenizer is, for callers that build prompts themselves: no path, and bounded.
 */
import type { Grant } from "#core/principal.ts";
import type { Serving } from "./context.ts";

export interface TokenizerFacts {
  readonly vocabularySize: number;
  readonly contextLength: number;
  /** As chat requests are printed with; absent: the model has none. */
  readonly chatTemplate: string | undefined;
  readonly bos: string | undefined;
  readonly eos: string | undefined;
  readonly addsBos: boolean;
  /** The first of them, by id. */
  readonly specials: readonly { readonly id: number; readonly text: string; readonly control: boolean }[];
}

const MOST_SPECIALS = 1024;

/** Of the first model that the caller may use. @throws Fault model_not_found */
export function tokenizerFacts({ principal }: Grant<"tokenize">, { models }: Serving): TokenizerFacts {
  const { backend, tokenizer, template } = models.resolve(undefined, principal);
  const spelling = (token: number | undefined): string | undefined =>
    token === undefined ? undefined : tokenizer.spelling(token);
  return {
    vocabularySize: tokenizer.vocabularySize,
    contextLength: backend.model.contextLength,
    chatTemplate: template.source,
    bos: spelling(tokenizer.bos),
    eos: spelling(tokenizer.eos),
    addsBos: tokenizer.addsBos,
    specials: tokenizer.specials.slice(0, MOST_SPECIALS).map(({ id, text, control }) => ({ id, text, control })),
  };
}
