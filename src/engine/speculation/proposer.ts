/**
 * Speculative decoding (Leviathan, Kalman, Matias, ICML 2023): somebody cheap guesses the next tokens, and one forward
 * of the model says which of them it would have drawn itself.
 *
 * A guess is taken when it is the very token that the model's own row, seed and position draw there. So the output has
 * the model's distribution exactly, and a seed gives the same tokens with and without it: guesses decide how many rows
 * are used, never what they say. Proposers know nothing of sampling.
 * Called by engine.ts before each step.
 */
import type { Kernel, KernelLimits } from "#engine/kernel.ts";
import type { Sequence } from "#engine/sequence.ts";
import { DraftModel } from "./draft-model.ts";
import { LookupProposer } from "./lookup.ts";

/** --speculative-config. Token counts in tokens. */
export interface SpeculationOptions {
  /** `ngram`: what followed the last tokens earlier in the same text. `draft_model`: a smaller model's greedy choice. */
  readonly method: "ngram" | "draft_model";
  /** Guesses a step and sequence, 1 … MAX_GUESSES. */
  readonly tokens: number;
  /** Lengths of the run that is looked up, longest first (ngram). */
  readonly lookupMax: number;
  readonly lookupMin: number;
  /** No guesses while more sequences than this decode: a full batch has no spare compute. Absent: always. */
  readonly disableAbove?: number;
  /** Guesses only for a sequence that decodes alone and is so long. Absent: for all. */
  readonly loneFrom?: number;
}

/** Where the kernel would compute a second token and throw it away, a guess takes its place: it costs nothing. */
export function freeGuesses({ loneFrom }: KernelLimits): SpeculationOptions | undefined {
  return loneFrom === undefined ? undefined : { method: "ngram", tokens: 1, lookupMax: 3, lookupMin: 1, loneFrom };
}

export const MAX_GUESSES = 32;

export interface Proposer {
  /** Guesses for sequences that all decode: `wanted[i]` tokens at most (≥ 1) for `sequences[i]`; fewer or none is fine. */
  propose(sequences: readonly Sequence[], wanted: readonly number[]): readonly (readonly number[])[];
  /** The sequence ended, or lost its slot. */
  forget(sequence: Sequence): void;
  close(): void;
}

/** @param draft the kernel of the smaller model, for `draft_model` @throws Error when it does not fit the model */
export function createSpeculation(
  options: SpeculationOptions,
  target: Kernel,
  draft: Kernel | undefined,
  contextLength: number,
): Speculation {
  const proposer = createProposer(options, target, draft);
  return new Speculation(options, proposer, contextLength, target.limits.prefillBlock);
}

function createProposer(options: SpeculationOptions, target: Kernel, draft: Kernel | undefined): Proposer {
  if (options.method === "ngram") return new LookupProposer(options.lookupMin, options.lookupMax);
  if (draft === undefined) throw new Error("speculation by a draft model needs one");
  checkVocabularies(target, draft);
  return new DraftModel(draft);
}

function checkVocabularies(target: Kernel, draft: Kernel): void {
  const [ours, theirs] = [target.pieces(), draft.pieces()];
  const same = (piece: Uint8Array | undefined, other: Uint8Array | undefined): boolean =>
    piece === other || (piece !== undefined && other !== undefined && Buffer.compare(piece, other) === 0);
  if (ours.length !== theirs.length || !ours.every((piece, token) => same(piece, theirs[token])))
    throw new Error("the draft model has another vocabulary than the model");
  if (draft.limits.maxSequences < target.limits.maxSequences)
    throw new Error("the draft model holds fewer sequences than the model");
}

/** Gives every decoding sequence its guesses for this step, as many as it can still use. */
export class Speculation {
  readonly #options: SpeculationOptions;
  readonly #proposer: Proposer;
  readonly #most: number;
  readonly #contextLength: number;

  /** @param prefillBlock as KernelLimits: a token and its guesses are fewer, so that they are computed as tokens are */
  constructor(options: SpeculationOptions, proposer: Proposer, contextLength: number, prefillBlock: number) {
    if (options.tokens < 1 || options.tokens > MAX_GUESSES)
      throw new RangeError(`${options.tokens} guesses do not lie in 1 … ${MAX_GUESSES}`);
    this.#most = prefillBlock === 1 ? options.tokens : Math.min(options.tokens, prefillBlock - 2);
    this.#options = options;
    this.#proposer = proposer;
    this.#contextLength = contextLength;
  }

  prepare(running: readonly Sequence[]): void {
    for (const sequence of running) sequence.draft = [];
    const decoding = running.filter((sequence) => sequence.decoding && !sequence.paused);
    const { disableAbove = Number.POSITIVE_INFINITY, loneFrom } = this.#options;
    if (decoding.length > disableAbove) return;
    if (loneFrom !== undefined && (decoding.length !== 1 || (decoding[0]?.length ?? 0) <= loneFrom)) return;
    const asking = decoding.filter((sequence) => this.#useful(sequence) > 0);
    if (asking.length === 0) return;
    const drafts = this.#proposer.propose(
      asking,
      asking.map((sequence) => this.#useful(sequence)),
    );
    for (const [at, sequence] of asking.entries()) sequence.draft = [...(drafts[at] ?? [])];
  }

  forget(sequence: Sequence): void {
    sequence.draft = [];
    this.#proposer.forget(sequence);
  }

  close(): void {
    this.#proposer.close();
  }

  /** A step draws one token more than it takes guesses, and needs none beyond the last one. */
  #useful({ sampling, output, length }: Sequence): number {
    const left = Math.min(sampling.maxTokens - output.length, this.#contextLength - length);
    return Math.min(this.#most, left - 1);
  }
}
