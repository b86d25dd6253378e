/**
 * Messages of a chat request → core. Text only: every media part is refused by its path.
 */
import { stringifyJson } from "#base/json.ts";
import type { ChatMessage, ToolCall } from "#core/chat.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { isObject, type JsonObject, kindOf, requireList, requireObject, requireString } from "./_compound.ts";
import { dropAbsent } from "./_sampling.ts";

/** @param path where they stand in the request */
export function decodeMessages(value: unknown, caps: RequestCaps, path = "messages"): readonly ChatMessage[] {
  if (value === undefined) throw invalid(path, `${path} is required.`);
  const list = requireList(value, path, caps.messages);
  if (list.length === 0) throw invalid(path, `${path} must hold at least one message.`);
  return list.map((entry, i) => decodeMessage(requireObject(entry, `${path}.${i}`), `${path}.${i}`, caps));
}

function decodeMessage(message: JsonObject, path: string, caps: RequestCaps): ChatMessage {
  const role = requireString(message.role, `${path}.role`);
  if (role === "" || role.length > 64) throw invalid(`${path}.role`, "a role has 1 to 64 characters.");
  return dropAbsent<ChatMessage>({
    role,
    content: decodeContent(message.content, `${path}.content`, caps),
    name: optionalString(message.name, `${path}.name`),
    // Older clients send what they were once given: reasoning_content.
    reasoning:
      optionalString(message.reasoning, `${path}.reasoning`) ??
      optionalString(message.reasoning_content, `${path}.reasoning_content`),
    toolCalls: decodeToolCalls(message.tool_calls, `${path}.tool_calls`, caps),
    toolCallId: optionalString(message.tool_call_id, `${path}.tool_call_id`),
  });
}

function optionalString(value: unknown, param: string): string | undefined {
  return value === undefined || value === null ? undefined : requireString(value, param);
}

function decodeContent(content: unknown, path: string, caps: RequestCaps): ChatMessage["content"] {
  if (content === undefined || content === null) return null;
  if (typeof content === "string") return content;
  if (!Array.isArray(content))
    throw invalid(path, `${path} must be a string or a list of parts, not ${kindOf(content)}.`);
  return requireList(content, path, caps.contentParts).map((part, i) => ({
    type: "text",
    text: decodePart(part, `${path}.${i}`),
  }));
}

/** Part types that hold text, with the key that it stands under (vllm/entrypoints/chat_utils.py). */
const TEXT_PARTS: Readonly<Record<string, string>> = {
  text: "text",
  input_text: "text",
  output_text: "text",
  refusal: "refusal",
  thinking: "thinking",
};

function decodePart(part: unknown, path: string): string {
  if (typeof part === "string") return part;
  if (!isObject(part)) throw invalid(path, `${path} must be an object, not ${kindOf(part)}.`);
  const type = requireString(part.type, `${path}.type`);
  const key = Object.hasOwn(TEXT_PARTS, type) ? TEXT_PARTS[type] : undefined;
  if (key === undefined)
    throw new Fault("not_implemented", "Only text parts are supported by this server yet.", { param: `${path}.type` });
  return requireString(part[key], `${path}.${key}`);
}

function decodeToolCalls(value: unknown, path: string, caps: RequestCaps): readonly ToolCall[] | undefined {
  if (value === undefined || value === null) return undefined;
  const list = requireList(value, path, caps.tools);
  return list.length === 0
    ? undefined
    : list.map((entry, i) => decodeToolCall(requireObject(entry, `${path}.${i}`), `${path}.${i}`));
}

function decodeToolCall(call: JsonObject, path: string): ToolCall {
  const target = requireObject(call.function, `${path}.function`);
  const given = target.arguments ?? "{}";
  return {
    id: optionalString(call.id, `${path}.id`) ?? "",
    name: requireString(target.name, `${path}.function.name`),
    arguments: isObject(given) ? stringifyJson(given) : requireString(given, `${path}.function.arguments`),
  };
}
