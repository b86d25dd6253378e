/**
 * A conversation as the variables of a chat template, in the form that Hugging Face's and vLLM's renderers give.
 *
 * Sources: vllm/entrypoints/chat_utils.py (_parse_chat_message_content, _postprocess_messages).
 */
import { JsonError, parseJson } from "#base/json.ts";
import type { ChatMessage, ToolCall } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import { GLOBAL_NAMES } from "./_globals.ts";

/** "string": parts joined by newlines. "openai": always a list of `{type: "text", text}`. */
export type ContentFormat = "string" | "openai";

/** Roles whose spelling a template may build control tokens from (`'<|' + role + '|>'`). Constants of ours. */
export const KNOWN_ROLES: ReadonlySet<string> = new Set([
  "system",
  "developer",
  "user",
  "assistant",
  "tool",
  "function",
  "ipython",
  "environment",
]);

const RESERVED: ReadonlySet<string> = new Set([
  ...GLOBAL_NAMES,
  "chat_template",
  "tokenize",
  "messages",
  "conversation",
  "tools",
  "documents",
  "add_generation_prompt",
  "continue_final_message",
  "bos_token",
  "eos_token",
  "unk_token",
  "pad_token",
  "tokenizer_kwargs",
  "return_tensors",
  "return_dict",
  "padding",
  "truncation",
  "max_length",
]);

/** @throws Fault invalid_request naming the first key that is not the client's to set (CVE-2025-62426) */
export function checkKwargs(kwargs: Readonly<Record<string, unknown>>): void {
  for (const key of Object.keys(kwargs)) {
    if (RESERVED.has(key)) {
      throw invalid(`chat_template_kwargs.${key}`, `chat_template_kwargs may not set \`${key}\``);
    }
  }
}

/**
 * @param splitThink take `<think>…</think>` out of assistant content, for templates that print reasoning themselves:
 *   the tags then come from the template and not from the client's text.
 * @throws Fault invalid_request naming the tool call whose arguments are not a JSON object
 */
export function messageVariables(
  messages: readonly ChatMessage[],
  format: ContentFormat,
  splitThink: boolean,
): unknown[] {
  return messages.map((message, index) => {
    const variables: Record<string, unknown> = { role: message.role };
    const { reasoning, content } = splitThink ? splitReasoning(message) : message;
    variables.content = contentVariable(content, format);
    if (message.name !== undefined) variables.name = message.name;
    if (reasoning !== undefined) {
      variables.reasoning = reasoning;
      variables.reasoning_content = reasoning;
    }
    if (message.toolCalls !== undefined && message.toolCalls.length > 0) {
      variables.tool_calls = message.toolCalls.map((call, at) => toolCallVariable(call, index, at));
    }
    if (message.toolCallId !== undefined) variables.tool_call_id = message.toolCallId;
    return variables;
  });
}

function contentVariable(content: ChatMessage["content"], format: ContentFormat): unknown {
  if (format === "openai") {
    if (content === null) return [];
    return typeof content === "string" ? [{ type: "text", text: content }] : content;
  }
  return contentText(content);
}

/** Text parts joined by newlines; null is empty. */
export function contentText(content: ChatMessage["content"]): string {
  if (content === null) return "";
  return typeof content === "string" ? content : content.map((part) => part.text).join("\n");
}

const OPEN = "<think>";
const CLOSE = "</think>";

function splitReasoning(message: ChatMessage): { reasoning?: string; content: ChatMessage["content"] } {
  const { reasoning, content } = message;
  if (reasoning !== undefined) return { reasoning, content };
  if (message.role !== "assistant" || content === null) return { content };
  const text = contentText(content);
  const end = text.lastIndexOf(CLOSE);
  if (end < 0) return { content };
  const start = text.indexOf(OPEN);
  const inner = text.slice(start >= 0 && start < end ? start + OPEN.length : 0, end);
  return { reasoning: trimNewlines(inner), content: trimNewlines(text.slice(end + CLOSE.length)) };
}

function trimNewlines(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && text[start] === "\n") start++;
  while (end > start && text[end - 1] === "\n") end--;
  return text.slice(start, end);
}

function toolCallVariable(call: ToolCall, message: number, at: number): unknown {
  const param = `messages.${message}.tool_calls.${at}.function.arguments`;
  return {
    id: call.id,
    type: "function",
    function: { name: call.name, arguments: call.arguments === "" ? {} : parseArguments(call.arguments, param) },
  };
}

function parseArguments(text: string, param: string): unknown {
  let parsed: unknown;
  try {
    parsed = parseJson(text);
  } catch (error) {
    if (error instanceof JsonError) throw invalid(param, `\`${param}\` is not JSON: ${error.message}`);
    throw error;
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw invalid(param, `\`${param}\` must be the text of a JSON object`);
  }
  return parsed;
}
