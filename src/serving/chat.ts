/**
 * A chat call → events: template, tokens, engine, and the answer split into text, reasoning and tool calls.
 */
import type { CallEvent, ChatCall } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { Grant } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
import { encodeChat } from "#prompt/encode.ts";
import { printPosition } from "#prompt/output.ts";
import { chatOutput, requireToolParser } from "./_choice.ts";
import { answer, type PreparedWork } from "./_metered.ts";
import { priorityOf } from "./_priority.ts";
import { cacheSalt, owned, planPrompt } from "./_prompt.ts";
import { resolveSampling } from "./_sampling.ts";
import { chatConstraint, grammarsFor } from "./_structured.ts";
import { thinkingBudget } from "./_thinking.ts";
import type { Serving } from "./context.ts";

/** @throws Fault as decode does, model_not_found, and as Backend.generate does */
export async function* chat(
  grant: Grant<"inference">,
  serving: Serving,
  call: ChatCall,
  signal: AbortSignal,
): AsyncGenerator<CallEvent> {
  yield* answer(await prepareChat(grant, serving, call), signal);
}

/**
 * One answer for each of several calls that differ in their messages only: choice i is that of call i. What they may
 * use is reserved at once, for all or none.
 * @param calls at least one; one choice each
 * @throws Fault as chat does
 */
export async function* chatEach(
  grant: Grant<"inference">,
  serving: Serving,
  calls: readonly ChatCall[],
  signal: AbortSignal,
): AsyncGenerator<CallEvent> {
  const works = await Promise.all(calls.map((call, i) => prepareChat(grant, serving, call, `messages.${i}`)));
  const [first] = works;
  if (first === undefined) throw new Fault("internal", "Internal server error.", { detail: "no call" });
  const makeOutput: PreparedWork["makeOutput"] = (choice) => (works[choice] ?? first).makeOutput(choice);
  yield* answer({ ...first, prompts: works.flatMap(({ prompts }) => prompts), makeOutput }, signal);
}

/**
 * Everything up to the engine.
 * @param field where the messages stand in the request
 * @throws Fault as decode does, model_not_found
 */
export async function prepareChat(
  grant: Grant<"inference">,
  serving: Serving,
  call: ChatCall,
  field = "messages",
): Promise<PreparedWork> {
  const model = serving.models.resolve(call.model, grant.principal);
  const { output, sampling: input } = call;
  requireToolParser(model, call);
  const priority = priorityOf(output.priority, grant.principal, serving.priorities);
  const { badWordTokens, grammarSeconds } = capsFor(serving.caps, grant.principal.caps);
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
  const constraint = await chatConstraint(call, model, text, grammarsFor(serving, grammarSeconds));
  const thinking = await thinkingBudget(input, model, tokens, text);
  const sampling = {
    ...shared,
    ...(constraint === undefined ? {} : { constraint }),
    ...(thinking === undefined ? {} : { thinking }),
  };
  const prompt = planPrompt({ tokens, text, field }, model, input, output, sampling);
  return {
    model,
    prompts: [prompt],
    output: { ...owned(grant.principal, output), priority },
    makeOutput: (choice) => chatOutput(serving.makeOutput, model, call, choice, text),
    printPosition: (position) => printPosition(model.tokenizer, position),
    observer: serving.observerOf(model),
    meter: grant.meter,
    cacheSalt: cacheSalt(grant.principal, output),
    share: serving.shareOf(grant.principal),
  };
}
