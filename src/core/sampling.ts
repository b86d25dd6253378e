/**
 * How the engine picks tokens: plain numbers, already validated and defaulted by the wire layer.
 *
 * Invariants (checked by the wire layer, relied on by the engine): every number is finite; every token id lies
 * in [0, vocabulary); `minTokens` ≤ `maxTokens`. Meanings are vLLM's (vllm/sampling_params.py).
 */
import type { Constraint } from "./grammar.ts";

export interface SamplingParams {
  /** 0 = greedy; else in (0, 2]. */
  readonly temperature: number;
  /** Keep the k likeliest tokens; 0 = all. */
  readonly topK: number;
  /** Keep the smallest set whose mass reaches this, in (0, 1]; 1 = all. */
  readonly topP: number;
  /** Keep tokens at least this fraction as likely as the likeliest, in [0, 1]; 0 = all. */
  readonly minP: number;
  /** Subtracted once from the logit of each token already generated, in [-2, 2]. */
  readonly presencePenalty: number;
  /** Subtracted per occurrence among the generated tokens, in [-2, 2]. */
  readonly frequencyPenalty: number;
  /** Divides positive and multiplies negative logits of tokens in prompt or output; > 0, 1 = off. */
  readonly repetitionPenalty: number;
  /** Added to logits before anything else: pairs of token id and bias in [-100, 100]. */
  readonly logitBias: readonly (readonly [token: number, bias: number])[];
  /** Same seed, same request: same tokens, whatever else is in the batch. Absent: a random one is drawn. */
  readonly seed?: number;
  /** Tokens to generate at most; 0 = only the prompt is worked on. */
  readonly maxTokens: number;
  /** End-of-turn and stop tokens cannot be drawn before this many were generated. */
  readonly minTokens: number;
  /** End the sequence when one of these is drawn; it is reported as `stopToken`. */
  readonly stopTokenIds: readonly number[];
  /** Go on after the model's own end-of-turn tokens. */
  readonly ignoreEos: boolean;
  /** Report the drawn token's logprob and this many of the likeliest; -1 = the whole vocabulary; absent = none. */
  readonly logprobs?: number;
  /** With `logprobs`: report these tokens, in this order, in place of the likeliest. Distinct; never empty. */
  readonly logprobTokenIds?: readonly number[];
  /** The same for every prompt token but the first. */
  readonly promptLogprobs?: number;
  /** If present only these tokens can be drawn; never empty. */
  readonly allowedTokenIds?: readonly number[];
  /** Token runs that may not be completed: the last token of each is barred when the rest precedes it. */
  readonly badWords: readonly (readonly number[])[];
  /** End the sequence when its last tokens are one run, said again and again. */
  readonly repetition?: RepetitionRule;
  /** What the output has to look like. */
  readonly constraint?: Constraint;
  /** Ends the reasoning after so many tokens. */
  readonly thinking?: ThinkingBudget;
}

/** After `tokens` tokens of reasoning the run `end` is said, whatever the model would have said. */
export interface ThinkingBudget {
  /** Tokens that may still be thought, ≥ 0. */
  readonly tokens: number;
  /** Whether the answer begins inside the reasoning; else it is entered by `start`. */
  readonly open: boolean;
  /** The runs of tokens that open and close it; neither is empty. */
  readonly start: readonly number[];
  readonly end: readonly number[];
}

/** A run of minSize … maxSize tokens that stands minCount times in a row. 1 ≤ minSize ≤ maxSize, minCount ≥ 2. */
export interface RepetitionRule {
  readonly minSize: number;
  readonly maxSize: number;
  readonly minCount: number;
}

/** The neutral values: what vLLM does when a request says nothing and the model brings no generation config. */
export const NEUTRAL_SAMPLING: SamplingParams = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  maxTokens: 16,
  minTokens: 0,
  stopTokenIds: [],
  ignoreEos: false,
  badWords: [],
};
