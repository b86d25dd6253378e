/**
 * Chat events → the full response object, field for field as vLLM's ChatCompletionResponse dumps it.
 */
import type { CallEvent, ChoiceEvent, PrintedPosition, Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { chatLogprobs, promptLogprobs } from "./_logprobs.ts";
import { fullUsage } from "./_usage.ts";
import type { ChatPrint, Speaker } from "./chat-decode.ts";
import type { Identity } from "./frames.ts";

interface PrintedCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

/** One choice while its events come in. */
interface Choice {
  content: string;
  reasoning: string | null;
  calls: PrintedCall[];
  tokenIds: number[];
  positions: PrintedPosition[] | null;
  finish: string | null;
  stop: string | number | null;
}

function emptyChoice(): Choice {
  return { content: "", reasoning: null, calls: [], tokenIds: [], positions: null, finish: null, stop: null };
}

/**
 * @param speakers of each choice, where they answer different conversations
 * @throws whatever the events throw; Fault engine_failed when a choice ended in an error
 */
export async function encodeChat(
  events: AsyncIterable<CallEvent>,
  print: ChatPrint,
  identity: Identity,
  speakers: readonly Speaker[] = [],
): Promise<unknown> {
  const choices: Choice[] = [];
  let start: Extract<CallEvent, { type: "start" }> | undefined;
  let prompt: readonly unknown[] | null = null;
  let usage: Usage | undefined;
  for await (const event of events) {
    if (event.type === "start") start = event;
    else if (event.type === "prompt-logprobs") prompt = promptLogprobs(event.positions);
    else if (event.type === "usage") usage = event.final ? event.usage : usage;
    else {
      choices[event.choice] ??= emptyChoice();
      collect(choices[event.choice] as Choice, event);
    }
  }
  if (start === undefined || usage === undefined)
    throw new Fault("internal", "The answer ended early.", { detail: "no start or usage event" });
  return {
    id: identity.id,
    object: "chat.completion",
    created: identity.created,
    model: start.model,
    choices: choices.map((choice, index) => printChoice(choice, index, { ...print, ...speakers[index] })),
    service_tier: null,
    system_fingerprint: null,
    usage: fullUsage(usage, identity.usage),
    prompt_logprobs: prompt,
    prompt_token_ids: print.returnTokenIds && speakers.length === 0 ? (start.prompts[0]?.tokenIds ?? null) : null,
    prompt_text: print.promptText ? (start.prompts[0]?.text ?? null) : null,
    kv_transfer_params: null,
    ec_transfer_params: null,
    metrics: null,
  };
}

function collect(choice: Choice, event: ChoiceEvent): void {
  if (event.type === "finish") {
    requireHealthy(event.reason);
    choice.finish = event.reason;
    choice.stop = event.stop ?? null;
    return;
  }
  for (const id of event.tokenIds ?? []) choice.tokenIds.push(id);
  if (event.logprobs !== undefined) {
    choice.positions ??= [];
    for (const position of event.logprobs) choice.positions.push(position);
  }
  if (event.type === "text") choice.content += event.text;
  else if (event.type === "reasoning") choice.reasoning = (choice.reasoning ?? "") + event.text;
  else collectCall(choice.calls, event);
}

function collectCall(calls: PrintedCall[], event: Extract<CallEvent, { type: "tool-call" }>): void {
  calls[event.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } };
  const call = calls[event.index] as PrintedCall;
  if (event.id !== undefined) call.id = event.id;
  if (event.name !== undefined) call.function.name = event.name;
  call.function.arguments += event.arguments;
}

/** vLLM answers 500 for a choice that ended in an error (`_raise_if_error`). */
export function requireHealthy(reason: string): void {
  if (reason === "error") throw new Fault("engine_failed", "The engine failed while it worked on this request.");
}

function printChoice(choice: Choice, index: number, print: ChatPrint): unknown {
  return {
    index,
    message: printMessage(choice, print),
    logprobs: choice.positions === null ? null : chatLogprobs(choice.positions, print),
    finish_reason: choice.finish,
    stop_reason: choice.stop,
    token_ids: print.returnTokenIds ? choice.tokenIds : null,
    routed_experts: null,
  };
}

function printMessage(choice: Choice, print: ChatPrint): unknown {
  // A parser that found something else leaves null, not "", where there was no text.
  const parsed = choice.calls.length > 0 || choice.reasoning !== null;
  const content = choice.content === "" && parsed && print.echoText === "" ? null : print.echoText + choice.content;
  return {
    role: print.role,
    content,
    refusal: null,
    annotations: null,
    audio: null,
    function_call: null,
    ...(choice.calls.length > 0 ? { tool_calls: choice.calls } : {}),
    reasoning: choice.reasoning,
  };
}
