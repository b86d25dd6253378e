/**
 * Items after a query → how likely a model that generates goes on with the first of some labels. One token is drawn for
 * each item and thrown away; what counts is the row of logits that it was drawn from.
 *
 * Invariant: all items are reserved at once, and the engine has a few of them at a time, so that a request with a
 * thousand stands beside others and not before them (Wall: T82).
 */
import type { CallEvent, Prompt, Usage } from "#core/calls.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { PositionLogprobs } from "#core/generate.ts";
import type { LabelCall, ScoreAnswer } from "#core/pool-calls.ts";
import type { Grant } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
import { encodePrompt } from "#prompt/encode.ts";
import { printPosition } from "#prompt/output.ts";
import type { ChoiceOutput, PromptWork } from "./_generate.ts";
import { answer } from "./_metered.ts";
import { priorityOf } from "./_priority.ts";
import { cacheSalt, owned, promptFromIds, requireTokenizable } from "./_prompt.ts";
import { requireInVocabulary, resolveSampling } from "./_sampling.ts";
import type { Serving } from "./context.ts";
import type { ServedModel } from "./models.ts";
import { unsupported } from "./pool.ts";

/** @throws Fault as decode does, model_not_found, and as Backend.generate does */
export async function scoreLabels(
  grant: Grant<"embeddings">,
  serving: Serving,
  call: LabelCall,
  signal: AbortSignal,
): Promise<ScoreAnswer> {
  const { principal, meter } = grant;
  const model = serving.models.resolve(call.model, principal);
  if (model.backend.model.pooling !== undefined) throw unsupported("Generative Scoring");
  requireInVocabulary("label_token_ids", call.labels, model.backend.model.vocabularySize);
  const priority = priorityOf(call.priority, principal, serving.priorities);
  const { badWordTokens, poolingTokens, scoringSequences } = capsFor(serving.caps, principal.caps);
  const output = owned(principal, { ...OUTPUT, ...given(call), logprobs: call.labels.length });
  const input = { temperature: 0, maxTokens: 1, logprobTokenIds: call.labels };
  const shared = await resolveSampling(input, { model, n: 1, logprobs: call.labels.length, badWordTokens });
  const prompts = await encodePrompts(call, model, poolingTokens);
  const sampling = { ...shared, maxTokens: 1 };
  const scores: number[] = [];
  const events = answer(
    {
      model,
      prompts: prompts.map((tokens): PromptWork => ({ tokens, sampling })),
      output: { ...output, priority },
      makeOutput: (choice) =>
        new LabelOutput(choice, (position) => {
          scores[choice] = share(position, call);
        }),
      printPosition: (position) => printPosition(model.tokenizer, position),
      observer: serving.observerOf(model),
      meter,
      cacheSalt: cacheSalt(principal, output),
      share: serving.shareOf(principal),
      atOnce: scoringSequences,
    },
    signal,
  );
  return { model: model.names[0], scores, usage: await usageOf(events) };
}

/** @throws Fault engine_failed | engine_unavailable: a sequence ended without its token */
async function usageOf(events: AsyncIterable<CallEvent>): Promise<Usage> {
  for await (const event of events) {
    if (event.type === "finish" && event.reason === "error")
      throw new Fault("engine_failed", "The engine failed while it worked on this request.");
    if (event.type === "finish" && event.reason === "abort")
      throw new Fault("engine_unavailable", "The request was aborted, try again later.", { retryAfterMs: 1000 });
    if (event.type === "usage" && event.final) return event.usage;
  }
  throw new Fault("internal", "The answer ended early.", { detail: "no usage event" });
}

const OUTPUT = {
  n: 1,
  stop: [],
  includeStopString: false,
  skipSpecialTokens: true,
  returnTokenIds: false,
  stream: false,
} as const;

function given({ callId, cacheSalt: salt }: LabelCall) {
  return { ...(callId === undefined ? {} : { callId }), ...(salt === undefined ? {} : { cacheSalt: salt }) };
}

/** Each within the window, with room for the one token. @throws Fault invalid_request */
async function encodePrompts(call: LabelCall, model: ServedModel, most: number): Promise<readonly Int32Array[]> {
  const query = await encode(call.query, "query", model, call.addSpecialTokens);
  const longest = model.backend.model.contextLength - 1;
  const prompts: Int32Array[] = [];
  let sum = 0;
  for (const [at, text] of call.items.entries()) {
    const item = await encode(text, `items.${at}`, model, false);
    const [first, second] = call.itemFirst ? [item, query] : [query, item];
    const whole = new Int32Array(first.length + second.length);
    whole.set(first);
    whole.set(second, first.length);
    const prompt = whole.slice(0, longest);
    if (prompt.length === 0) throw invalid(`items.${at}`, "The prompt cannot be empty.");
    sum += prompt.length;
    if (sum > most) throw invalid("items", `The prompts have more than ${most} tokens together; send fewer items.`);
    prompts.push(prompt);
  }
  return prompts;
}

async function encode(prompt: Prompt, field: string, model: ServedModel, specials: boolean): Promise<Int32Array> {
  if (typeof prompt !== "string") return promptFromIds(prompt, field, model);
  requireTokenizable(prompt, field, model, OUTPUT);
  await new Promise(setImmediate);
  return encodePrompt(model.tokenizer, prompt, specials);
}

function share({ top }: PositionLogprobs, { labels, amongLabels }: LabelCall): number {
  const first = top.find(({ token }) => token === labels[0])?.logprob ?? Number.NEGATIVE_INFINITY;
  if (!amongLabels) return Math.exp(first);
  const known = new Map(top.map(({ token, logprob }) => [token, logprob]));
  const wanted = [...new Set(labels)].map((label) => known.get(label) ?? Number.NEGATIVE_INFINITY);
  const largest = Math.max(...wanted);
  return Math.exp(first - largest) / wanted.reduce((sum, logprob) => sum + Math.exp(logprob - largest), 0);
}

/** Looks at the first token's position and prints nothing. */
class LabelOutput implements ChoiceOutput {
  ended = false;
  readonly reasoningTokens = 0;
  tokens = 0;
  readonly #choice: number;
  readonly #see: (position: PositionLogprobs) => void;

  constructor(choice: number, see: (position: PositionLogprobs) => void) {
    this.#choice = choice;
    this.#see = see;
  }

  push(tokens: readonly number[], logprobs: readonly PositionLogprobs[] | undefined): readonly [] {
    const first = logprobs?.[0];
    if (this.tokens === 0 && first !== undefined) this.#see(first);
    this.tokens += tokens.length;
    return [];
  }

  end(reason: Parameters<ChoiceOutput["end"]>[0]) {
    this.ended = true;
    return [{ type: "finish", choice: this.#choice, reason } as const];
  }
}
