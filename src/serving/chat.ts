/**
 * A chat call → events: template, tokens, engine, and the answer split into text, reasoning and tool calls.
 */
import type { CallEvent, ChatCall } from "#core/calls.ts";
import type { Grant } from "#core/principal.ts";
import { encodeChat } from "#prompt/encode.ts";
import { printPosition } from "#prompt/output.ts";
import { chatOutput, requireToolParser } from "./_choice.ts";
import { answer } from "./_metered.ts";
import { cacheSalt, planPrompt } from "./_prompt.ts";
import { resolveSampling } from "./_sampling.ts";
import { chatConstraint } from "./_structured.ts";
import { thinkingBudget } from "./_thinking.ts";
import type { Serving } from "./context.ts";

/** @throws Fault as decode does, model_not_found, and as Backend.generate does */
export async function* chat(
  grant: Grant<"inference">,
  serving: Serving,
  call: ChatCall,
  signal: AbortSignal,
): AsyncGenerator<CallEvent> {
  const model = serving.models.resolve(call.model, grant.principal);
  const { output, sampling: input } = call;
  requireToolParser(model, call);
  const { badWordTokens } = serving;
  const shared = await resolveSampling(input, {
    model,
    n: output.beam === undefined ? output.n : 1,
    logprobs: output.logprobs,
    badWordTokens,
  });
  const { tokens, text } = await encodeChat(model.tokenizer, model.template, {
    messages: call.messages,
    tools: call.tools,
    ...call.template,
  });
  const constraint = await chatConstraint(call, model, text, serving.grammars);
  const thinking = await thinkingBudget(input, model, tokens, text);
  const sampling = {
    ...shared,
    ...(constraint === undefined ? {} : { constraint }),
    ...(thinking === undefined ? {} : { thinking }),
  };
  const prompt = planPrompt({ tokens, text, field: "messages" }, model, input, output, sampling);
  yield* answer(
    {
      model,
      prompts: [prompt],
      output,
      makeOutput: (choice) => chatOutput(serving.makeOutput, model, call, choice, text),
      printPosition: (position) => printPosition(model.tokenizer, position),
      observer: serving.observerOf(model),
      meter: grant.meter,
      cacheSalt: cacheSalt(grant.principal, output),
      share: serving.shareOf(grant.principal.tenant),
    },
    signal,
  );
}
