/**
 * Completion events → the full response object, field for field as vLLM's CompletionResponse dumps it.
 */
import type { CallEvent, PrintedPosition, Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { CompletionChoice, Prompts } from "./_completion-choice.ts";
import { promptLogprobs } from "./_logprobs.ts";
import { fullUsage } from "./_usage.ts";
import { requireHealthy } from "./chat-encode.ts";
import type { CompletionPrint } from "./completion-decode.ts";
import type { Identity } from "./frames.ts";

interface Gathered {
  text: string;
  tokenIds: number[];
  positions: PrintedPosition[];
  finish: string | null;
  stop: string | number | null;
}

type ChoiceEvent = Extract<CallEvent, { type: "text" | "reasoning" | "finish" }>;

/** @param n choices a prompt. @throws whatever the events throw */
export async function encodeCompletion(
  events: AsyncIterable<CallEvent>,
  print: CompletionPrint,
  identity: Identity,
  n: number,
): Promise<unknown> {
  const prompts = new Prompts();
  const choices: Gathered[] = [];
  let model: string | undefined;
  let usage: Usage | undefined;
  for await (const event of events) {
    if (event.type === "start") {
      model = event.model;
      prompts.start(event);
    } else if (event.type === "prompt-logprobs") prompts.logprobs(event);
    else if (event.type === "usage") usage = event.final ? event.usage : usage;
    else if (event.type !== "tool-call") {
      choices[event.choice] ??= { text: "", tokenIds: [], positions: [], finish: null, stop: null };
      gather(choices[event.choice] as Gathered, event);
    }
  }
  if (model === undefined || usage === undefined)
    throw new Fault("internal", "The answer ended early.", { detail: "no start or usage event" });
  return {
    id: identity.id,
    object: "text_completion",
    created: identity.created,
    model,
    choices: choices.map((choice, index) => printChoice(choice, index, prompts.of(index, n), print)),
    service_tier: null,
    system_fingerprint: null,
    usage: fullUsage(usage, identity.usage),
    kv_transfer_params: null,
    ec_transfer_params: null,
    metrics: null,
  };
}

function gather(choice: Gathered, event: ChoiceEvent): void {
  if (event.type === "finish") {
    requireHealthy(event.reason);
    choice.finish = event.reason;
    choice.stop = event.stop ?? null;
    return;
  }
  choice.text += event.text;
  for (const id of event.tokenIds ?? []) choice.tokenIds.push(id);
  for (const position of event.logprobs ?? []) choice.positions.push(position);
}

function printChoice(
  choice: Gathered,
  index: number,
  prompt: ReturnType<Prompts["of"]>,
  print: CompletionPrint,
): unknown {
  const piece = new CompletionChoice(print, prompt).take(choice.text, choice.tokenIds, choice.positions);
  return {
    index,
    text: piece.text,
    logprobs: piece.logprobs,
    finish_reason: choice.finish,
    stop_reason: choice.stop,
    token_ids: print.returnTokenIds ? choice.tokenIds : null,
    prompt_logprobs: prompt.positions === undefined ? null : promptLogprobs(prompt.positions),
    prompt_token_ids: print.returnTokenIds ? prompt.tokenIds : null,
    routed_experts: null,
  };
}
