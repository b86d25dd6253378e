/**
 * The body of POST /v1/chat/completions/batch: a chat request whose `messages` are a list of conversations
 * (vllm/entrypoints/openai/chat_completion/batch_serving.py).
 */
import { z } from "zod";
import type { ChatCall } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { requireList } from "./_compound.ts";
import { decodeMessages } from "./_messages.ts";
import { type ChatPrint, decodeChat, type Speaker, speakerOf } from "./chat-decode.ts";
import { ChatBody, type ChatBodyValue, MESSAGES_DOC } from "./chat-schema.ts";

export const ChatBatchBody = ChatBody.extend({
  messages: z.unknown().meta({ type: "array", items: MESSAGES_DOC, description: "Conversations." }),
});

export interface DecodedBatch {
  /** One a conversation. */
  readonly calls: readonly ChatCall[];
  readonly print: ChatPrint;
  readonly speakers: readonly Speaker[];
}

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeChatBatch(body: ChatBodyValue, caps: RequestCaps): DecodedBatch {
  refuse(body);
  if (body.messages === undefined) throw invalid("messages", "messages is required.");
  const list = requireList(body.messages, "messages", Math.min(caps.conversations, caps.choices));
  if (list.length === 0) throw invalid("messages", "messages must hold at least one conversation.");
  // What the conversations have in common is decoded, and checked, once.
  const { call, print } = decodeChat({ ...body, messages: list[0] }, caps, "messages.0");
  const rest = list.slice(1).map((entry, i) => decodeMessages(entry, caps, `messages.${i + 1}`));
  const calls = [call, ...rest.map((messages) => ({ ...call, messages }))];
  return {
    calls,
    print,
    speakers: calls.map(({ messages }) => speakerOf(messages, call.template, body.echo ?? false)),
  };
}

const WORDS = "is not supported for batches of chats.";

function refuse(body: ChatBodyValue): void {
  const { tools, tool_choice: choice } = body;
  if (body.stream) throw invalid("stream", `stream ${WORDS}`);
  if (Array.isArray(tools) && tools.length > 0) throw invalid("tools", `tools ${WORDS}`);
  if (choice !== undefined && choice !== null && choice !== "none")
    throw invalid("tool_choice", `tool_choice ${WORDS}`);
  if (body.use_beam_search) throw invalid("use_beam_search", `use_beam_search ${WORDS}`);
  if ((body.n ?? 1) !== 1) throw invalid("n", `n must be 1 for batches of chats, got ${body.n}.`);
  // There is one place for them in the answer, and several prompts.
  if ((body.prompt_logprobs ?? null) !== null) throw invalid("prompt_logprobs", `prompt_logprobs ${WORDS}`);
  if (body.return_prompt_text) throw invalid("return_prompt_text", `return_prompt_text ${WORDS}`);
}
