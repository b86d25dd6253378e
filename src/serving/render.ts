/**
 * Chats and completions → the tokens and the budget with which the engine would be asked: everything but the engine.
 */
import type { ChatCall, CompletionCall } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { Grant } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
import { encodeChat } from "#prompt/encode.ts";
import { requireToolParser } from "./_choice.ts";
import { type PromptInput, planPrompt } from "./_prompt.ts";
import { resolveSampling } from "./_sampling.ts";
import { encodeOne } from "./complete.ts";
import type { Serving } from "./context.ts";
import type { ServedModel } from "./models.ts";

export interface Rendered {
  /** First served name. */
  readonly model: string;
  /** One a prompt. */
  readonly prompts: readonly { readonly tokens: Int32Array; readonly maxTokens: number }[];
}

/** @throws Fault invalid_request | not_implemented | model_not_found */
export async function renderChat(grant: Grant<"tokenize">, serving: Serving, call: ChatCall): Promise<Rendered> {
  const model = serving.models.resolve(call.model, grant.principal);
  requireToolParser(model, call);
  if (call.toolChoice !== "none" && call.toolChoice !== "auto")
    throw notRendered("tool_choice", "a forced tool_choice holds the answer to a grammar");
  const { messages, tools, template } = call;
  const { tokens } = await encodeChat(model.tokenizer, model.template, { messages, tools, ...template });
  return plan(grant, serving, model, call, [{ tokens, field: "messages" }]);
}

/** @throws Fault invalid_request | not_implemented | model_not_found */
export async function renderCompletion(
  grant: Grant<"tokenize">,
  serving: Serving,
  call: CompletionCall,
): Promise<Rendered> {
  const model = serving.models.resolve(call.model, grant.principal);
  const field = (p: number): string => (call.prompts.length === 1 ? "prompt" : `prompt.${p}`);
  const inputs = await Promise.all(call.prompts.map((prompt, p) => encodeOne(prompt, field(p), model, call)));
  return plan(grant, serving, model, call, inputs);
}

function notRendered(field: string, why: string): Fault {
  return new Fault("not_implemented", `${why}, which a rendered request cannot carry.`, { param: field });
}

async function plan(
  { principal }: Grant<"tokenize">,
  serving: Serving,
  model: ServedModel,
  { sampling, output }: ChatCall | CompletionCall,
  inputs: readonly PromptInput[],
): Promise<Rendered> {
  if (output.beam !== undefined) throw notRendered("use_beam_search", "use_beam_search draws no tokens");
  const { badWordTokens } = capsFor(serving.caps, principal.caps);
  const { n, logprobs } = output;
  const shared = await resolveSampling(sampling, { model, n, logprobs, badWordTokens });
  const prompts = inputs.map((input) => {
    const { tokens, sampling: planned } = planPrompt(input, model, sampling, output, shared);
    return { tokens, maxTokens: planned.maxTokens };
  });
  return { model: model.names[0], prompts };
}
