/**
 * Prompt lookup (Saxena, 2023; vLLM's ngram method): texts repeat themselves, so what followed the last few tokens
 * when they stood there before is a fair guess. Costs no model and nothing to keep. Used by proposer.ts.
 */
import type { Sequence } from "#engine/sequence.ts";
import type { Proposer } from "./proposer.ts";

/** Tokens that are searched, the latest: a search costs about a nanosecond for each of them. */
const MAX_SEARCHED = 16_384;

export class LookupProposer implements Proposer {
  readonly #min: number;
  readonly #max: number;

  /** @param min,max lengths of the run that has to stand there before, 1 ≤ min ≤ max */
  constructor(min: number, max: number) {
    if (!(min >= 1 && min <= max)) throw new RangeError(`lookup from ${min} to ${max} tokens`);
    this.#min = min;
    this.#max = max;
  }

  propose(sequences: readonly Sequence[], wanted: readonly number[]): readonly (readonly number[])[] {
    return sequences.map((sequence, at) => this.#guess(textOf(sequence), wanted[at] ?? 0));
  }

  forget(): void {}

  close(): void {}

  #guess(text: Int32Array, wanted: number): number[] {
    const at = lookup(text, this.#min, this.#max);
    if (at < 0) return [];
    const guesses: number[] = [];
    // Beyond the end the guesses themselves go on: a text that goes round in a circle is guessed as long as is wanted.
    for (let i = 0; i < wanted; i++)
      guesses.push((at + i < text.length ? text[at + i] : guesses[at + i - text.length]) as number);
    return guesses;
  }
}

function textOf({ prompt, output }: Sequence): Int32Array {
  const fromPrompt = Math.max(0, Math.min(prompt.length, MAX_SEARCHED - output.length));
  const text = new Int32Array(fromPrompt + output.length);
  text.set(prompt.subarray(prompt.length - fromPrompt));
  text.set(output, fromPrompt);
  return text;
}

/**
 * Where the text goes on after the latest earlier occurrence of its last tokens: of the longest run of `min` … `max`
 * that stands there before. -1: nowhere.
 */
export function lookup(text: Int32Array, min: number, max: number): number {
  const last = text.length - 1;
  let best = -1;
  let longest = min - 1;
  for (let end = last - 1; end >= 0 && longest < max; end--) {
    let same = 0;
    while (same < max && same <= end && text[end - same] === text[last - same]) same++;
    if (same > longest) [longest, best] = [same, end + 1];
  }
  return best;
}
