/**
 * Completion events → SSE frames in vLLM's order (openai/completion/serving.py, completion_stream_generator):
 * deltas, the first of a choice with the echo · a last chunk a choice with finish_reason · usage · [DONE].
 */
import type { CallEvent } from "#core/calls.ts";
import { CompletionChoice, Prompts } from "./_completion-choice.ts";
import { finalUsage, runningUsage } from "./_usage.ts";
import { requireHealthy } from "./chat-encode.ts";
import type { CompletionPrint } from "./completion-decode.ts";
import { type ChunkMaker, chunkMaker, DONE, type Identity } from "./frames.ts";

type Delta = Extract<CallEvent, { type: "text" | "reasoning" }>;
type Finish = Extract<CallEvent, { type: "finish" }>;

/** @param n choices a prompt. */
export async function* completionFrames(
  events: AsyncIterable<CallEvent>,
  print: CompletionPrint,
  identity: Identity,
  n: number,
): AsyncGenerator<string> {
  const prompts = new Prompts();
  const choices: CompletionChoice[] = [];
  let chunk: ChunkMaker | undefined;
  // With continuous usage a chunk waits for the count that follows its event.
  let waiting: unknown;
  for await (const event of events) {
    if (event.type === "start") {
      chunk = chunkMaker(identity, "text_completion", event.model);
      prompts.start(event);
    } else if (event.type === "prompt-logprobs") prompts.logprobs(event);
    else if (chunk === undefined || event.type === "tool-call") {
      // Completions have no tools, and nothing comes before `start`.
    } else if (event.type === "usage") {
      if (waiting !== undefined)
        yield chunk([waiting], { usage: runningUsage(event.usage, identity.usage, "completion") });
      waiting = undefined;
      if (event.final && (print.includeUsage || identity.usage.always))
        yield chunk([], { usage: finalUsage(event.usage, identity.usage) });
    } else {
      choices[event.choice] ??= new CompletionChoice(print, prompts.of(event.choice, n));
      const state = choices[event.choice] as CompletionChoice;
      const choice = printChoice(state, event, print, prompts.of(event.choice, n).tokenIds);
      if (choice === undefined) continue;
      if (print.continuousUsage) waiting = choice;
      else yield chunk([choice]);
    }
  }
  yield DONE;
}

function printChoice(
  state: CompletionChoice,
  event: Delta | Finish,
  print: CompletionPrint,
  promptIds: readonly number[],
): unknown {
  const end = event.type === "finish" ? event : undefined;
  const delta = event.type === "finish" ? undefined : event;
  if (delta !== undefined && delta.text === "" && delta.logprobs === undefined && delta.tokenIds === undefined)
    return undefined;
  if (end !== undefined) requireHealthy(end.reason);
  const first = state.fresh;
  const piece = state.take(delta?.text ?? "", delta?.tokenIds ?? [], delta?.logprobs ?? []);
  return {
    index: event.choice,
    text: piece.text,
    logprobs: delta === undefined && !first ? null : piece.logprobs,
    finish_reason: end?.reason ?? null,
    stop_reason: end?.stop ?? null,
    prompt_token_ids: print.returnTokenIds && first ? promptIds : null,
    token_ids: print.returnTokenIds ? piece.tokenIds : null,
  };
}
