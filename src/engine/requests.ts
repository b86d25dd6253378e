/**
 * The open requests and their sequences: which exist, not what they do.
 *
 * Invariant: a sequence stands in exactly one request until it is finished; a held one is not yet with the scheduler.
 * Called by engine.ts only.
 */
import type { AdapterReference, FairShare } from "#core/generate.ts";
import type { SamplingParams } from "#core/sampling.ts";
import { Sequence } from "./sequence.ts";

export interface Submission {
  /** Unique among the open requests. */
  readonly request: number;
  /** At least one token, all in the vocabulary. */
  readonly prompt: Int32Array;
  readonly sampling: SamplingParams;
  readonly samples: number;
  readonly priority: number;
  /** The salt at the root of its cached blocks: two salts never share one. */
  readonly cacheSalt?: string;
  /** Requests of one group share prefixes where there is no cache. */
  readonly group?: string;
  /** Whose share of the engine it draws on; requests without one share a share. */
  readonly share?: FairShare;
  /** A loaded adapter; the model itself if absent. */
  readonly adapter?: AdapterReference;
}

const NO_SHARE: FairShare = { key: "", weight: 1 };

/** Why a request cannot run, or undefined. Bounds in tokens. */
export function problemOf(
  { prompt, samples, share }: Submission,
  bounds: { readonly contextLength: number; readonly vocabularySize: number },
): string | undefined {
  const { contextLength, vocabularySize } = bounds;
  if (share !== undefined && !(share.weight > 0 && share.weight < Infinity)) return "a share has a weight above 0";
  if (samples < 1) return "a request has at least one sample";
  if (prompt.length < 1) return "the prompt has no tokens";
  if (prompt.length > contextLength)
    return `the prompt has ${prompt.length} tokens; the context holds ${contextLength}`;
  const stray = prompt.find((token) => token < 0 || token >= vocabularySize);
  return stray === undefined ? undefined : `token ${stray} is not in the vocabulary`;
}

export class Requests {
  readonly #open = new Map<number, Set<Sequence>>();
  /** Samples that wait for the first one to report the prompt's logprobs, because its prefill is slower than theirs. */
  readonly #held = new Map<number, Sequence[]>();
  /** Requests whose prompt was not reported yet. */
  readonly #unreported = new Set<number>();
  #arrivals = 0;

  /** Opens a request; returns the sequences that may run now. @param arrived seconds */
  open(submission: Submission, arrived: number): Sequence[] {
    const { request, prompt, sampling, samples, priority, adapter, cacheSalt = "" } = submission;
    const { key: share, weight } = submission.share ?? NO_SHARE;
    const shared = samples > 1 || submission.group !== undefined;
    const sequences: Sequence[] = [];
    for (let sample = 0; sample < samples; sample++) {
      const order = this.#arrivals++;
      const whose = { cacheSalt, share, weight, adapter, shared };
      sequences.push(new Sequence({ request, sample, order, prompt, sampling, priority, arrived, ...whose }));
    }
    this.#open.set(request, new Set(sequences));
    this.#unreported.add(request);
    const held = sampling.promptLogprobs === undefined ? [] : sequences.splice(1);
    if (held.length > 0) this.#held.set(request, held);
    return sequences;
  }

  has(request: number): boolean {
    return this.#open.has(request);
  }

  /** The unfinished sequences of a request; none for an unknown one. */
  of(request: number): Iterable<Sequence> {
    return this.#open.get(request) ?? [];
  }

  /** The held sequences, which may run from now on. */
  takeHeld(request: number): readonly Sequence[] {
    const held = this.#held.get(request) ?? [];
    this.#held.delete(request);
    return held;
  }

  /** Whether its prompt is still to be reported; once true, never again. */
  takeUnreported(request: number): boolean {
    return this.#unreported.delete(request);
  }

  finish(sequence: Sequence): void {
    const sequences = this.#open.get(sequence.request);
    sequences?.delete(sequence);
    if (sequences?.size === 0) this.close(sequence.request);
  }

  close(request: number): void {
    this.#open.delete(request);
    this.#held.delete(request);
    this.#unreported.delete(request);
  }

  get count(): number {
    return this.#open.size;
  }

  get heldCount(): number {
    let count = 0;
    for (const sequences of this.#held.values()) count += sequences.length;
    return count;
  }

  get sequenceCount(): number {
    let count = 0;
    for (const sequences of this.#open.values()) count += sequences.size;
    return count;
  }
}
