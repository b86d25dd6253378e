/**
 * Token ids that an engine drew → the events of a chat or a completion, as if they were drawn now: no engine's work.
 *
 * What stands in the request is the client's word, and is worth no more: it is printed back to the same client, and
 * nothing is kept.
 */
import type { CallEvent, ChatCall, CompletionCall, Usage } from "#core/calls.ts";
import type { FinishReason } from "#core/generate.ts";
import type { Grant } from "#core/principal.ts";
import { encodeChat } from "#prompt/encode.ts";
import { chatOutput, requireToolParser, textOutput } from "./_choice.ts";
import type { ChoiceOutput } from "./_generate.ts";
import { requireInVocabulary } from "./_sampling.ts";
import type { Serving } from "./context.ts";
import type { ServedModel } from "./models.ts";

export interface Drawn {
  /** One a choice, in their order. */
  readonly choices: readonly { readonly tokens: readonly number[]; readonly reason: FinishReason }[];
  /** Of all prompts; absent: those of the call's own. */
  readonly promptTokens: number | undefined;
  /** Where the ids stand in the request. */
  readonly field: string;
}

/** @throws Fault invalid_request | model_not_found */
export async function* derenderChat(
  grant: Grant<"tokenize">,
  serving: Serving,
  call: ChatCall,
  drawn: Drawn,
): AsyncGenerator<CallEvent> {
  const model = serving.models.resolve(call.model, grant.principal);
  requireToolParser(model, call);
  const { messages, tools, template } = call;
  const prompt = await encodeChat(model.tokenizer, model.template, { messages, tools, ...template });
  const start = { tokenIds: Array.from(prompt.tokens), text: prompt.text };
  yield* replay(model, drawn, [start], (choice) => chatOutput(serving.makeOutput, model, call, choice, prompt.text));
}

/** @throws Fault invalid_request | model_not_found */
export async function* derenderCompletion(
  grant: Grant<"tokenize">,
  serving: Serving,
  call: CompletionCall,
  drawn: Drawn,
): AsyncGenerator<CallEvent> {
  const model = serving.models.resolve(call.model, grant.principal);
  const starts = call.prompts.map((prompt) =>
    typeof prompt === "string" ? { tokenIds: [], text: prompt } : { tokenIds: prompt },
  );
  yield* replay(model, drawn, starts, (choice) => textOutput(serving.makeOutput, model, call, choice));
}

type Start = Extract<CallEvent, { type: "start" }>["prompts"];

function* replay(
  model: ServedModel,
  { choices, promptTokens, field }: Drawn,
  prompts: Start,
  makeOutput: (choice: number) => ChoiceOutput,
): Generator<CallEvent> {
  const vocabulary = model.backend.model.vocabularySize;
  for (const [i, { tokens }] of choices.entries()) requireInVocabulary(`${field}.${i}.token_ids`, tokens, vocabulary);
  yield { type: "start", model: model.names[0], prompts };
  let reasoningTokens = 0;
  for (const [choice, { tokens, reason }] of choices.entries()) {
    const output = makeOutput(choice);
    yield* output.push(tokens, undefined);
    if (!output.ended) yield* output.end(reason, undefined);
    reasoningTokens += output.reasoningTokens;
  }
  const usage: Usage = {
    promptTokens: promptTokens ?? prompts.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0),
    completionTokens: choices.reduce((sum, { tokens }) => sum + tokens.length, 0),
    cachedTokens: 0,
    reasoningTokens,
  };
  yield { type: "usage", usage, final: true };
}
