/**
 * What a stored response was asked, as the items of OpenAI's list: the whole conversation before its answer, of earlier
 * turns too, without instructions.
 *
 * Invariants: an id is made of the response's and the item's place, so that it is the same each time; what was joined to
 * one turn for the template comes apart into its items again. Pure. Callers: routes.
 */
import { z } from "zod";
import type { ChatMessage } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import type { KeptResponse } from "#core/responses.ts";
import type { JsonObject } from "#wire/openai/_compound.ts";
import { decodePage, encodePage, listOf, PAGE_WORDS } from "#wire/openai/list.ts";
import { asMessages, type Item, type OpenItem, printItem, textPart } from "./_items.ts";
import { answerItems, parseItems } from "./conversation.ts";

export const InputItemsQuery = z.object({
  ...PAGE_WORDS,
  order: z.enum(["asc", "desc"]).optional().meta({ description: "desc, the newest first, without it." }),
  include: z.string().max(1024).optional().meta({ description: "Without effect: all that there is is printed." }),
});

export const InputItemList = listOf(
  z.looseObject({ id: z.string(), type: z.string(), status: z.literal("completed") }),
);

interface AskedMessage {
  readonly id: string;
  readonly content: readonly AskedPart[];
  readonly role: string;
  readonly status: "completed";
  readonly type: "message";
}

interface CallOutput {
  readonly id: string;
  readonly call_id: string;
  readonly output: string | readonly AskedPart[];
  readonly status: "completed";
  readonly type: "function_call_output";
}

interface AskedPart {
  readonly text: string;
  readonly type: "input_text";
}

/** Of a model behind others: as its client wrote it. */
interface GivenItem extends JsonObject {
  readonly id: string;
  readonly status: "completed";
}

type Listed = AskedMessage | CallOutput | Item | GivenItem;

/** @throws Fault invalid_request: no item has the id in `after` */
export function inputItemsPage(kept: KeptResponse, query: z.infer<typeof InputItemsQuery>) {
  const { limit, after } = decodePage(query);
  const items = printInput(kept);
  if (query.order !== "asc") items.reverse();
  const at = after === undefined ? -1 : items.findIndex(({ id }) => id === after);
  if (after !== undefined && at < 0) throw invalid("after", "No input item of this response has this id.");
  return encodePage(items.slice(at + 1, at + 2 + limit), limit);
}

function printInput({ id, status, body, messages, items }: KeptResponse): Listed[] {
  const answered = status === "completed" || status === "incomplete";
  const name = id.replace(/^resp_/, "");
  let count = 0;
  const nameOf = (prefix: string): string => `${prefix}_${name}_in_${count++}`;
  if (items !== undefined) {
    const given = parseItems(items);
    const made = answered ? answerItems(body["output"]).length : 0;
    return given.slice(0, given.length - made).map((item) => printGiven(item, nameOf));
  }
  const answer = answered ? asMessages((body["output"] ?? []) as readonly Item[]).length : 0;
  return messages.slice(0, messages.length - answer).flatMap((message) => printMessage(message, nameOf));
}

function printMessage(message: ChatMessage, nameOf: (prefix: string) => string): readonly Listed[] {
  const { role, content, toolCallId } = message;
  if (role === "assistant") return printTurn(message, nameOf);
  if (role === "tool") {
    const output = typeof content === "string" || content === null ? (content ?? "") : content.map(inputPart);
    return [{ id: nameOf("fc"), call_id: toolCallId ?? "", output, status: "completed", type: "function_call_output" }];
  }
  const parts = typeof content === "string" ? [{ text: content }] : (content ?? []);
  return [{ id: nameOf("msg"), content: parts.map(inputPart), role, status: "completed", type: "message" }];
}

const PREFIXES: Readonly<Record<string, string>> = {
  message: "msg",
  reasoning: "rs",
  function_call: "fc",
  function_call_output: "fc",
};

function printGiven(item: JsonObject, nameOf: (prefix: string) => string): GivenItem {
  const type = typeof item["type"] === "string" ? item["type"] : "message";
  const { content } = item;
  const text = item["role"] === "assistant" ? textPart(String(content), []) : inputPart({ text: String(content) });
  return {
    ...item,
    ...(type === "message" && typeof content === "string" ? { content: [text] } : {}),
    ...{ id: nameOf(Object.hasOwn(PREFIXES, type) ? (PREFIXES[type] ?? "item") : "item"), status: "completed", type },
  };
}

function inputPart({ text }: { readonly text: string }): AskedPart {
  return { text, type: "input_text" };
}

/** A turn thinks, speaks, calls. */
function printTurn(
  { content, reasoning, toolCalls = [] }: ChatMessage,
  nameOf: (prefix: string) => string,
): readonly Item[] {
  const text = typeof content === "string" ? content : content?.map((part) => part.text).join("");
  const none = { index: 0, logprobs: [], callId: "", name: "", call: 0 };
  const items: OpenItem[] = [];
  if (reasoning !== undefined) items.push({ ...none, kind: "reasoning", id: nameOf("rs"), text: [reasoning] });
  if (text !== undefined) items.push({ ...none, kind: "message", id: nameOf("msg"), text: [text] });
  for (const { id, name, arguments: given } of toolCalls)
    items.push({ ...none, kind: "function_call", id: nameOf("fc"), text: [given], callId: id, name });
  return items.map((item) => printItem(item, "completed"));
}
