/**
 * `input` of a responses request → messages. Text only: media parts and items of tools that the server would have to
 * run are refused by their path.
 *
 * Items that one assistant turn is made of (reasoning, message, function_call) become one message, as templates know it.
 */
import type { ChatMessage, ToolCall } from "#core/chat.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import {
  isObject,
  type JsonObject,
  kindOf,
  requireList,
  requireObject,
  requireString,
} from "#wire/openai/_compound.ts";

/** @throws Fault invalid_request | not_implemented, naming the item */
export function decodeInput(value: unknown, caps: RequestCaps): readonly ChatMessage[] {
  if (value === undefined || value === null) throw invalid("input", "input is required.");
  if (typeof value === "string") return [{ role: "user", content: value }];
  if (!Array.isArray(value)) throw invalid("input", `input must be a string or a list of items, not ${kindOf(value)}.`);
  const list = requireList(value, "input", caps.messages);
  if (list.length === 0) throw invalid("input", "input must hold at least one item.");
  const messages: ChatMessage[] = [];
  for (const [i, entry] of list.entries())
    join(messages, decodeItem(requireObject(entry, `input.${i}`), `input.${i}`, caps), caps);
  return messages;
}

/** Adds a message; what continues an assistant's turn goes into it. */
function join(messages: ChatMessage[], next: ChatMessage, caps: RequestCaps): void {
  const last = messages.at(-1);
  const fits =
    last?.role === "assistant" && next.role === "assistant" && (last.content === null || next.content === null);
  // A turn thinks, speaks, calls; what comes again is another turn.
  if (
    last === undefined ||
    !fits ||
    (next.reasoning !== undefined && (last.content !== null || last.toolCalls !== undefined)) ||
    (next.content !== null && last.toolCalls !== undefined)
  ) {
    messages.push(next);
    return;
  }
  const reasoning = [last.reasoning, next.reasoning].filter((text) => text !== undefined).join("\n");
  const toolCalls = [...(last.toolCalls ?? []), ...(next.toolCalls ?? [])];
  if (toolCalls.length > caps.tools)
    throw invalid("input", `a turn of input has more than ${caps.tools} function calls.`);
  messages[messages.length - 1] = {
    role: "assistant",
    content: last.content ?? next.content,
    ...(reasoning === "" ? {} : { reasoning }),
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
  };
}

function decodeItem(item: JsonObject, path: string, caps: RequestCaps): ChatMessage {
  const type = item["type"] ?? "message";
  switch (type) {
    case "message":
      return decodeMessage(item, path, caps);
    case "function_call":
      return { role: "assistant", content: null, toolCalls: [decodeCall(item, path)] };
    case "function_call_output":
      return {
        role: "tool",
        content: decodeContent(item["output"], `${path}.output`, caps),
        toolCallId: requireString(item["call_id"], `${path}.call_id`),
      };
    case "reasoning":
      return decodeReasoning(item, path, caps);
    case "item_reference":
      throw invalid(
        `${path}.type`,
        "item_reference is not supported; continue with previous_response_id, or send the item.",
      );
    default:
      requireString(type, `${path}.type`);
      throw new Fault("not_implemented", "Items of this type are not supported by this server.", {
        param: `${path}.type`,
      });
  }
}

const ROLES: readonly unknown[] = ["user", "assistant", "system", "developer"];

function decodeMessage(item: JsonObject, path: string, caps: RequestCaps): ChatMessage {
  const role = item["role"];
  if (!ROLES.includes(role))
    throw invalid(`${path}.role`, `${path}.role must be user, assistant, system or developer.`);
  return { role: String(role), content: decodeContent(item["content"], `${path}.content`, caps) };
}

function decodeCall(item: JsonObject, path: string): ToolCall {
  const name = requireString(item["name"], `${path}.name`);
  const text = requireString(item["arguments"], `${path}.arguments`);
  return { id: requireString(item["call_id"], `${path}.call_id`), name, arguments: text === "" ? "{}" : text };
}

/** The model's own text, or what stands for it; encrypted content is not ours to read. */
function decodeReasoning(item: JsonObject, path: string, caps: RequestCaps): ChatMessage {
  const parts = ["content", "summary"].map((field) => {
    const value = item[field];
    return value === undefined || value === null
      ? []
      : requireList(value, `${path}.${field}`, caps.contentParts).map((part, i) => {
          const at = `${path}.${field}.${i}`;
          return requireString(requireObject(part, at)["text"], `${at}.text`);
        });
  });
  const text = (parts.find((list) => list.length > 0) ?? []).join("\n");
  return { role: "assistant", content: null, ...(text === "" ? {} : { reasoning: text }) };
}

/** Part types that hold text, with the key that it stands under. */
const TEXT_PARTS: Readonly<Record<string, string>> = {
  input_text: "text",
  output_text: "text",
  text: "text",
  refusal: "refusal",
};

function decodeContent(content: unknown, path: string, caps: RequestCaps): Exclude<ChatMessage["content"], null> {
  if (typeof content === "string") return content;
  if (!Array.isArray(content))
    throw invalid(path, `${path} must be a string or a list of parts, not ${kindOf(content)}.`);
  return requireList(content, path, caps.contentParts).map((part, i) => ({
    type: "text",
    text: decodePart(part, `${path}.${i}`),
  }));
}

function decodePart(part: unknown, path: string): string {
  if (!isObject(part)) throw invalid(path, `${path} must be an object, not ${kindOf(part)}.`);
  const type = requireString(part["type"], `${path}.type`);
  const key = Object.hasOwn(TEXT_PARTS, type) ? TEXT_PARTS[type] : undefined;
  if (key === undefined)
    throw new Fault("not_implemented", "Only text parts are supported by this server yet.", { param: `${path}.type` });
  return requireString(part[key], `${path}.${key}`);
}
