/**
 * What becomes of the rows of one forward: a prompt logprob, or the sequence's next token and perhaps its end.
 *
 * Ends as vLLM's check_stop does (vllm/v1/core/sched/utils.py): end-of-turn, stop token, length, repetition; only
 * length before min_tokens. Called by engine.ts only; it alone appends to a sequence's output.
 */
import type { FinishReason } from "#core/generate.ts";
import type { Constraint } from "#core/grammar.ts";
import type { RepetitionRule } from "#core/sampling.ts";
import { AmbiguityError } from "./grammar/automaton.ts";
import type { Matcher } from "./grammar/matcher.ts";
import type { FailureReport } from "./report.ts";
import { randomSeed } from "./sampler/random.ts";
import { type Sampled, type Sampler, SamplingError, SequenceSampler } from "./sampler/sampler.ts";
import type { Sequence } from "./sequence.ts";

export interface Ending {
  readonly reason: FinishReason;
  readonly stopToken?: number;
}

export interface StopRules {
  readonly endOfTurn: ReadonlySet<number>;
  /** Tokens that a sequence may hold, prompt and output together. */
  readonly contextLength: number;
}

/**
 * What a row that cannot be used, or a grammar that cannot be followed, means for its request, and for it alone
 * (Wall: T26). @throws the error itself when it is neither
 */
export function rowFailure(error: unknown): Pick<FailureReport, "kind" | "message"> {
  if (error instanceof AmbiguityError) return { kind: "invalid_request", message: error.message };
  if (!(error instanceof SamplingError)) throw error;
  return { kind: error.code === "masked" ? "invalid_request" : "engine_failed", message: error.message };
}

/** Reads the logprob of the prompt token after `position`. @throws SamplingError */
export function settlePrompt(sampler: Sampler, sequence: Sequence, position: number, row: Float32Array): void {
  const token = sequence.tokenAt(position + 1);
  sequence.promptLogprobs?.push(sampler.readPrompt(row, token, sequence.sampling.promptLogprobs ?? 0));
}

/** Draws the next token and appends it. @throws SamplingError | AmbiguityError */
export function settleToken(
  sampler: Sampler,
  sequence: Sequence,
  row: Float32Array,
  endOfTurn: readonly number[],
  matcherOf: (constraint: Constraint) => Matcher,
): Sampled {
  sequence.sampler ??= new SequenceSampler(
    sequence.sampling,
    sequence.prompt,
    endOfTurn,
    seedOf(sequence),
    sequence.sampling.constraint === undefined ? undefined : matcherOf(sequence.sampling.constraint),
  );
  const sampled = sampler.sample(row, sequence.sampler, sequence.output);
  sequence.output.push(sampled.token);
  return sampled;
}

/** Whether the sequence ends with the token it just got. @throws AmbiguityError */
export function endingOf(sequence: Sequence, rules: StopRules): Ending | undefined {
  const { sampling, output } = sequence;
  const last = output[output.length - 1] as number;
  if (output.length >= sampling.minTokens) {
    if (!sampling.ignoreEos && rules.endOfTurn.has(last)) return { reason: "stop", stopToken: last };
    if (sampling.stopTokenIds.includes(last)) return { reason: "stop", stopToken: last };
  }
  const mayEnd = !sampling.ignoreEos && rules.endOfTurn.size > 0;
  if (!mayEnd && sequence.sampler?.matcher?.finished) return { reason: "stop" };
  if (output.length >= sampling.maxTokens || sequence.length >= rules.contextLength) return { reason: "length" };
  const { repetition, minTokens } = sampling;
  if (repetition === undefined || output.length < minTokens || !repeats(output, repetition)) return undefined;
  return { reason: "repetition" };
}

/** Whether the output ends in one run said again and again (vllm/v1/core/sched/utils.py, check_sequence_repetition). */
export function repeats(output: readonly number[], { minSize, maxSize, minCount }: RepetitionRule): boolean {
  const last = output.length - 1;
  for (let size = minSize; size <= maxSize && size * minCount <= output.length; size++) {
    let same = 0;
    // All repetitions are equal exactly when each token equals the one a run before it.
    while (same < size * (minCount - 1) && output[last - same] === output[last - same - size]) same++;
    if (same === size * (minCount - 1)) return true;
  }
  return false;
}

function seedOf(sequence: Sequence): number {
  const { seed } = sequence.sampling;
  return seed === undefined ? randomSeed() : seed + sequence.sample;
}
