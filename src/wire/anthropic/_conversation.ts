/**
 * `system` and `messages` → core, as vLLM does it (vllm/entrypoints/anthropic/serving.py): the system texts become one
 * message in front, the results of tools messages of their own in front of what else their message says.
 */
import { stringifyJson } from "#base/json.ts";
import type { ChatMessage, ToolCall } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { type JsonObject, kindOf, requireList, requireObject, requireString } from "#wire/openai/_compound.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";

type Part = { readonly type: "text"; readonly text: string };

/** Roles that some agents send, with what they stand for. */
const ROLES: ReadonlyMap<string, "user" | "assistant" | "system"> = new Map([
  ["user", "user"],
  ["assistant", "assistant"],
  ["system", "system"],
  ["ctx", "user"],
  ["msg", "user"],
]);
const NAME_LENGTH = 256;
/** A client writes what it spends here, and it differs each time: with it no prefix would be the same twice. */
const BILLING = "x-anthropic-billing-header";

export interface ConversationBody {
  readonly system?: unknown;
  readonly messages?: unknown;
}

/** @throws Fault invalid_request naming the field */
export function decodeConversation(body: ConversationBody, caps: RequestCaps): readonly ChatMessage[] {
  if (body.messages === undefined) throw invalid("messages", "messages is required.");
  const list = requireList(body.messages, "messages", caps.messages);
  if (list.length === 0) throw invalid("messages", "messages must hold at least one message.");
  const system = systemTexts(body.system, "system", caps);
  const messages: ChatMessage[] = [];
  for (const [i, entry] of list.entries()) {
    const path = `messages.${i}`;
    const message = requireObject(entry, path);
    const given = requireString(message.role, `${path}.role`);
    const role = ROLES.get(given);
    if (role === undefined) throw invalid(`${path}.role`, `${path}.role must be user, assistant or system.`);
    if (role === "system") for (const text of systemTexts(message.content, `${path}.content`, caps)) system.push(text);
    else if (role === "user") userMessages(message.content, `${path}.content`, caps, messages);
    else messages.push(assistantMessage(message.content, `${path}.content`, caps));
  }
  // The results of tools become messages of their own.
  if (messages.length > caps.messages)
    throw invalid("messages", `messages and the tool results in them are more than ${caps.messages} together.`);
  return system.length === 0 ? messages : [{ role: "system", content: system.join("") }, ...messages];
}

function systemTexts(value: unknown, path: string, caps: RequestCaps): string[] {
  if (value === undefined || value === null || value === "") return [];
  if (typeof value === "string") return [value];
  const texts: string[] = [];
  for (const { block, type, at } of blocks(value, path, caps)) {
    if (type !== "text") throw unknownBlock(type, at);
    const text = requireString(block.text, `${at}.text`);
    if (text !== "" && !text.startsWith(BILLING)) texts.push(text);
  }
  return texts;
}

interface Block {
  readonly block: JsonObject;
  readonly type: string;
  readonly at: string;
}

function blocks(value: unknown, path: string, caps: RequestCaps): readonly Block[] {
  if (!Array.isArray(value)) throw invalid(path, `${path} must be a string or a list of blocks, not ${kindOf(value)}.`);
  return requireList(value, path, caps.contentParts).map((entry, i) => {
    const at = `${path}.${i}`;
    const block = requireObject(entry, at);
    return { block, type: requireString(block.type, `${at}.type`), at };
  });
}

/** Blocks that Anthropic has and that stand for something that is not here, with the reason. */
const NOT_HERE: ReadonlyMap<string, string> = new Map([
  ["image", "this model cannot see images; send text"],
  ["document", "this server reads no documents; send their text in a text block"],
  ["search_result", "this server takes no search results; send their text in a text block"],
  ["tool_reference", "this server does not search for tools; every tool of the request is known to the model"],
  ["container_upload", "this server has no containers"],
]);

function unknownBlock(type: string, at: string): Error {
  const param = `${at}.type`;
  const reason = NOT_HERE.get(type);
  if (reason !== undefined) return invalid(param, `${param} is ${type}: ${reason}.`);
  if (type === "server_tool_use" || type.endsWith("_tool_result"))
    return invalid(param, `${param} belongs to a tool that Anthropic's service runs; this server takes custom tools.`);
  return invalid(param, `${param} is not a block that this server takes in this place.`);
}

/** Empty texts say nothing and are left out, as vLLM does. */
function pushText(parts: Part[], block: JsonObject, at: string): void {
  const text = requireString(block.text, `${at}.text`);
  if (text !== "") parts.push({ type: "text", text });
}

function contentOf(parts: readonly Part[]): ChatMessage["content"] {
  const [first, second] = parts;
  if (first === undefined) return null;
  return second === undefined ? first.text : parts;
}

function userMessages(content: unknown, path: string, caps: RequestCaps, messages: ChatMessage[]): void {
  if (typeof content === "string") {
    messages.push({ role: "user", content });
    return;
  }
  const parts: Part[] = [];
  for (const { block, type, at } of blocks(content, path, caps)) {
    if (type === "text") pushText(parts, block, at);
    else if (type === "tool_result") messages.push(toolResult(block, at, caps));
    else throw unknownBlock(type, at);
  }
  if (parts.length > 0) messages.push({ role: "user", content: contentOf(parts) });
}

function toolResult(block: JsonObject, path: string, caps: RequestCaps): ChatMessage {
  const toolCallId = requireString(block.tool_use_id, `${path}.tool_use_id`);
  const { content } = block;
  if (content === undefined || content === null) return { role: "tool", content: "", toolCallId };
  if (typeof content === "string") return { role: "tool", content, toolCallId };
  const texts = blocks(content, `${path}.content`, caps).map(({ block: part, type, at }) => {
    if (type !== "text") throw unknownBlock(type, at);
    return requireString(part.text, `${at}.text`);
  });
  return { role: "tool", content: texts.join("\n"), toolCallId };
}

function assistantMessage(content: unknown, path: string, caps: RequestCaps): ChatMessage {
  if (typeof content === "string") return { role: "assistant", content };
  const parts: Part[] = [];
  const thoughts: string[] = [];
  const toolCalls: ToolCall[] = [];
  for (const { block, type, at } of blocks(content, path, caps)) {
    if (type === "text") pushText(parts, block, at);
    else if (type === "thinking") thoughts.push(requireString(block.thinking, `${at}.thinking`));
    else if (type === "tool_use") toolCalls.push(toolUse(block, at));
    // Readable to whoever sealed it: nothing of it can be told to this model.
    else if (type !== "redacted_thinking") throw unknownBlock(type, at);
  }
  if (toolCalls.length > caps.tools)
    throw invalid(path, `${path} has ${toolCalls.length} tool calls; at most ${caps.tools} are taken.`);
  return dropAbsent<ChatMessage>({
    role: "assistant",
    content: contentOf(parts),
    reasoning: thoughts.length === 0 ? undefined : thoughts.join(""),
    toolCalls: toolCalls.length === 0 ? undefined : toolCalls,
  });
}

function toolUse(block: JsonObject, path: string): ToolCall {
  const name = requireString(block.name, `${path}.name`);
  if (name === "" || name.length > NAME_LENGTH)
    throw invalid(`${path}.name`, `${path}.name has 1 to ${NAME_LENGTH} characters.`);
  return {
    id: requireString(block.id, `${path}.id`),
    name,
    arguments: stringifyJson(requireObject(block.input ?? {}, `${path}.input`)),
  };
}
