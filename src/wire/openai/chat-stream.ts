/**
 * Chat events → SSE frames in vLLM's order (openai/chat_completion/serving.py, chat_completion_stream_generator):
 * a role chunk a choice · the echo · deltas · a last chunk a choice with finish_reason · usage · [DONE].
 *
 * Field presence is pydantic's `exclude_unset`: what vLLM sets explicitly prints, even when it is null.
 */
import type { CallEvent, DeltaTokens, Usage } from "#core/calls.ts";
import { type ChatLogprobs, chatLogprobs } from "./_logprobs.ts";
import { finalUsage, runningUsage } from "./_usage.ts";
import type { ChatPrint } from "./chat-decode.ts";
import { requireHealthy } from "./chat-encode.ts";
import { type ChunkMaker, chunkMaker, DONE, type Identity } from "./frames.ts";

type Start = Extract<CallEvent, { type: "start" }>;
type Delta = Extract<CallEvent, { type: "text" | "reasoning" | "tool-call" }>;

interface Choice {
  readonly index: number;
  readonly delta: Readonly<Record<string, unknown>>;
  readonly logprobs: ChatLogprobs | null;
  readonly finish_reason: string | null;
  readonly stop_reason?: string | number | null;
  readonly token_ids?: readonly number[] | null;
}

/** @param n choices that the call draws: each has its role chunk. */
export async function* chatFrames(
  events: AsyncIterable<CallEvent>,
  print: ChatPrint,
  identity: Identity,
  n: number,
): AsyncGenerator<string> {
  let chunk: ChunkMaker | undefined;
  // With continuous usage a chunk waits for the count that follows its event.
  let waiting: Choice | undefined;
  const called = new Set<number>();
  for await (const event of events) {
    if (event.type === "start") {
      chunk = chunkMaker(identity, "chat.completion.chunk", event.model);
      yield* opening(chunk, event, print, identity, n);
    } else if (chunk === undefined || event.type === "prompt-logprobs") {
      // Prompt logprobs are not part of streams.
    } else if (event.type === "usage") {
      if (waiting !== undefined) yield chunk([waiting], { usage: runningUsage(event.usage, identity.usage, "chat") });
      waiting = undefined;
      if (event.final && (print.includeUsage || identity.usage.always))
        yield chunk([], { usage: finalUsage(event.usage, identity.usage) });
    } else {
      if (event.type === "tool-call") called.add(event.choice);
      const choice =
        event.type === "finish" ? finishChoice(event, called.has(event.choice)) : deltaChoice(event, print);
      if (choice === undefined) continue;
      if (print.continuousUsage) waiting = choice;
      else yield chunk([choice]);
    }
  }
  yield DONE;
}

function* opening(chunk: ChunkMaker, start: Start, print: ChatPrint, identity: Identity, n: number): Generator<string> {
  const prompt = start.prompts[0]?.tokenIds ?? [];
  const none: Usage = { promptTokens: prompt.length, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 };
  const usage = print.continuousUsage ? { usage: runningUsage(none, identity.usage, "chat") } : {};
  const prompts = {
    prompt_token_ids: print.returnTokenIds ? prompt : null,
    prompt_text: print.promptText ? (start.prompts[0]?.text ?? null) : null,
  };
  for (let index = 0; index < n; index++) {
    yield chunk([{ index, delta: { role: print.role, content: "" }, logprobs: null, finish_reason: null }], {
      ...usage,
      ...prompts,
    });
  }
  if (print.echoText === "") return;
  for (let index = 0; index < n; index++) {
    yield chunk(
      [{ index, delta: { content: print.echoText }, logprobs: null, finish_reason: null }],
      print.continuousUsage ? usage : undefined,
    );
  }
}

/** undefined: the event holds nothing that a chunk could show. */
function deltaChoice(event: Delta, print: ChatPrint): Choice | undefined {
  const silent = event.type !== "tool-call" && event.text === "";
  if (silent && event.logprobs === undefined && event.tokenIds === undefined) return undefined;
  return {
    index: event.choice,
    delta: printDelta(event),
    logprobs: event.logprobs === undefined ? null : chatLogprobs(event.logprobs, print),
    finish_reason: null,
    token_ids: printTokenIds(event, print),
  };
}

function printTokenIds(event: DeltaTokens, print: ChatPrint): readonly number[] | null {
  return print.returnTokenIds ? (event.tokenIds ?? null) : null;
}

function printDelta(event: Delta): Choice["delta"] {
  if (event.type === "text") return { content: event.text };
  if (event.type === "reasoning") return { reasoning: event.text };
  const { id, name, index } = event;
  const first = name === undefined ? {} : { name };
  // The first fragment names the call; its arguments print only when they are there already.
  const part = event.arguments === "" && name !== undefined ? first : { ...first, arguments: event.arguments };
  return { tool_calls: [{ ...(id === undefined ? {} : { id, type: "function" }), index, function: part }] };
}

function finishChoice(event: Extract<CallEvent, { type: "finish" }>, called: boolean): Choice {
  requireHealthy(event.reason);
  return {
    index: event.choice,
    delta: called ? {} : { content: "" },
    logprobs: null,
    finish_reason: event.reason,
    stop_reason: event.stop ?? null,
    token_ids: null,
  };
}
