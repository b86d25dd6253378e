/**
 * Where a thought begins and ends, as tokens of the model, and how much of it a request may have.
 * Called by chat.ts, complete.ts and _structured.ts.
 */
import type { SamplingInput } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { Tokenizer } from "#core/model.ts";
import type { ThinkingBudget } from "#core/sampling.ts";
import { REASONING_FORMS } from "#prompt/reasoning.ts";
import type { ServedModel } from "./models.ts";

interface Tags {
  readonly open: string;
  readonly close: string;
}

export interface TagTokens {
  readonly start: readonly number[];
  readonly end: readonly number[];
}

/** Whether the prompt ends with an opened thought. */
export function opensThought(model: ServedModel, prompt: string): boolean {
  const open = thoughtTags(model)?.open;
  return open !== undefined && prompt.trimEnd().endsWith(open);
}

/** What opens and closes a thought of the model, where both are one literal. */
function thoughtTags({ parsers }: ServedModel): Tags | undefined {
  return parsers.reasoning === undefined ? undefined : REASONING_FORMS[parsers.reasoning].tags;
}

/** Tags are one token each where the vocabulary has them, and text elsewhere. */
async function encodeTags(tokenizer: Tokenizer, tags: Tags): Promise<TagTokens> {
  const encode = async (tag: string): Promise<readonly number[]> => {
    const special = tokenizer.specials.find(({ text }) => text === tag);
    return special === undefined ? [...(await tokenizer.encodeText(tag))] : [special.id];
  };
  return { start: await encode(tags.open), end: await encode(tags.close) };
}

/** What closes a thought that the prompt has opened; undefined: it has opened none. */
export async function thoughtEnd(model: ServedModel, prompt: string): Promise<readonly number[] | undefined> {
  const tags = thoughtTags(model);
  if (tags === undefined || !opensThought(model, prompt)) return undefined;
  return (await encodeTags(model.tokenizer, tags)).end;
}

/**
 * What is left of `thinking_token_budget` after the prompt: a thought that it has opened counts from its tag on (vLLM).
 *
 * Tags in the prompt count as tokens; `text`, which a template made, tells where a tag is no token of its own.
 * @throws Fault invalid_request: the model marks no reasoning
 */
export async function thinkingBudget(
  { thinkingBudget: budget }: SamplingInput,
  model: ServedModel,
  prompt: Int32Array,
  text?: string,
): Promise<ThinkingBudget | undefined> {
  if (budget === undefined) return undefined;
  const field = "thinking_token_budget";
  const tags = thoughtTags(model);
  if (tags === undefined)
    throw invalid(field, `${field} is set but the model's reasoning is not marked by tags (--reasoning-parser).`);
  const { start, end } = await encodeTags(model.tokenizer, tags);
  const marked = model.tokenizer.specials.some((special) => special.text === tags.open);
  const opened = lastEnd(prompt, start);
  // Of a tag that is plain text nobody knows who wrote it: in a chat it may be the user.
  if ((marked || text === undefined) && opened > lastEnd(prompt, end))
    return { tokens: Math.max(0, budget - (prompt.length - opened)), open: true, start, end };
  return { tokens: budget, open: text !== undefined && opensThought(model, text), start, end };
}

/** Position behind the last place where the run stands; 0 = nowhere. */
function lastEnd(tokens: Int32Array, run: readonly number[]): number {
  for (let at = tokens.length - run.length; at >= 0; at--)
    if (run.every((token, i) => tokens[at + i] === token)) return at + run.length;
  return 0;
}
