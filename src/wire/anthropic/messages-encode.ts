/**
 * Chat events → the message object. Blocks stand in the order in which the model wrote them.
 */
import { stringifyJson, tryParseJson } from "#base/json.ts";
import type { CallEvent, Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { isObject, type JsonObject } from "#wire/openai/_compound.ts";
import { requireHealthy } from "#wire/openai/chat-encode.ts";
import { type Finish, type MessageIdentity, messageHead, printStop, printUsage } from "./_message.ts";

type Block =
  | { readonly type: "text"; text: string }
  | { readonly type: "thinking"; thinking: string; readonly signature: string }
  | { readonly type: "tool_use"; readonly id: string; readonly name: string; text: string };

/** @throws whatever the events throw; Fault engine_failed when the answer ended in an error */
export async function encodeMessage(events: AsyncIterable<CallEvent>, identity: MessageIdentity): Promise<unknown> {
  const blocks: Block[] = [];
  let model: string | undefined;
  let finish: Finish | undefined;
  let usage: Usage | undefined;
  for await (const event of events) {
    if (event.type === "start") model = event.model;
    else if (event.type === "usage") usage = event.final ? event.usage : usage;
    else if (event.type === "finish") {
      requireHealthy(event.reason);
      finish = event;
    } else if (event.type !== "prompt-logprobs") collect(blocks, event, identity);
  }
  if (model === undefined || usage === undefined)
    throw new Fault("internal", "The answer ended early.", { detail: "no start or usage event" });
  const content = blocks.map(printBlock);
  return {
    ...messageHead(identity, model),
    content,
    ...printStop(
      finish,
      content.some(({ type }) => type === "tool_use"),
    ),
    usage: printUsage(usage, identity),
  };
}

type Delta = Extract<CallEvent, { type: "text" | "reasoning" | "tool-call" }>;

function collect(blocks: Block[], event: Delta, { signature }: MessageIdentity): void {
  const last = blocks.at(-1);
  if (event.type === "text") {
    if (event.text === "") return;
    if (last?.type === "text") last.text += event.text;
    else blocks.push({ type: "text", text: event.text });
  } else if (event.type === "reasoning") {
    if (event.text === "") return;
    if (last?.type === "thinking") last.thinking += event.text;
    else blocks.push({ type: "thinking", thinking: event.text, signature: signature() });
  } else if (event.name !== undefined) {
    blocks.push({ type: "tool_use", id: event.id ?? "", name: event.name, text: event.arguments });
  } else if (last?.type === "tool_use") last.text += event.arguments;
}

function printBlock(block: Block) {
  if (block.type !== "tool_use") return block;
  const { type, id, name, text } = block;
  const input = inputOf(text);
  // Cut off, or no JSON: nobody must run it, and what the model wrote is not lost.
  if (input === undefined)
    return { type: "text" as const, text: `{"name": ${stringifyJson(name)}, "arguments": ${text}` };
  return { type, id, name, input };
}

function inputOf(text: string): JsonObject | undefined {
  if (text === "") return {};
  const value = tryParseJson(text);
  return isObject(value) ? value : undefined;
}
