/**
 * Presence, frequency and repetition penalties, as vLLM applies them (vllm/model_executor/layers/utils.py,
 * apply_penalties): repetition over prompt and output, the other two over the output only.
 *
 * Cost: one visit of each distinct token seen, not of the vocabulary. One instance a sequence; called by edits.ts.
 */
import type { SamplingParams } from "#core/sampling.ts";

export class Penalties {
  readonly #params: SamplingParams;
  /** Distinct tokens seen, and how often each was generated (0 for prompt only). Parallel arrays. */
  readonly #tokens: number[] = [];
  readonly #counts: number[] = [];
  readonly #at = new Map<number, number>();

  constructor(params: SamplingParams, prompt: Int32Array) {
    this.#params = params;
    if (params.repetitionPenalty !== 1) for (const token of prompt) this.#see(token, 0);
  }

  static wanted(params: SamplingParams): boolean {
    return params.repetitionPenalty !== 1 || params.frequencyPenalty !== 0 || params.presencePenalty !== 0;
  }

  /** Counts a generated token. */
  note(token: number): void {
    this.#see(token, 1);
  }

  /** Edits the logits in place. */
  apply(row: Float32Array): void {
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.#params;
    for (let at = 0; at < this.#tokens.length; at++) {
      const token = this.#tokens[at] as number;
      const count = this.#counts[at] as number;
      let logit = row[token] as number;
      if (repetitionPenalty !== 1) logit = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
      if (count > 0) logit -= frequencyPenalty * count + presencePenalty;
      row[token] = logit;
    }
  }

  #see(token: number, times: number): void {
    const at = this.#at.get(token);
    if (at === undefined) {
      this.#at.set(token, this.#tokens.length);
      this.#tokens.push(token);
      this.#counts.push(times);
    } else {
      this.#counts[at] = (this.#counts[at] as number) + times;
    }
  }
}
