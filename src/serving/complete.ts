/**
 * A completion call → events: each prompt is text or token ids, and all run at once.
 */
import type { CallEvent, CompletionCall, Prompt } from "#core/calls.ts";
import type { Grant } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
import { encodePrompt } from "#prompt/encode.ts";
import { printPosition } from "#prompt/output.ts";
import { textOutput } from "./_choice.ts";
import { answer } from "./_metered.ts";
import { priorityOf } from "./_priority.ts";
import { cacheSalt, owned, type PromptInput, planPrompt, promptFromIds, requireTokenizable } from "./_prompt.ts";
import { resolveSampling } from "./_sampling.ts";
import { grammarsFor, outputConstraint } from "./_structured.ts";
import { thinkingBudget } from "./_thinking.ts";
import type { Serving } from "./context.ts";
import type { ServedModel } from "./models.ts";
import { detokenizeAll } from "./tokenize.ts";

/**
 * @param field where the prompts stand in the request
 * @throws Fault as decode does, model_not_found, and as Backend.generate does
 */
export async function* complete(
  grant: Grant<"inference">,
  serving: Serving,
  call: CompletionCall,
  signal: AbortSignal,
  field = "prompt",
): AsyncGenerator<CallEvent> {
  const model = serving.models.resolve(call.model, grant.principal);
  const { output, sampling: input } = call;
  const priority = priorityOf(output.priority, grant.principal, serving.priorities);
  const { badWordTokens, grammarSeconds } = capsFor(serving.caps, grant.principal.caps);
  const shared = await resolveSampling(input, {
    model,
    n: output.beam === undefined ? output.n : 1,
    logprobs: output.logprobs,
    badWordTokens,
  });
  const encoded = await Promise.all(
    call.prompts.map((prompt, p) =>
      encodeOne(prompt, call.prompts.length === 1 ? field : `${field}.${p}`, model, call),
    ),
  );
  const constraint = await outputConstraint(output, grammarsFor(serving, grammarSeconds));
  const sampling = constraint === undefined ? shared : { ...shared, constraint };
  const prompts = await Promise.all(
    encoded.map(async (prompt) => {
      const thinking = await thinkingBudget(input, model, prompt.tokens);
      const own = thinking === undefined ? sampling : { ...sampling, thinking };
      return planPrompt(prompt, model, input, output, own);
    }),
  );
  yield* answer(
    {
      model,
      prompts,
      output: { ...owned(grant.principal, output), priority },
      makeOutput: (choice) => textOutput(serving.makeOutput, model, call, choice),
      printPosition: (position) => printPosition(model.tokenizer, position),
      observer: serving.observerOf(model),
      meter: grant.meter,
      cacheSalt: cacheSalt(grant.principal, output),
      share: serving.shareOf(grant.principal),
    },
    signal,
  );
}

/** @throws Fault invalid_request */
export async function encodeOne(
  prompt: Prompt,
  field: string,
  model: ServedModel,
  call: CompletionCall,
): Promise<PromptInput> {
  if (typeof prompt !== "string") {
    const tokens = promptFromIds(prompt, field, model);
    return { tokens, field, ...(call.echo ? { text: detokenizeAll(model.tokenizer, prompt) } : {}) };
  }
  requireTokenizable(prompt, field, model, call.output);
  return {
    tokens: await encodePrompt(model.tokenizer, prompt, call.addSpecialTokens),
    field,
    ...(call.echo ? { text: prompt } : {}),
  };
}
