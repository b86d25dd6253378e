/**
 * What the wire layer hands to serving (chat, completion, tokenize) and what serving streams back: text level.
 */
import type { ChatMessage, ToolChoice, ToolDefinition } from "./chat.ts";
import type { FinishReason } from "./generate.ts";
import type { RepetitionRule } from "./sampling.ts";
import type { StructuredOutput } from "./structured.ts";

/** Sampling as the client gave it: what is absent is filled from the model's defaults by serving. */
export interface SamplingInput {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly repetitionPenalty?: number;
  readonly logitBias?: readonly (readonly [token: number, bias: number])[];
  readonly seed?: number;
  readonly maxTokens?: number;
  readonly minTokens?: number;
  readonly stopTokenIds?: readonly number[];
  readonly ignoreEos?: boolean;
  readonly allowedTokenIds?: readonly number[];
  /** Words, not tokens: serving tokenises them. */
  readonly badWords?: readonly string[];
  readonly repetition?: RepetitionRule;
  /** Report the logprobs of these tokens and not of the likeliest. */
  readonly logprobTokenIds?: readonly number[];
  /** Tokens of reasoning at most, those of the prompt included. */
  readonly thinkingBudget?: number;
}

/** What is wanted around the text. */
export interface OutputOptions {
  /** Choices to draw, ≥ 1. */
  readonly n: number;
  /** Do not draw: the choices are the n best beams. */
  readonly beam?: { readonly lengthPenalty: number };
  readonly stop: readonly string[];
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
  /** Top logprobs a position; absent = none; -1 = whole vocabulary. */
  readonly logprobs?: number;
  readonly promptLogprobs?: number;
  readonly returnTokenIds: boolean;
  /** Whether anybody looks at deltas: without it the text may come in larger pieces. */
  readonly stream: boolean;
  /** Tokens of one delta, but for the first and the last of a choice. Absent: as they come. */
  readonly interval?: number;
  /** Send a running count (`usage`, `final: false`) after every delta and finish. Absent: no. */
  readonly runningUsage?: boolean;
  /** Absent: as urgent as the principal's requests are. */
  readonly priority?: number;
  /** The answer's id, as GenerateRequest.callId. */
  readonly callId?: string;
  readonly cacheSalt?: string;
  /** What the text has to look like. */
  readonly structured?: StructuredOutput;
  /** Where the client wrote that, for messages. Absent: `structured_outputs`. */
  readonly structuredField?: string;
  /** Keep only the last (or first) tokens of the prompt; -1 = the window. */
  readonly truncatePrompt?: { readonly tokens: number; readonly side: "left" | "right" };
}

export interface TemplateOptions {
  readonly addGenerationPrompt: boolean;
  readonly continueFinalMessage: boolean;
  readonly addSpecialTokens: boolean;
  readonly kwargs: Readonly<Record<string, unknown>>;
  readonly documents?: readonly unknown[];
}

export interface ChatCall {
  /** Absent: the first served model. */
  readonly model?: string;
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly ToolDefinition[];
  readonly toolChoice: ToolChoice;
  readonly parallelToolCalls: boolean;
  readonly includeReasoning: boolean;
  readonly sampling: SamplingInput;
  readonly output: OutputOptions;
  readonly template: TemplateOptions;
}

/** One prompt: text, or token ids. */
export type Prompt = string | readonly number[];

export interface CompletionCall {
  readonly model?: string;
  readonly prompts: readonly Prompt[];
  readonly echo: boolean;
  readonly addSpecialTokens: boolean;
  readonly sampling: SamplingInput;
  readonly output: OutputOptions;
}

/** A token with its spelling and logprob, ready to print. `bytes` are the token's raw bytes. */
export interface PrintedLogprob {
  readonly token: number;
  readonly text: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
  readonly rank: number;
}

export interface PrintedPosition extends PrintedLogprob {
  readonly top: readonly PrintedLogprob[];
}

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cachedTokens: number;
  /** Tokens inside the reasoning part. */
  readonly reasoningTokens: number;
}

/** What the tokens of one delta were; the fields are there when asked for. */
export interface DeltaTokens {
  readonly tokenIds?: readonly number[];
  readonly logprobs?: readonly PrintedPosition[];
}

/**
 * Serving's answer, in order: `start` once (after tokenisation and admission, before any token) · per choice
 * deltas and one `finish` · `usage` once, last. Choices interleave. Choice index of prompt p, sample s is p*n+s.
 * `usage` events with `final: false` are running counts after each delta, for continuous usage.
 */
export type CallEvent =
  | {
      readonly type: "start";
      /** Served name to print. */
      readonly model: string;
      /** One entry a prompt. */
      readonly prompts: readonly {
        readonly tokenIds: readonly number[];
        /** The prompt as text; present for chats, and for completions with echo. */
        readonly text?: string;
      }[];
    }
  | {
      readonly type: "prompt-logprobs";
      readonly prompt: number;
      readonly positions: readonly (PrintedPosition | null)[];
    }
  | ({ readonly type: "text"; readonly choice: number; readonly text: string } & DeltaTokens)
  | ({ readonly type: "reasoning"; readonly choice: number; readonly text: string } & DeltaTokens)
  | ({
      readonly type: "tool-call";
      readonly choice: number;
      readonly index: number;
      /** Present on the first fragment of a call only. */
      readonly id?: string;
      readonly name?: string;
      /** Fragment of the arguments' JSON text; the concatenation of all is the text. */
      readonly arguments: string;
    } & DeltaTokens)
  | {
      readonly type: "finish";
      readonly choice: number;
      readonly reason: FinishReason | "tool_calls";
      /** The matched stop string or stop token id. */
      readonly stop?: string | number;
    }
  /** `choice` is there on running counts: they are of that choice alone, and follow the event they belong to. */
  | { readonly type: "usage"; readonly usage: Usage; readonly final: boolean; readonly choice?: number };

/** Those of one choice. */
export type ChoiceEvent = Extract<CallEvent, { type: "text" | "reasoning" | "tool-call" | "finish" }>;
