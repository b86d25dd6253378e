/**
 * Decides how many tokens each sequence gets in this step. That one map is all there is: prefill, decode, chunking,
 * admission and prefix hits are read off it; where a sequence sits is placement.ts's.
 *
 * Rules, in order:
 *  1. every decoding sequence gets its one token, so that no prompt ever makes a running answer wait;
 *  2. running prompts get what is left, in chunks, smaller ones while somebody decodes: by priority where that is the policy, then fairly between shares,
 *     then first come first served;
 *  3. waiting sequences are admitted in that order while there is a slot and budget left; one whose prompt starts like
 *     a running prompt waits until it can take that over;
 *     where as many adapters run as may, the next one waits, and those behind it with an adapter too;
 *  4. a paused sequence (slow reader) gets nothing and keeps its slot;
 *  5. what is left of the budget goes into the guesses of decoding sequences.
 *
 * Invariants (checkIntegrity): the queue's; the plan never exceeds the budget. Rule 1 always fits, because there
 * are no more slots than tokens in the budget. Called by engine.ts only.
 */
import { FairQueue } from "./fair-queue.ts";
import { NO_ADAPTER } from "./kernel.ts";
import type { Placement } from "./placement.ts";
import { bodyOf } from "./prefill.ts";
import type { Sequence } from "./sequence.ts";

/** fcfs: order of arrival. priority: lower first, then order of arrival. As vLLM's --scheduling-policy. */
export type SchedulingPolicy = "fcfs" | "priority";

export interface SchedulerLimits {
  /** Sequences that run at once, ≥ 1 and ≤ maxBatchTokens. */
  readonly maxSequences: number;
  /** Token budget of a step. */
  readonly maxBatchTokens: number;
  /** Prompt tokens in a step in which somebody decodes: what they wait for at most. */
  readonly maxPromptTokens: number;
  /** Rows of prompt logprobs in one step: each costs a pass over the vocabulary. */
  readonly maxPromptRows: number;
  readonly policy: SchedulingPolicy;
  /** Adapters that compute in one step, ≥ 1: each takes a forward of its own. */
  readonly maxAdapters: number;
  /** As KernelLimits.prefillBlock; maxBatchTokens leaves room for one beside a token a sequence. */
  readonly prefillBlock: number;
}

/** Tokens per sequence in this step, each ≥ 1. */
export type Plan = ReadonlyMap<Sequence, number>;

/** Waiting sequences that may be passed over in one step because they wait for another's prompt. */
const MAX_PASSED_OVER = 64;

export class Scheduler {
  readonly #limits: SchedulerLimits;
  readonly #placement: Placement;
  readonly #waiting: FairQueue;

  constructor(limits: SchedulerLimits, placement: Placement) {
    if (limits.maxSequences < 1 || limits.maxSequences > limits.maxBatchTokens) {
      throw new RangeError(`maxSequences ${limits.maxSequences} does not lie in 1 … ${limits.maxBatchTokens}`);
    }
    this.#limits = limits;
    this.#placement = placement;
    this.#waiting = new FairQueue((a, b) => (limits.policy === "priority" ? a.priority - b.priority : 0));
  }

  get waitingCount(): number {
    return this.#waiting.count;
  }

  /** Queues a new sequence, or one that lost its slot, at its place. */
  enqueue(sequence: Sequence): void {
    sequence.state = "waiting";
    this.#waiting.add(sequence, this.#placement.running);
  }

  /** Forgets a waiting sequence. */
  dequeue(sequence: Sequence): void {
    this.#waiting.remove(sequence);
  }

  /** The running sequence that gives way when the kernel is full: the one that would be served last. */
  victim(): Sequence | undefined {
    let last: Sequence | undefined;
    for (const sequence of this.#placement.running) {
      if (last === undefined || this.#waiting.compare(last, sequence) < 0) last = sequence;
    }
    return last;
  }

  schedule(): Plan {
    const plan = new Map<Sequence, number>();
    const { maxBatchTokens, maxPromptTokens, maxPromptRows } = this.#limits;
    const budget = { tokens: maxBatchTokens, prompt: maxBatchTokens, rows: maxPromptRows };
    const prefills: Sequence[] = [];
    for (const sequence of this.#placement.running) {
      if (sequence.paused) continue;
      if (!sequence.decoding) prefills.push(sequence);
      else {
        plan.set(sequence, 1);
        budget.tokens--;
        this.#waiting.charge(sequence, 1);
      }
    }
    if (plan.size > 0) budget.prompt = maxPromptTokens;
    prefills.sort((a, b) => this.#waiting.compare(a, b));
    for (const sequence of prefills) this.#grant(sequence, plan, budget);
    this.#admit(plan, budget);
    this.#grantGuesses(plan, budget);
    return plan;
  }

  /** What nobody else can use goes into guesses; without it a sequence has none in this step. */
  #grantGuesses(plan: Map<Sequence, number>, budget: Budget): void {
    for (const sequence of this.#placement.running) {
      const guesses = Math.min(sequence.draft.length, budget.tokens);
      sequence.draft.length = plan.has(sequence) ? guesses : 0;
      if (sequence.draft.length === 0) continue;
      plan.set(sequence, 1 + guesses);
      budget.tokens -= guesses;
    }
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    this.#waiting.checkIntegrity();
    const running = new Set<Sequence>(this.#placement.running);
    for (const sequence of this.#waiting) if (running.has(sequence)) throw new Error("a sequence both waits and runs");
  }

  #admit(plan: Map<Sequence, number>, budget: Budget): void {
    const skipped = new Set<Sequence>();
    const adapters = new Adapters(this.#placement.running, this.#limits.maxAdapters);
    let passedOver = 0;
    while (Math.min(budget.tokens, budget.prompt) > 0 && passedOver < MAX_PASSED_OVER && this.#hasRoom()) {
      const sequence = this.#waiting.next(skipped);
      if (sequence === undefined) return;
      const waits = !sequence.paused && (!adapters.take(sequence.adapter) || this.#placement.shouldWait(sequence));
      if (sequence.paused || waits) {
        if (waits) passedOver++;
        skipped.add(sequence);
        continue;
      }
      this.#waiting.remove(sequence);
      this.#placement.seat(sequence);
      this.#grant(sequence, plan, budget);
    }
  }

  #hasRoom(): boolean {
    return this.#placement.hasRoom && this.#placement.runningCount < this.#limits.maxSequences;
  }

  #grant(sequence: Sequence, plan: Map<Sequence, number>, budget: Budget): void {
    const most = Math.min(budget.tokens, budget.prompt);
    const logprobs = sequence.promptRowsLeft > 0;
    const tokens = this.#inBlocks(sequence, logprobs ? Math.min(most, budget.rows) : most);
    if (tokens <= 0) return;
    if (logprobs) budget.rows -= tokens;
    plan.set(sequence, tokens);
    budget.tokens -= tokens;
    budget.prompt -= tokens;
    this.#waiting.charge(sequence, tokens);
  }

  /**
   * Of what is pending, `most` tokens at most. Of the body (prefill.ts) a block or more, so that a block or more is left
   * if possible; where less is left, it is computed with tokens before it, which are taken back.
   */
  #inBlocks(sequence: Sequence, most: number): number {
    const { prefillBlock } = this.#limits;
    const body = bodyOf(sequence.prompt.length, prefillBlock);
    if (sequence.computed >= body) return Math.min(most, sequence.pending);
    if (most < prefillBlock) return 0;
    if (body - sequence.computed < prefillBlock) this.#placement.cut(sequence, body - prefillBlock);
    const left = body - sequence.computed;
    if (most >= left) return Math.min(most, sequence.pending);
    const piece = Math.min(most, left - prefillBlock);
    return piece < prefillBlock ? prefillBlock : piece - (piece % prefillBlock);
  }
}

/** The adapters of a step. */
class Adapters {
  readonly #running: Set<number>;
  readonly #most: number;
  /** One waits for another to end: nobody with an adapter goes before it, or it would wait for ever. */
  #closed = false;

  constructor(running: readonly Sequence[], most: number) {
    this.#running = new Set(running.map(({ adapter }) => adapter));
    this.#running.delete(NO_ADAPTER);
    this.#most = most;
  }

  /** Whether a sequence with this adapter may run now. */
  take(adapter: number): boolean {
    if (adapter === NO_ADAPTER) return true;
    if (!this.#running.has(adapter) && this.#running.size >= this.#most) this.#closed = true;
    if (!this.#closed) this.#running.add(adapter);
    return !this.#closed;
  }
}

interface Budget {
  tokens: number;
  /** For prompts, of those. */
  prompt: number;
  rows: number;
}
