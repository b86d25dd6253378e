/**
 * One stream of tokens in the engine: what it was asked for, what it holds, how far the kernel has computed it.
 *
 * Invariants: 0 ≤ computed < length while it lives; slot ≥ 0 exactly while running; numbers that follow from others
 * are getters. Written by scheduler.ts and placement.ts (state, slot), step.ts and placement.ts (computed), settle.ts (output) and prefix/chain.ts
 * (blocks) only.
 */
import type { AdapterReference, PositionLogprobs } from "#core/generate.ts";
import type { SamplingParams } from "#core/sampling.ts";
import { NO_ADAPTER } from "./kernel.ts";
import type { BlockHash } from "./prefix/hash.ts";
import type { SequenceSampler } from "./sampler/sampler.ts";

/** A waiting sequence has no slot; a finished one is known to nobody but its last reader. */
export type SequenceState = "waiting" | "running" | "finished";

/** Where times go: seconds of the engine process's monotonic clock; 0 = not yet. */
export interface SequenceClock {
  readonly arrived: number;
  admitted: number;
  firstToken: number;
}

export interface SequenceInit {
  /** The request's number, unique among the open ones. */
  readonly request: number;
  readonly sample: number;
  /** Order of arrival; unique. */
  readonly order: number;
  readonly prompt: Int32Array;
  readonly sampling: SamplingParams;
  readonly priority: number;
  readonly arrived: number;
  /** Root of the sequence's cached blocks; two salts never share one. */
  readonly cacheSalt: string;
  /** Whose share of the engine it draws on, and how large that is against others; > 0. */
  readonly share: string;
  readonly weight: number;
  readonly adapter: AdapterReference | undefined;
  /** Whether other samples of the request have the same prompt. */
  readonly shared: boolean;
}

export class Sequence {
  readonly request: number;
  readonly sample: number;
  readonly order: number;
  readonly prompt: Int32Array;
  readonly sampling: SamplingParams;
  readonly priority: number;
  readonly clock: SequenceClock;
  readonly cacheSalt: string;
  readonly share: string;
  readonly weight: number;
  /** The kernel's number of the LoRA adapter that computes it; NO_ADAPTER = the model itself. */
  readonly adapter: number;
  /** Its name, for the names of blocks. */
  readonly adapterName: string | undefined;
  readonly shared: boolean;
  /** Names of the full blocks of known tokens, as far as they were made (prefix/chain.ts). */
  readonly blocks: BlockHash[] = [];
  /** Tokens generated so far. */
  readonly output: number[] = [];
  /** Prompt logprobs collected so far, one a prompt position; only where this sequence reports them. */
  readonly promptLogprobs: (PositionLogprobs | null)[] | undefined;
  state: SequenceState = "waiting";
  /** The reader is slow: keeps its slot, gets no tokens. */
  paused = false;
  /** The kernel's slot; -1 = none. */
  slot = -1;
  /** Tokens that the kernel holds. */
  computed = 0;
  /** Prompt tokens that were found computed when it was first seated; -1 = not yet. */
  cached = -1;
  /** Prompt tokens that stand in the engine's total: each once, however often it is computed. */
  promptCounted = 0;
  /** Guesses of what comes after the last token, for this step alone (speculation/). */
  draft: number[] = [];
  /** Made at the first draw, so that a waiting sequence costs no sampler state. */
  sampler: SequenceSampler | undefined;

  constructor(init: SequenceInit) {
    this.request = init.request;
    this.sample = init.sample;
    this.order = init.order;
    this.prompt = init.prompt;
    this.sampling = init.sampling;
    this.priority = init.priority;
    this.cacheSalt = init.cacheSalt;
    this.share = init.share;
    this.weight = init.weight;
    this.adapter = init.adapter?.number ?? NO_ADAPTER;
    this.adapterName = init.adapter?.name;
    this.shared = init.shared;
    this.clock = { arrived: init.arrived, admitted: 0, firstToken: 0 };
    // The prompt is the same for all samples: the first one reports it.
    const reports = init.sample === 0 && init.sampling.promptLogprobs !== undefined;
    this.promptLogprobs = reports ? [null] : undefined;
  }

  /** Tokens known: prompt and output. */
  get length(): number {
    return this.prompt.length + this.output.length;
  }

  /** Tokens known and not yet computed. 1 = decoding. */
  get pending(): number {
    return this.length - this.computed;
  }

  get decoding(): boolean {
    return this.pending === 1 && this.output.length > 0;
  }

  /** Prompt positions whose logprobs are still wanted; their rows are expensive, so a step takes few of them. */
  get promptRowsLeft(): number {
    return this.promptLogprobs === undefined ? 0 : this.prompt.length - this.promptLogprobs.length;
  }

  /** Beyond what is known: the guesses. */
  tokenAt(position: number): number {
    const index = position - this.prompt.length;
    if (index < 0) return this.prompt[position] as number;
    return (index < this.output.length ? this.output[index] : this.draft[index - this.output.length]) as number;
  }

  /** Whether the logits of this position are wanted: the next token is unknown, or its logprob is asked for. */
  wantsRow(position: number): boolean {
    if (position >= this.length - 1) return true;
    const known = this.promptLogprobs?.length ?? Infinity;
    return position + 1 >= known && position + 1 < this.prompt.length;
  }
}
