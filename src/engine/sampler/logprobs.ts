/**
 * Logprobs of a raw row: vLLM's "raw_logprobs", of the logits before any edit, mask or temperature.
 *
 * Costs a pass over the vocabulary a row, so it runs only when asked. Called by sampler.ts.
 */
import type { PositionLogprobs, TokenLogprob } from "#core/generate.ts";
import { BUCKETS_PER_NAT, weightAt } from "./exp.ts";
import { largest, type RowProblem } from "./largest.ts";
import { Selector } from "./select.ts";

export class LogprobReader {
  readonly #selector: Selector;

  constructor(vocabularySize: number) {
    this.#selector = new Selector(vocabularySize);
  }

  /**
   * @param row raw logits, shape [vocabulary]
   * @param token the token that stands at this position
   * @param top how many of the likeliest, -1 = all
   * @param ids these tokens in place of the likeliest; their ranks are not counted
   */
  read(row: Float32Array, token: number, top: number, ids?: readonly number[]): PositionLogprobs | RowProblem {
    const best = largest(row, row.length);
    if (typeof best === "string") return best;
    const max = row[best] as number;
    const chosen = row[token] as number;
    let sum = 0;
    let before = 0;
    for (let index = 0; index < row.length; index++) {
      const value = row[index] as number;
      sum += weightAt((max - value) * BUCKETS_PER_NAT);
      if (value >= chosen && (value > chosen || index < token)) before++;
    }
    const normalizer = max + Math.log(sum);
    return {
      chosen: { token, logprob: chosen - normalizer, rank: before + 1 },
      top:
        ids === undefined
          ? this.#top(row, top < 0 ? row.length : Math.min(top, row.length), normalizer)
          : ids.map((id) => ({ token: id, logprob: (row[id] as number) - normalizer, rank: 0 })),
    };
  }

  #top(row: Float32Array, count: number, normalizer: number): TokenLogprob[] {
    if (count === 0) return [];
    const found = this.#selector.select(row, row.length, count);
    const top: TokenLogprob[] = [];
    for (let at = 0; at < found; at++) {
      const token = this.#selector.indices[at] as number;
      top.push({ token, logprob: (row[token] as number) - normalizer, rank: at + 1 });
    }
    return top;
  }
}
