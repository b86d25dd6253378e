/**
 * The items of a response's output while they grow: message, reasoning, function_call. Private to writer.ts.
 *
 * Field order is that of OpenAI's types, as vLLM dumps them.
 */
import type { ChatMessage } from "#core/chat.ts";

export type ItemStatus = "in_progress" | "completed" | "incomplete";

interface MessageItem {
  readonly id: string;
  readonly content: readonly TextPart[];
  readonly role: "assistant";
  readonly status: ItemStatus;
  readonly type: "message";
}

export interface TextPart {
  readonly annotations: readonly never[];
  readonly text: string;
  readonly type: "output_text";
  readonly logprobs: readonly unknown[];
}

interface ReasoningItem {
  readonly id: string;
  readonly summary: readonly never[];
  readonly type: "reasoning";
  readonly content: readonly ReasoningPart[];
  readonly encrypted_content: null;
  readonly status: ItemStatus;
}

export interface ReasoningPart {
  readonly text: string;
  readonly type: "reasoning_text";
}

interface CallItem {
  readonly arguments: string;
  readonly call_id: string;
  readonly name: string;
  readonly type: "function_call";
  readonly id: string;
  readonly status: ItemStatus;
}

export type Item = MessageItem | ReasoningItem | CallItem;

/** One that grows. */
export interface OpenItem {
  readonly kind: Item["type"];
  readonly id: string;
  readonly index: number;
  readonly text: string[];
  readonly logprobs: unknown[];
  readonly callId: string;
  readonly name: string;
  /** Of the call among the calls. */
  readonly call: number;
}

export function textPart(text: string, logprobs: readonly unknown[]): TextPart {
  return { annotations: [], text, type: "output_text", logprobs };
}

export function reasoningPart(text: string): ReasoningPart {
  return { text, type: "reasoning_text" };
}

/** The item as it stands; while it is in progress it has no parts. */
export function printItem({ kind, id, text, logprobs, callId, name }: OpenItem, status: ItemStatus): Item {
  const whole = text.join("");
  const parts = status !== "in_progress";
  if (kind === "message")
    return { id, content: parts ? [textPart(whole, logprobs)] : [], role: "assistant", status, type: "message" };
  if (kind === "reasoning") {
    const content = parts ? [reasoningPart(whole)] : [];
    return { id, summary: [], type: "reasoning", content, encrypted_content: null, status };
  }
  return { arguments: parts ? whole : "", call_id: callId, name, type: "function_call", id, status };
}

/** Items of an answer → what the next turn's template sees: one message of the assistant, or none. */
export function asMessages(items: readonly Item[]): readonly ChatMessage[] {
  if (items.length === 0) return [];
  const texts = items.flatMap((item) => (item.type === "message" ? item.content.map((part) => part.text) : []));
  const thoughts = items.flatMap((item) => (item.type === "reasoning" ? item.content.map((part) => part.text) : []));
  const toolCalls = items.flatMap((item) =>
    item.type === "function_call" ? [{ id: item.call_id, name: item.name, arguments: item.arguments }] : [],
  );
  return [
    {
      role: "assistant",
      content: texts.length === 0 ? null : texts.join(""),
      ...(thoughts.length === 0 ? {} : { reasoning: thoughts.join("\n") }),
      ...(toolCalls.length === 0 ? {} : { toolCalls }),
    },
  ];
}
