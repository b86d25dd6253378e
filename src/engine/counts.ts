/**
 * What the engine counts, from its start on. Token counts in tokens, as vLLM counts them. Used by engine.ts only.
 */
import type { EngineGauges } from "./report.ts";
import type { Plan } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

export class Counts {
  steps = 0;
  generationTokens = 0;
  preemptions = 0;
  #promptTokens = 0;
  #prefixQueries = 0;
  #prefixHits = 0;
  #drafts = 0;
  #draftTokens = 0;
  readonly #accepted: number[] = [];

  get totals(): Omit<EngineGauges, "running" | "waiting" | "kvUsage" | "adapters"> {
    return {
      steps: this.steps,
      promptTokens: this.#promptTokens,
      generationTokens: this.generationTokens,
      preemptions: this.preemptions,
      prefixQueries: this.#prefixQueries,
      prefixHits: this.#prefixHits,
      drafts: this.#drafts,
      draftTokens: this.#draftTokens,
      acceptedTokens: [...this.#accepted],
    };
  }

  /** A forward is about to be added to its sequences: the prompt tokens in it count once, however often computed. */
  work(plan: Plan): void {
    for (const [sequence, count] of plan) {
      const reached = Math.min(sequence.prompt.length, sequence.computed + count);
      this.#promptTokens += Math.max(0, reached - sequence.promptCounted);
      sequence.promptCounted = Math.max(reached, sequence.promptCounted);
      if (sequence.draft.length === 0) continue;
      this.#drafts++;
      this.#draftTokens += sequence.draft.length;
    }
  }

  /** A sequence ran for the first time: so many of its tokens were looked up, and found. */
  lookup(queried: number, found: number): void {
    this.#prefixQueries += queried;
    this.#prefixHits += found;
  }

  /** A guess came true. @param at its place among the sequence's guesses, from 0 */
  accepted(at: number): void {
    while (this.#accepted.length <= at) this.#accepted.push(0);
    this.#accepted[at] = (this.#accepted[at] as number) + 1;
  }

  static cells(sequences: readonly Sequence[]): number {
    return sequences.reduce((sum, { computed }) => sum + computed, 0);
  }
}
