/**
 * Templates of rerankers: a query and a document → one text, with the record of which parts the template wrote.
 *
 * Two forms. A GGUF's `tokenizer.chat_template.rerank` is a text with `{query}` and `{document}` in it, as llama.cpp
 * reads it; both are filled in one pass, so a query that spells `{document}` stays what it is. Jinja is what vLLM
 * takes from `--chat-template`: a conversation of one message with the role `query` and one with the role `document`.
 * Callers: app makes them, serving asks them.
 */
import { Fault } from "#core/fault.ts";
import { RunBuilder } from "./_provenance.ts";
import { type ChatTemplate, compileTemplate, type Rendered, TemplateSourceError } from "./template.ts";

export interface Pair {
  readonly query: string;
  readonly document: string;
  /** Variables for a template in Jinja, from the client (chat_template_kwargs). */
  readonly kwargs: Readonly<Record<string, unknown>>;
  readonly bosToken: string;
  readonly eosToken: string;
}

export interface PairTemplate {
  /** The template writes every token: none of the model's own are put around the text. */
  readonly complete: boolean;
  /** @throws Fault invalid_request */
  render(pair: Pair): Rendered;
}

/** With a template that cannot be used, scoring gets a clear 400 and every other route works. */
export function pairTemplate(source: string): PairTemplate {
  if (/\{[{%]/.test(source)) return jinja(source);
  const parts = source.split(/(\{query\}|\{document\})/);
  for (const needed of ["{query}", "{document}"]) if (!parts.includes(needed)) return refusing(`it has no ${needed}`);
  return { complete: true, render: (pair) => fill(parts, pair) };
}

function refusing(why: string): PairTemplate {
  const message = `The model's template for queries and documents cannot be used: ${why}.`;
  return {
    complete: true,
    render: () => {
      throw new Fault("invalid_request", message, { param: "model" });
    },
  };
}

function fill(parts: readonly string[], { query, document }: Pair): Rendered {
  const runs = new RunBuilder();
  let text = "";
  for (const part of parts) {
    const own = part === "{query}" ? query : part === "{document}" ? document : undefined;
    text += own ?? part;
    runs.add((own ?? part).length, own === undefined);
  }
  return { text, runs: runs.runs() };
}

function jinja(source: string): PairTemplate {
  let template: ChatTemplate;
  try {
    template = compileTemplate(source);
  } catch (error) {
    if (error instanceof TemplateSourceError) return refusing(error.message);
    throw error;
  }
  return {
    complete: false,
    render: ({ query, document, ...given }) =>
      template.render({
        ...given,
        messages: [
          { role: "query", content: query },
          { role: "document", content: document },
        ],
        tools: [],
        addGenerationPrompt: false,
        continueFinalMessage: false,
      }),
  };
}
