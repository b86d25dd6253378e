/**
 * One choice's tokens → call events: what the request asks for, and what of the parsed output it may see.
 */
import type { ChatCall, ChoiceEvent, CompletionCall } from "#core/calls.ts";
import type { ToolDefinition } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import type { Tokenizer } from "#core/model.ts";
import type { ReasoningFamily, ToolFamily } from "#core/parser-families.ts";
import { callFamily } from "./_call-form.ts";
import type { ChoiceOutput } from "./_generate.ts";
import { atIntervals } from "./_interval.ts";
import type { ServedModel } from "./models.ts";

/** What an output pipeline is made of. */
export interface OutputSpec {
  readonly choice: number;
  readonly tokenizer: Tokenizer;
  readonly stop: readonly string[];
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
  /** Stop strings do not count before so many tokens. */
  readonly minTokens: number;
  /** Stop tokens of the request: these are reported, the model's own are not. */
  readonly stopTokenIds: readonly number[];
  readonly logprobs: boolean;
  readonly tokenIds: boolean;
  /** Split reasoning off; `prompt` is the text before the answer, which may have opened it. */
  readonly reasoning: { readonly family: ReasoningFamily; readonly prompt: string } | undefined;
  /** Read tool calls, in this family's form. */
  readonly tools: { readonly family: ToolFamily; readonly definitions: readonly ToolDefinition[] } | undefined;
}

export type MakeOutput = (spec: OutputSpec) => ChoiceOutput;

/** @throws Fault invalid_request: tools for a model whose calls nobody would read */
export function requireToolParser(model: ServedModel, call: ChatCall): void {
  if (call.toolChoice !== "auto" || model.parsers.tools !== undefined) return;
  throw invalid(
    "tool_choice",
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
  );
}

export function chatOutput(
  make: MakeOutput,
  model: ServedModel,
  call: ChatCall,
  choice: number,
  prompt: string,
): ChoiceOutput {
  const { reasoning } = model.parsers;
  // What reasoning hides, its tokens would show (vLLM: hide_stream_metadata).
  const hidden = reasoning !== undefined && !call.includeReasoning;
  const family = callFamily(model, call);
  const inner = make({
    ...commonSpec(model, call, choice),
    ...(hidden ? { logprobs: false, tokenIds: false } : {}),
    reasoning: reasoning === undefined ? undefined : { family: reasoning, prompt },
    tools: family === undefined ? undefined : { family, definitions: call.tools },
  });
  const visible = {
    reasoning: call.includeReasoning,
    parallel: call.parallelToolCalls,
    named: typeof call.toolChoice === "object",
  };
  return paced(filtered(inner, visible), call);
}

export function textOutput(make: MakeOutput, model: ServedModel, call: CompletionCall, choice: number): ChoiceOutput {
  return paced(make({ ...commonSpec(model, call, choice), reasoning: undefined, tools: undefined }), call);
}

function paced(inner: ChoiceOutput, { output }: ChatCall | CompletionCall): ChoiceOutput {
  return output.interval === undefined ? inner : atIntervals(inner, output.interval);
}

function commonSpec(
  model: ServedModel,
  { output, sampling }: ChatCall | CompletionCall,
  choice: number,
): Omit<OutputSpec, "reasoning" | "tools"> {
  return {
    choice,
    tokenizer: model.tokenizer,
    stop: output.stop,
    includeStopString: output.includeStopString,
    skipSpecialTokens: output.skipSpecialTokens,
    minTokens: sampling.minTokens ?? 0,
    stopTokenIds: [...(sampling.stopTokenIds ?? []), ...(model.defaults.stopTokenIds ?? [])],
    logprobs: output.logprobs !== undefined,
    tokenIds: output.returnTokenIds,
  };
}

interface Visible {
  readonly reasoning: boolean;
  /** false: the first tool call only. */
  readonly parallel: boolean;
  /** The client named the function: its call is no choice of the model, and the finish reason stays `stop`. */
  readonly named: boolean;
}

function filtered(inner: ChoiceOutput, visible: Visible): ChoiceOutput {
  let called = false;
  const see = (events: readonly ChoiceEvent[]): ChoiceEvent[] => {
    const seen: ChoiceEvent[] = [];
    for (const event of events) {
      if (event.type === "tool-call") called = true;
      const kept = show(event, visible, called);
      if (kept !== undefined) seen.push(kept);
    }
    return seen;
  };
  return {
    push: (tokens, logprobs) => see(inner.push(tokens, logprobs)),
    end: (reason, stopToken) => see(inner.end(reason, stopToken)),
    get ended() {
      return inner.ended;
    },
    get tokens() {
      return inner.tokens;
    },
    get reasoningTokens() {
      return inner.reasoningTokens;
    },
  };
}

function show(event: ChoiceEvent, visible: Visible, called: boolean): ChoiceEvent | undefined {
  if (event.type === "finish")
    return called && event.reason === "stop" && !visible.named ? { ...event, reason: "tool_calls" } : event;
  if (event.type === "reasoning" && !visible.reasoning) return undefined;
  if (event.type !== "tool-call" || event.index === 0 || visible.parallel) return event;
  // The call is dropped, its tokens were drawn all the same.
  const { choice, tokenIds, logprobs } = event;
  if (tokenIds === undefined && logprobs === undefined) return undefined;
  return {
    type: "text",
    choice,
    text: "",
    ...(tokenIds === undefined ? {} : { tokenIds }),
    ...(logprobs === undefined ? {} : { logprobs }),
  };
}
