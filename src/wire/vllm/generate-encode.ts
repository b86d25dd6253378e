/**
 * A completion's events → token ids: the whole answer, or frames of it.
 */
import { z } from "zod";
import { stringifyJson } from "#base/json.ts";
import type { CallEvent, ChoiceEvent, PrintedPosition, Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { chatLogprobs, promptLogprobs } from "#wire/openai/_logprobs.ts";
import { finalUsage, fullUsage, runningUsage } from "#wire/openai/_usage.ts";
import { requireHealthy } from "#wire/openai/chat-encode.ts";
import { DONE, type Identity } from "#wire/openai/frames.ts";
import { UsageReply } from "#wire/openai/replies.ts";
import type { GeneratePrint } from "./generate.ts";

const Choice = z.object({
  index: z.int(),
  token_ids: z.array(z.int()),
  text: z.string().optional(),
  logprobs: z.object({ content: z.array(z.unknown()) }).nullable(),
  finish_reason: z.string().nullable(),
});

export const GenerateReply = z.object({
  request_id: z.string(),
  model: z.string(),
  created: z.int(),
  choices: z.array(
    Choice.extend({
      stop_reason: z.union([z.string(), z.int()]).nullable(),
      routed_experts: z.null(),
      sampling_mask: z.null(),
      weight_versions: z.null(),
    }),
  ),
  usage: UsageReply,
  prompt_logprobs: z.array(z.unknown()).nullable(),
  prompt_token_ids: z.array(z.int()).nullable(),
  output_mode: z.enum(["tokens", "text"]),
  mm_placeholders: z.null(),
  kv_transfer_params: z.null(),
  ec_transfer_params: z.null(),
  metrics: z.null(),
});

export const GenerateChunk = z.object({
  request_id: z.string(),
  model: z.string(),
  created: z.int(),
  choices: z.array(Choice),
  usage: UsageReply.optional(),
});

interface Gathered {
  ids: number[];
  text: string;
  positions: PrintedPosition[];
  finish: string | null;
  stop: string | number | null;
}

/** @throws whatever the events throw; Fault engine_failed when a choice ended in an error */
export async function encodeGenerate(
  events: AsyncIterable<CallEvent>,
  print: GeneratePrint,
  identity: Identity,
): Promise<z.infer<typeof GenerateReply>> {
  const choices: Gathered[] = [];
  let start: Extract<CallEvent, { type: "start" }> | undefined;
  let prompt: readonly unknown[] | null = null;
  let usage: Usage | undefined;
  for await (const event of events) {
    if (event.type === "start") start = event;
    else if (event.type === "prompt-logprobs") prompt = promptLogprobs(event.positions);
    else if (event.type === "usage") usage = event.final ? event.usage : usage;
    else {
      choices[event.choice] ??= { ids: [], text: "", positions: [], finish: null, stop: null };
      gather(choices[event.choice] as Gathered, event);
    }
  }
  if (start === undefined || usage === undefined)
    throw new Fault("internal", "The answer ended early.", { detail: "no start or usage event" });
  return {
    request_id: identity.id,
    model: start.model,
    created: identity.created,
    choices: choices.map(({ ids, text, positions, finish, stop }, index) => ({
      index,
      token_ids: ids,
      ...(print.text ? { text } : {}),
      logprobs: print.logprobs === undefined ? null : (chatLogprobs(positions, print) as { content: unknown[] }),
      finish_reason: finish,
      stop_reason: stop,
      routed_experts: null,
      sampling_mask: null,
      weight_versions: null,
    })),
    usage: fullUsage(usage, identity.usage) as z.infer<typeof UsageReply>,
    prompt_logprobs: prompt === null ? null : [...prompt],
    prompt_token_ids: print.promptIds ? [...(start.prompts[0]?.tokenIds ?? [])] : null,
    output_mode: print.text ? "text" : "tokens",
    mm_placeholders: null,
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
  if (event.type !== "tool-call") choice.text += event.text;
  for (const id of event.tokenIds ?? []) choice.ids.push(id);
  for (const position of event.logprobs ?? []) choice.positions.push(position);
}

/** A chunk a delta, a last one a choice with its finish_reason, the usage where it is asked for, `[DONE]`. */
export async function* generateFrames(
  events: AsyncIterable<CallEvent>,
  print: GeneratePrint,
  identity: Identity,
): AsyncGenerator<string> {
  let head = "";
  let waiting: unknown;
  const frame = (choices: readonly unknown[], usage?: object): string =>
    `data: ${head},"choices":${stringifyJson(choices)}${usage === undefined ? "" : `,"usage":${stringifyJson(usage)}`}}\n\n`;
  for await (const event of events) {
    if (event.type === "start") {
      const named = { request_id: identity.id, model: event.model, created: identity.created };
      head = stringifyJson(named).slice(0, -1);
    } else if (event.type === "usage") {
      if (waiting !== undefined) yield frame([waiting], runningUsage(event.usage, identity.usage, "completion"));
      waiting = undefined;
      if (event.final && (print.includeUsage || identity.usage.always))
        yield frame([], finalUsage(event.usage, identity.usage));
    } else if (event.type !== "prompt-logprobs") {
      const choice = printDelta(event, print);
      if (choice === undefined) continue;
      if (print.continuousUsage) waiting = choice;
      else yield frame([choice]);
    }
  }
  yield DONE;
}

function printDelta(event: ChoiceEvent, print: GeneratePrint): unknown {
  if (event.type === "finish") {
    requireHealthy(event.reason);
    const text = print.text ? { text: "" } : {};
    return { index: event.choice, token_ids: [], ...text, logprobs: null, finish_reason: event.reason };
  }
  const text = event.type === "tool-call" ? "" : event.text;
  const ids = event.tokenIds ?? [];
  if (ids.length === 0 && (text === "" || !print.text)) return undefined;
  return {
    index: event.choice,
    token_ids: ids,
    ...(print.text ? { text } : {}),
    logprobs: event.logprobs === undefined ? null : chatLogprobs(event.logprobs, print),
    finish_reason: null,
  };
}
