/**
 * One token from one row of raw logits: edits, then greedy or a draw, then the raw logprobs when asked.
 *
 * Sampler holds scratch for the whole engine; SequenceSampler holds what one sequence carries from token to token.
 * Invariant: the result depends on the row, the sequence's own tokens and its seed; never on the batch.
 * Called by settle.ts; no call overlaps another.
 */
import type { PositionLogprobs } from "#core/generate.ts";
import type { SamplingParams } from "#core/sampling.ts";
import type { Matcher } from "#engine/grammar/matcher.ts";
import { Drawer } from "./draw.ts";
import { Edits } from "./edits.ts";
import { largest, largestAmong, type RowProblem } from "./largest.ts";
import { LogprobReader } from "./logprobs.ts";
import { uniform } from "./random.ts";
import { MAX_ROW_LENGTH } from "./select.ts";
import { ThinkingLimit } from "./thinking.ts";

/** Below this temperature vLLM samples greedily (vllm/sampling_params.py, _SAMPLING_EPS). */
const GREEDY_BELOW = 1e-5;

/** Tokens that are tried by themselves before a mask is made, which takes longer. */
const GREEDY_TRIES = 4;

/** `model`: the row itself is unusable. `masked`: the request barred every token. */
export type SamplingErrorCode = "model" | "masked";

export class SamplingError extends Error {
  readonly code: SamplingErrorCode;
  constructor(code: SamplingErrorCode, message: string) {
    super(message);
    this.name = "SamplingError";
    this.code = code;
  }
}

/** What one sequence carries from token to token. */
export class SequenceSampler {
  readonly params: SamplingParams;
  readonly seed: number;
  readonly edits: Edits;
  /** When the reasoning has to end; undefined: when it likes. */
  readonly thinking: ThinkingLimit | undefined;

  /** What the grammar lets through; undefined: everything. */
  readonly matcher: Matcher | undefined;

  /** @param seed of this sample (the request's seed + the sample's number) */
  constructor(
    params: SamplingParams,
    prompt: Int32Array,
    endOfTurn: readonly number[],
    seed: number,
    matcher?: Matcher,
  ) {
    this.matcher = matcher;
    this.params = params;
    this.seed = seed;
    this.edits = new Edits(params, prompt, endOfTurn);
    this.thinking = params.thinking === undefined ? undefined : new ThinkingLimit(params.thinking);
  }
}

export interface Sampled {
  readonly token: number;
  readonly logprobs?: PositionLogprobs;
}

export class Sampler {
  readonly #drawer: Drawer;
  readonly #logprobs: LogprobReader;
  /** Raw copy of a row that is about to be edited; candidates under allowed_token_ids. */
  readonly #raw: Float32Array;
  readonly #gathered: Float32Array;

  constructor(vocabularySize: number) {
    if (vocabularySize > MAX_ROW_LENGTH)
      throw new RangeError(`vocabulary of ${vocabularySize} is over ${MAX_ROW_LENGTH}`);
    this.#drawer = new Drawer(vocabularySize);
    this.#logprobs = new LogprobReader(vocabularySize);
    this.#raw = new Float32Array(vocabularySize);
    this.#gathered = new Float32Array(vocabularySize);
  }

  /**
   * Draws the next token. The row is scratch: it may come back edited.
   * @param output the tokens that the sequence has generated so far
   * @throws SamplingError | AmbiguityError
   */
  sample(row: Float32Array, sequence: SequenceSampler, output: readonly number[]): Sampled {
    const { params, edits } = sequence;
    const edited = edits.touches(output.length) || sequence.matcher?.active === true;
    let raw = row;
    if (edited && params.logprobs !== undefined) {
      this.#raw.set(row);
      raw = this.#raw;
    }
    if (edited) edits.apply(row, output);
    const token = this.#choose(row, sequence, output.length, edited);
    edits.note(token);
    sequence.matcher?.advance(token);
    sequence.thinking?.note(token);
    if (params.logprobs === undefined) return { token };
    return { token, logprobs: this.#readLogprobs(raw, token, params.logprobs, params.logprobTokenIds) };
  }

  /** The logprobs of a prompt token, given the row of the position before it. @throws SamplingError */
  readPrompt(row: Float32Array, token: number, top: number): PositionLogprobs {
    return this.#readLogprobs(row, token, top);
  }

  #readLogprobs(raw: Float32Array, token: number, top: number, ids?: readonly number[]): PositionLogprobs {
    const logprobs = this.#logprobs.read(raw, token, top, ids);
    if (typeof logprobs === "string") throw unusable(logprobs, false);
    return logprobs;
  }

  /**
   * Under a grammar the drawn token is checked first, and only if it is refused all others are barred and another is
   * drawn: a token is then drawn as often as if they had been barred at once. Cuts go by what is left after barring,
   * so with them it comes first. The end of reasoning is not drawn: it comes when it is due and the grammar lets it.
   */
  #choose(row: Float32Array, sequence: SequenceSampler, index: number, edited: boolean): number {
    const { params, matcher } = sequence;
    const due = sequence.thinking?.due;
    if (matcher === undefined || !matcher.active) return due ?? this.#pick(row, sequence, index, edited);
    if (due !== undefined && matcher.allows(due)) return due;
    const cuts = params.temperature >= GREEDY_BELOW && (params.topK > 0 || params.topP < 1 || params.minP > 0);
    const greedy = params.temperature < GREEDY_BELOW;
    // A draw is tried once only: what is drawn must not depend on which masks others had made.
    for (let left = cuts ? 0 : greedy && !matcher.masked ? GREEDY_TRIES : 1; left > 0; left--) {
      const token = this.#pick(row, sequence, index, edited);
      if (matcher.allows(token)) return token;
      if (left > 1) row[token] = -Infinity;
    }
    const mask = matcher.mask();
    if (greedy && sequence.edits.allowed === undefined && mask !== undefined)
      return chosen(largestAmong(row, mask), true);
    bar(row, mask);
    return this.#pick(row, sequence, index, true, 1);
  }

  #pick(row: Float32Array, sequence: SequenceSampler, index: number, edited: boolean, attempt = 0): number {
    const { params, seed, edits } = sequence;
    const { allowed } = edits;
    const values = allowed === undefined ? row : this.#gather(row, allowed);
    const length = allowed === undefined ? row.length : allowed.length;
    const greedy = params.temperature < GREEDY_BELOW;
    const at = greedy
      ? largest(values, length)
      : this.#drawer.draw(values, length, params, uniform(seed, index, attempt));
    const place = chosen(at, edited || allowed !== undefined);
    return allowed === undefined ? place : (allowed[place] as number);
  }

  #gather(row: Float32Array, allowed: Int32Array): Float32Array {
    for (let at = 0; at < allowed.length; at++) this.#gathered[at] = row[allowed[at] as number] as number;
    return this.#gathered;
  }
}

function bar(row: Float32Array, mask: Uint32Array | undefined): void {
  if (mask === undefined) return;
  for (let word = 0; word < mask.length; word++) {
    const bits = mask[word] as number;
    if (bits === 0xffff_ffff) continue;
    const end = Math.min(row.length, (word + 1) * 32);
    for (let token = word * 32; token < end; token++) if (((bits >>> (token & 31)) & 1) === 0) row[token] = -Infinity;
  }
}

/** @param edited as unusable's. @throws SamplingError */
function chosen(at: number | RowProblem, edited: boolean): number {
  if (typeof at === "string") throw unusable(at, edited);
  return at;
}

/** @param edited whether the request's own parameters may have barred tokens */
function unusable(problem: RowProblem, edited: boolean): SamplingError {
  if (problem === "empty" && edited) {
    return new SamplingError("masked", "the sampling parameters leave no token that may be drawn");
  }
  return new SamplingError("model", `the model's logits cannot be sampled: ${problem}`);
}
