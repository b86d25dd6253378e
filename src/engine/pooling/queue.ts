/**
 * Who is next: the sequences of all open pooling requests, in order of priority and arrival, packed into batches.
 *
 * Invariants: a request stands here until its last sequence is taken or it is dropped; the first in line is in every
 * batch, so nobody starves. Called by pooling/engine.ts only.
 */
import type { PoolingLimits, PoolingOutput } from "./kernel.ts";
import type { PoolSubmission } from "./submission.ts";

export interface Waiting {
  readonly submission: PoolSubmission;
  /** Seconds. */
  readonly arrived: number;
  /** Inputs that were taken. */
  taken: number;
}

export interface Entry {
  readonly of: Waiting;
  readonly index: number;
  readonly tokens: Int32Array;
}

export interface PoolBatch {
  readonly output: PoolingOutput;
  readonly entries: readonly Entry[];
}

export function outputOf({ task }: Pick<PoolSubmission, "task">): PoolingOutput {
  return task === "token_embed" ? "tokens" : "sequence";
}

export class PoolQueue {
  readonly #byPriority: boolean;
  readonly #line: Waiting[] = [];

  constructor(byPriority: boolean) {
    this.#byPriority = byPriority;
  }

  add(submission: PoolSubmission, arrived: number): void {
    let at = this.#line.length;
    const later = (other: Waiting | undefined) =>
      other !== undefined && other.submission.priority > submission.priority;
    if (this.#byPriority) while (at > 0 && later(this.#line[at - 1])) at--;
    this.#line.splice(at, 0, { submission, arrived, taken: 0 });
  }

  drop(request: number): void {
    const at = this.#line.findIndex(({ submission }) => submission.request === request);
    if (at >= 0) this.#line.splice(at, 1);
  }

  /** Requests that wait, in their order. @throws Error naming the invariant that does not hold */
  checkIntegrity(): readonly number[] {
    this.#line.forEach(({ submission, taken }, at) => {
      const before = this.#line[at - 1];
      if (taken >= submission.inputs.length) throw new Error("a request waits with nothing left to take");
      if (this.#byPriority && before !== undefined && before.submission.priority > submission.priority)
        throw new Error("the line is not in order of priority");
    });
    return this.#line.map(({ submission }) => submission.request);
  }

  /** Sequences that wait. */
  get length(): number {
    return this.#line.reduce((sum, { submission, taken }) => sum + submission.inputs.length - taken, 0);
  }

  /**
   * What the next batch would hold; empty when nobody waits. One batch has one kind of output: the first one's, and
   * who wants the other kind is passed over.
   */
  peek(limits: Pick<PoolingLimits, "maxSequences" | "maxBatchTokens">): PoolBatch {
    const output = this.#line[0] === undefined ? "sequence" : outputOf(this.#line[0].submission);
    const entries: Entry[] = [];
    let room = limits.maxBatchTokens;
    for (const of of this.#line) {
      const { inputs } = of.submission;
      if (outputOf(of.submission) !== output) continue;
      for (let index = of.taken; index < inputs.length; index++) {
        const tokens = inputs[index] as Int32Array;
        if (tokens.length > room || entries.length === limits.maxSequences) return { output, entries };
        room -= tokens.length;
        entries.push({ of, index, tokens });
      }
    }
    return { output, entries };
  }

  /** Takes out what peek gave. */
  take({ entries }: PoolBatch): void {
    for (const { of } of entries) of.taken++;
    const done = new Set(entries.map(({ of }) => of).filter((of) => of.taken === of.submission.inputs.length));
    for (const { submission } of done) this.drop(submission.request);
  }
}
