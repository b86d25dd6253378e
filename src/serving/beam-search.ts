/**
 * Beam search over one prompt: which beams go on, which have ended, which are best. Pure; no engine, no text.
 *
 * As vLLM's (vllm/entrypoints/generate/beam_search): each step looks at the 2·width likeliest tokens of every beam; one
 * that ends the turn completes its beam; of the others the `width` likeliest beams go on. The score is the sum of
 * logprobs divided by length^lengthPenalty, where the length counts the prompt and not the token that ended the turn.
 * It stops before the budget is used up where no beam could come among the best any more.
 * Called by _beam.ts.
 */
import type { PositionLogprobs } from "#core/generate.ts";

export interface Beam {
  /** Tokens after the prompt; without the one that ended it. */
  readonly tokens: readonly number[];
  /** One position a token, the ending one included. */
  readonly positions: readonly PositionLogprobs[];
  /** Sum of the tokens' logprobs, ≤ 0. */
  readonly logprob: number;
  /** The token that ended it; absent while it could go on. */
  readonly ender?: number;
}

export interface BeamOptions {
  readonly width: number;
  readonly promptLength: number;
  /** At least 1. */
  readonly maxTokens: number;
  readonly lengthPenalty: number;
  /** Tokens that end a beam. */
  readonly enders: ReadonlySet<number>;
  /** Tokens that end a turn: not counted at the end of a beam, also where they end none (`ignore_eos`). */
  readonly endOfTurn: ReadonlySet<number>;
}

export class BeamSearch {
  readonly #options: BeamOptions;
  #active: readonly Beam[] = [{ tokens: [], positions: [], logprob: 0 }];
  readonly #completed: Beam[] = [];
  #steps = 0;

  constructor(options: BeamOptions) {
    this.#options = options;
  }

  /** The beams whose next tokens are wanted; none when the search is over. */
  get active(): readonly Beam[] {
    return this.#over ? [] : this.#active;
  }

  /** @param positions one an active beam, in their order: `top` holds the 2·width likeliest next tokens */
  advance(positions: readonly PositionLogprobs[]): void {
    const { width, enders } = this.#options;
    const candidates: Beam[] = [];
    this.#active.forEach((beam, at) => {
      const position = positions[at] as PositionLogprobs;
      for (const chosen of position.top.slice(0, 2 * width)) {
        const grown = {
          positions: [...beam.positions, { ...position, chosen }],
          logprob: beam.logprob + chosen.logprob,
        };
        if (enders.has(chosen.token)) this.#completed.push({ ...grown, tokens: beam.tokens, ender: chosen.token });
        else candidates.push({ ...grown, tokens: [...beam.tokens, chosen.token] });
      }
    });
    this.#active = candidates.sort((a, b) => b.logprob - a.logprob).slice(0, width);
    this.#steps++;
  }

  /** The best beams, at most `width`, best first. */
  best(): readonly Beam[] {
    return this.#ranked([...this.#completed, ...this.#active]).slice(0, this.#options.width);
  }

  get #over(): boolean {
    if (this.#steps >= this.#options.maxTokens || this.#active.length === 0) return true;
    const { width } = this.#options;
    if (this.#completed.length < width) return false;
    const least = this.#score(this.#ranked(this.#completed)[width - 1] as Beam);
    return this.#active.every((beam) => this.#bound(beam) <= least);
  }

  #ranked(beams: readonly Beam[]): Beam[] {
    return [...beams].sort((a, b) => this.#score(b) - this.#score(a));
  }

  #score({ tokens, logprob }: Beam): number {
    const counted = this.#options.endOfTurn.has(tokens.at(-1) ?? -1) ? tokens.length - 1 : tokens.length;
    return this.#scored(logprob, counted);
  }

  /** What a beam can still come to: its logprob only falls, and its length is one of these. */
  #bound({ tokens, logprob }: Beam): number {
    return Math.max(this.#scored(logprob, tokens.length - 1), this.#scored(logprob, this.#options.maxTokens));
  }

  #scored(logprob: number, length: number): number {
    return logprob / Math.max(1, this.#options.promptLength + length) ** this.#options.lengthPenalty;
  }
}
