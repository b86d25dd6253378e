/**
 * Decides how many tokens each sequence gets in this step. That one map is all there is: prefill, decode, chunking
 * and admission are read off it; prefix hits, preemption and adapters will be too.
 *
 * Rules, in order:
 *  1. every decoding sequence gets its one token, so that no prompt ever makes a running answer wait;
 *  2. running prompts get what is left, first come first served (or by priority), in chunks;
 *  3. waiting sequences are admitted to the lowest free slot while there is a slot and budget left;
 *  4. a paused sequence (slow reader) gets nothing and keeps its slot.
 * The kernel is fastest with dense ascending slots, hence the lowest free slot first.
 *
 * Invariants (checkIntegrity): a slot belongs to at most one sequence; waiting is sorted; the plan never exceeds the
 * budget. Rule 1 always fits, because there are no more slots than tokens in the budget. Called by engine.ts only.
 */
import type { Sequence } from "./sequence.ts";

/** fcfs: order of arrival. priority: lower first, then order of arrival. As vLLM's --scheduling-policy. */
export type SchedulingPolicy = "fcfs" | "priority";

export interface SchedulerLimits {
  /** Slots, ≥ 1 and ≤ maxBatchTokens. */
  readonly maxSequences: number;
  /** Token budget of a step. */
  readonly maxBatchTokens: number;
  /** Rows of prompt logprobs in one step: each costs a pass over the vocabulary. */
  readonly maxPromptRows: number;
  readonly policy: SchedulingPolicy;
}

/** Tokens per sequence in this step, each ≥ 1. */
export type Plan = ReadonlyMap<Sequence, number>;

export class Scheduler {
  readonly #limits: SchedulerLimits;
  readonly #slots: (Sequence | undefined)[];
  readonly #waiting: Sequence[] = [];

  constructor(limits: SchedulerLimits) {
    if (limits.maxSequences < 1 || limits.maxSequences > limits.maxBatchTokens) {
      throw new RangeError(`maxSequences ${limits.maxSequences} does not lie in 1 … ${limits.maxBatchTokens}`);
    }
    this.#limits = limits;
    this.#slots = new Array<Sequence | undefined>(limits.maxSequences).fill(undefined);
  }

  /** Running sequences, by slot. */
  get running(): Sequence[] {
    return this.#slots.filter((sequence) => sequence !== undefined);
  }

  get runningCount(): number {
    let count = 0;
    for (const sequence of this.#slots) if (sequence !== undefined) count++;
    return count;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** Queues a new sequence, or one that lost its slot, at its place. */
  enqueue(sequence: Sequence): void {
    sequence.state = "waiting";
    let low = 0;
    let high = this.#waiting.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(this.#waiting[middle] as Sequence, sequence) < 0) low = middle + 1;
      else high = middle;
    }
    this.#waiting.splice(low, 0, sequence);
  }

  /** Takes a running sequence off its slot; returns the slot, which the caller clears in the kernel. */
  release(sequence: Sequence): number {
    const { slot } = sequence;
    this.#slots[slot] = undefined;
    sequence.slot = -1;
    sequence.computed = 0;
    return slot;
  }

  /** Forgets a waiting sequence. */
  dequeue(sequence: Sequence): void {
    const at = this.#waiting.indexOf(sequence);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  /** The running sequence that gives way when the kernel is full: the one that would be served last. */
  victim(): Sequence | undefined {
    let last: Sequence | undefined;
    for (const sequence of this.running) {
      if (last === undefined || this.#compare(last, sequence) < 0) last = sequence;
    }
    return last;
  }

  schedule(): Plan {
    const plan = new Map<Sequence, number>();
    const budget = { tokens: this.#limits.maxBatchTokens, rows: this.#limits.maxPromptRows };
    const prefills: Sequence[] = [];
    for (const sequence of this.#slots) {
      if (sequence === undefined || sequence.paused) continue;
      if (!sequence.decoding) prefills.push(sequence);
      else {
        plan.set(sequence, 1);
        budget.tokens--;
      }
    }
    prefills.sort((a, b) => this.#compare(a, b));
    for (const sequence of prefills) this.#grant(sequence, plan, budget);
    this.#admit(plan, budget);
    return plan;
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    const seen = new Set<Sequence>();
    this.#slots.forEach((sequence, slot) => {
      if (sequence === undefined) return;
      if (sequence.slot !== slot || sequence.state !== "running")
        throw new Error(`slot ${slot} and its sequence differ`);
      if (sequence.computed >= sequence.length) throw new Error(`slot ${slot} has nothing left to compute`);
      seen.add(sequence);
    });
    this.#waiting.forEach((sequence, at) => {
      const before = this.#waiting[at - 1];
      if (sequence.state !== "waiting" || sequence.slot !== -1) throw new Error("a waiting sequence has a slot");
      if (before !== undefined && this.#compare(before, sequence) >= 0) throw new Error("waiting is not sorted");
      if (seen.has(sequence)) throw new Error("a sequence both waits and runs");
    });
  }

  #admit(plan: Map<Sequence, number>, budget: Budget): void {
    let at = 0;
    let slot = this.#slots.indexOf(undefined);
    while (slot >= 0 && budget.tokens > 0 && at < this.#waiting.length) {
      const sequence = this.#waiting[at] as Sequence;
      if (sequence.paused) {
        at++;
        continue;
      }
      this.#waiting.splice(at, 1);
      this.#slots[slot] = sequence;
      sequence.slot = slot;
      sequence.state = "running";
      this.#grant(sequence, plan, budget);
      slot = this.#slots.indexOf(undefined, slot + 1);
    }
  }

  #grant(sequence: Sequence, plan: Map<Sequence, number>, budget: Budget): void {
    let tokens = Math.min(sequence.pending, budget.tokens);
    if (sequence.promptRowsLeft > 0) {
      tokens = Math.min(tokens, budget.rows);
      budget.rows -= tokens;
    }
    if (tokens <= 0) return;
    plan.set(sequence, tokens);
    budget.tokens -= tokens;
  }

  #compare(a: Sequence, b: Sequence): number {
    if (this.#limits.policy === "priority" && a.priority !== b.priority) return a.priority - b.priority;
    return a.order - b.order;
  }
}

interface Budget {
  tokens: number;
  rows: number;
}
