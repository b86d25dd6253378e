/**
 * A conversation as a server behind this one is sent it: items, kept as JSON text, so that what is large (a picture) is
 * neither read nor written anew when a turn is added.
 *
 * Invariants: what a client wrote stands in it as it came; what was answered stands in it in forms that every server of
 * this API takes as input; a conversation with the engine here is told in such items, and the other way round, as far as
 * it is text. Pure. Callers: serving, input-items.ts.
 */
import { parseJson, stringifyJson } from "#base/json.ts";
import { scanJson } from "#base/json-scan.ts";
import type { ChatMessage } from "#core/chat.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import type { KeptResponse } from "#core/responses.ts";
import { isObject, type JsonObject } from "#wire/openai/_compound.ts";
import { decodeInput } from "./_input.ts";

/** Entries of a list that is looked at: what was stored was counted before. */
const MAX_ENTRIES = 4_000_000;

/** @param input as it stands in the request: a text, or a list of items */
export function inputItems(input: string): string {
  if (!input.startsWith('"')) return input;
  return `[{"type":"message","role":"user","content":${input}}]`;
}

/** One list of several. @param lists JSON text, without white space around it */
export function joinItems(...lists: readonly string[]): string {
  const inner = lists.map((list) => list.slice(1, -1)).filter((text) => text.trim() !== "");
  return `[${inner.join()}]`;
}

export function countItems(list: string): number {
  return scanJson(Buffer.from(list), undefined, { maxMembers: MAX_ENTRIES }).members.length;
}

export function parseItems(list: string): readonly JsonObject[] {
  const value: unknown = parseJson(list);
  return Array.isArray(value) ? value.filter(isObject) : [];
}

/** What was answered, as the next turn says it. @param output of a response */
export function answerItems(output: unknown): readonly JsonObject[] {
  return Array.isArray(output) ? output.filter(isObject).map(answerItem) : [];
}

/** What a stored response's next turn is sent before its own input. */
export function itemsOf({ items, messages }: KeptResponse): string {
  return items ?? stringifyJson(messages.flatMap(asItems));
}

/** The same for the engine here. @throws Fault invalid_request: there is more in it than text */
export function messagesOf({ items, messages }: KeptResponse, caps: RequestCaps): readonly ChatMessage[] {
  if (items === undefined) return messages;
  try {
    return decodeInput(parseItems(items), caps);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw invalid("previous_response_id", "The previous response's conversation holds what this model does not take.");
  }
}

function answerItem(item: JsonObject): JsonObject {
  switch (item["type"]) {
    case "message":
      return { type: "message", role: "assistant", content: textsIn(item["content"]).join("") };
    case "reasoning": {
      const { id = "rs_0", summary, content } = item;
      return {
        ...{ type: "reasoning", id, summary: Array.isArray(summary) ? summary : [] },
        ...(Array.isArray(content) ? { content: textsIn(content).map(thought) } : {}),
      };
    }
    case "function_call": {
      const { call_id, name, arguments: given } = item;
      return { type: "function_call", call_id, name, arguments: given };
    }
    default:
      // Of a tool that its server runs: what it is only that one knows.
      return item;
  }
}

function textsIn(content: unknown): readonly string[] {
  if (!Array.isArray(content)) return [];
  const texts = content.map((part: unknown) => (isObject(part) ? (part["text"] ?? part["refusal"]) : undefined));
  return texts.filter((text) => typeof text === "string");
}

function thought(text: string): JsonObject {
  return { type: "reasoning_text", text };
}

function asItems({ role, content, reasoning, toolCalls = [], toolCallId = "" }: ChatMessage): readonly JsonObject[] {
  const said = typeof content === "string" ? content : content?.map(({ text }) => ({ type: "input_text", text }));
  if (role === "tool") return [{ type: "function_call_output", call_id: toolCallId, output: said ?? "" }];
  if (role !== "assistant") return [{ type: "message", role, content: said ?? "" }];
  const text = typeof content === "string" ? content : content?.map((part) => part.text).join("");
  return [
    ...(reasoning === undefined ? [] : [{ type: "reasoning", id: "rs_0", summary: [], content: [thought(reasoning)] }]),
    ...(text === undefined ? [] : [{ type: "message", role, content: text }]),
    ...toolCalls.map(({ id, name, arguments: given }) => ({
      ...{ type: "function_call", call_id: id, name, arguments: given },
    })),
  ];
}
