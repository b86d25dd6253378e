/**
 * Chat events → SSE frames, Anthropic's sequence: message_start · per block content_block_start, deltas,
 * content_block_stop (a ping behind the first start) · message_delta · message_stop. Nothing comes after it.
 */
import { stringifyJson } from "#base/json.ts";
import { sseEvent } from "#base/sse.ts";
import type { CallEvent, Usage } from "#core/calls.ts";
import { requireHealthy } from "#wire/openai/chat-encode.ts";
import { type Finish, type MessageIdentity, messageHead, NOT_STOPPED, printStop, printUsage } from "./_message.ts";

type Delta = Extract<CallEvent, { type: "text" | "reasoning" | "tool-call" }>;
type Kind = "text" | "thinking" | "tool_use";

export async function* messageFrames(
  events: AsyncIterable<CallEvent>,
  identity: MessageIdentity,
): AsyncGenerator<string> {
  const blocks = new Blocks(identity.signature);
  let finish: Finish | undefined;
  for await (const event of events) {
    if (event.type === "start") yield opening(event, identity);
    else if (event.type === "finish") {
      requireHealthy(event.reason);
      finish = event;
    } else if (event.type === "usage") {
      if (!event.final) continue;
      yield* blocks.close();
      yield* ending(finish, blocks.called, event.usage, identity);
    } else if (event.type !== "prompt-logprobs") yield* blocks.take(event);
  }
}

function frame(data: { readonly type: string } & Readonly<Record<string, unknown>>): string {
  return sseEvent(data.type, stringifyJson(data));
}

/** Of the prompt all tokens are told; which were cached is known at the end. */
function opening(start: Extract<CallEvent, { type: "start" }>, identity: MessageIdentity): string {
  const promptTokens = start.prompts[0]?.tokenIds.length ?? 0;
  const usage: Usage = { promptTokens, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 };
  return frame({
    type: "message_start",
    message: {
      ...messageHead(identity, start.model),
      content: [],
      ...NOT_STOPPED,
      usage: printUsage(usage, { cachedTokens: false }),
    },
  });
}

function* ending(
  finish: Finish | undefined,
  called: boolean,
  usage: Usage,
  identity: MessageIdentity,
): Generator<string> {
  yield frame({ type: "message_delta", delta: printStop(finish, called), usage: printUsage(usage, identity) });
  yield frame({ type: "message_stop" });
}

/** The blocks of one message: at most one is open, and their indices rise from 0. */
class Blocks {
  /** Whether a tool_use block has begun. */
  called = false;
  private readonly signature: () => string;
  private open: Kind | undefined;
  private index = -1;

  constructor(signature: () => string) {
    this.signature = signature;
  }

  *take(event: Delta): Generator<string> {
    if (event.type === "tool-call") yield* this.call(event);
    else if (event.text === "") return;
    else if (event.type === "text") {
      if (this.open !== "text") yield* this.begin("text", { type: "text", text: "" });
      yield this.delta({ type: "text_delta", text: event.text });
    } else {
      if (this.open !== "thinking") yield* this.begin("thinking", { type: "thinking", thinking: "", signature: "" });
      yield this.delta({ type: "thinking_delta", thinking: event.text });
    }
  }

  private *call({ id, name, arguments: text }: Extract<Delta, { type: "tool-call" }>): Generator<string> {
    if (name !== undefined) {
      this.called = true;
      yield* this.begin("tool_use", { type: "tool_use", id: id ?? "", name, input: {} });
    }
    if (text !== "") yield this.delta({ type: "input_json_delta", partial_json: text });
  }

  private *begin(kind: Kind, block: Readonly<Record<string, unknown>>): Generator<string> {
    yield* this.close();
    this.open = kind;
    this.index++;
    yield frame({ type: "content_block_start", index: this.index, content_block: block });
    if (this.index === 0) yield frame({ type: "ping" });
  }

  private delta(delta: Readonly<Record<string, unknown>>): string {
    return frame({ type: "content_block_delta", index: this.index, delta });
  }

  *close(): Generator<string> {
    if (this.open === undefined) return;
    if (this.open === "thinking") yield this.delta({ type: "signature_delta", signature: this.signature() });
    yield frame({ type: "content_block_stop", index: this.index });
    this.open = undefined;
  }
}
