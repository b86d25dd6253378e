/**
 * What a request changes about its logits before a token is drawn: barred runs, min_tokens, bias, penalties, in the
 * order of vLLM's sampler (vllm/v1/sample/sampler.py, apply_logits_processors).
 *
 * allowed_token_ids comes first there; here it is the list of candidates that the sampler reads, which is the same
 * because every other edit touches single tokens. One instance a sequence; called by sampler.ts.
 */
import type { SamplingParams } from "#core/sampling.ts";
import { Penalties } from "./penalties.ts";

/** Distinct ids, ascending, so that ties still go to the lower id. */
function candidates(ids: readonly number[]): Int32Array {
  return Int32Array.from(new Set(ids)).sort();
}

export class Edits {
  /** The only tokens that may be drawn, ascending; undefined = all. */
  readonly allowed: Int32Array | undefined;
  readonly #params: SamplingParams;
  readonly #enders: readonly number[];
  readonly #penalties: Penalties | undefined;

  constructor(params: SamplingParams, prompt: Int32Array, endOfTurn: readonly number[]) {
    this.#params = params;
    this.allowed = params.allowedTokenIds === undefined ? undefined : candidates(params.allowedTokenIds);
    this.#enders = params.minTokens > 0 ? [...endOfTurn, ...params.stopTokenIds] : [];
    this.#penalties = Penalties.wanted(params) ? new Penalties(params, prompt) : undefined;
  }

  /** Whether `apply` may change a row when `generated` tokens stand already. */
  touches(generated: number): boolean {
    return (
      this.#penalties !== undefined ||
      this.#params.logitBias.length > 0 ||
      this.#params.badWords.length > 0 ||
      generated < this.#params.minTokens
    );
  }

  /** Edits the logits in place. `output`: the tokens generated so far. */
  apply(row: Float32Array, output: readonly number[]): void {
    for (const run of this.#params.badWords) {
      if (completes(run, output)) row[run[run.length - 1] as number] = -Infinity;
    }
    if (output.length < this.#params.minTokens) for (const token of this.#enders) row[token] = -Infinity;
    for (const [token, bias] of this.#params.logitBias) row[token] = (row[token] as number) + bias;
    this.#penalties?.apply(row);
  }

  /** Takes note of a drawn token. */
  note(token: number): void {
    this.#penalties?.note(token);
  }
}

/** Whether one more token would complete the run: all but its last token end the output (bad_words.py). */
function completes(run: readonly number[], output: readonly number[]): boolean {
  const prefix = run.length - 1;
  if (prefix < 0 || prefix > output.length) return false;
  for (let back = 1; back <= prefix; back++) {
    if (run[prefix - back] !== output[output.length - back]) return false;
  }
  return true;
}
