/**
 * Token ids that an engine drew → the events of a chat or a completion, as if they were drawn now: no engine's work.
 *
 * What stands in the request is the client's word, and is worth no more: it is printed back to the same client, and
 * nothing is kept.
 */
import type { CallEvent, ChatCall, ChoiceEvent, CompletionCall, Usage } from "#core/calls.ts";
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

/** A piece of one choice, behind all that was drawn of it before. */
export interface DrawnPart {
  readonly choice: number;
  readonly before: readonly number[];
  readonly tokens: readonly number[];
  /** The choice ends with this piece. */
  readonly reason: FinishReason | undefined;
  readonly fields: readonly [before: string, tokens: string];
}

export interface Part {
  /** Served name. */
  readonly model: string;
  readonly events: readonly ChoiceEvent[];
}

/** What a piece adds to a chat's answer; of no choice: nothing. @throws Fault invalid_request | model_not_found */
export async function derenderChatPart(
  grant: Grant<"tokenize">,
  serving: Serving,
  call: ChatCall,
  part: DrawnPart | undefined,
): Promise<Part> {
  const model = serving.models.resolve(call.model, grant.principal);
  requireToolParser(model, call);
  const { messages, tools, template } = call;
  const { text } = await encodeChat(model.tokenizer, model.template, { messages, tools, ...template });
  return addition(model, part, (choice) => chatOutput(serving.makeOutput, model, call, choice, text));
}

/** The same of a completion's. @throws Fault invalid_request | model_not_found */
export function derenderCompletionPart(
  grant: Grant<"tokenize">,
  serving: Serving,
  call: CompletionCall,
  part: DrawnPart | undefined,
): Part {
  const model = serving.models.resolve(call.model, grant.principal);
  return addition(model, part, (choice) => textOutput(serving.makeOutput, model, call, choice));
}

/** Nothing is kept between pieces, so what was said of those before is said again, to nobody. */
function addition(model: ServedModel, part: DrawnPart | undefined, makeOutput: (choice: number) => ChoiceOutput): Part {
  const [name] = model.names;
  if (part === undefined) return { model: name, events: [] };
  const { choice, before, tokens, reason, fields } = part;
  const vocabulary = model.backend.model.vocabularySize;
  requireInVocabulary(fields[0], before, vocabulary);
  requireInVocabulary(fields[1], tokens, vocabulary);
  const output = makeOutput(choice);
  // One by one, so that where the pieces were cut changes nothing.
  for (const token of before) output.push([token], undefined);
  const events: ChoiceEvent[] = tokens.flatMap((token) => output.push([token], undefined));
  if (reason !== undefined && !output.ended) events.push(...output.end(reason, undefined));
  return { model: name, events };
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
