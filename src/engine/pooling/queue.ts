/**
 * Who is next: the sequences of all open pooling requests, packed into batches: by priority, then fairly between shares
 * (tenants, to the engine only a key and a weight), then in order of arrival.
 *
 * Fair as fair-queue.ts is: a share's time grows with the tokens that were taken of it, divided by its weight; the one
 * that is furthest behind goes next; who comes back from idleness starts no earlier than those that wait. With a single
 * share this is first come first served. Invariants: a request stands here until its last sequence is taken or it is
 * dropped; the share that is furthest behind is in every batch, so nobody starves (Wall: T82). Called by
 * pooling/engine.ts only.
 */
import type { FairShare } from "#core/generate.ts";
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
  /** Tokens taken, by weight; of shares that wait, and of others as long as they have a debt. */
  readonly #times = new Map<string, number>();

  constructor(byPriority: boolean) {
    this.#byPriority = byPriority;
  }

  add(submission: PoolSubmission, arrived: number): void {
    this.#arrive(shareOf(submission).key);
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
      if (!this.#times.has(shareOf(submission).key)) throw new Error("a request waits whose share has no time");
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
    const first = this.#best(this.#heads());
    const output = first === undefined ? "sequence" : outputOf(first.line[0].submission);
    const heads = this.#heads(output);
    const entries: Entry[] = [];
    let room = limits.maxBatchTokens;
    for (let head = this.#best(heads); head !== undefined; head = this.#best(heads)) {
      const [of] = head.line;
      const index = head.index;
      const tokens = of.submission.inputs[index] as Int32Array;
      if (tokens.length > room || entries.length === limits.maxSequences) break;
      room -= tokens.length;
      entries.push({ of, index, tokens });
      head.time += tokens.length / shareOf(of.submission).weight;
      if (!advance(head)) heads.splice(heads.indexOf(head), 1);
    }
    return { output, entries };
  }

  /** Takes out what peek gave. */
  take({ entries }: PoolBatch): void {
    for (const { of, tokens } of entries) {
      const { key, weight } = shareOf(of.submission);
      of.taken++;
      this.#times.set(key, (this.#times.get(key) ?? 0) + tokens.length / weight);
    }
    const done = new Set(entries.map(({ of }) => of).filter((of) => of.taken === of.submission.inputs.length));
    for (const { submission } of done) this.drop(submission.request);
  }

  /** Of each share its requests, those of one kind of output if that is said. */
  #heads(output?: PoolingOutput): Head[] {
    const heads = new Map<string, Head>();
    this.#line.forEach((of, order) => {
      if (output !== undefined && outputOf(of.submission) !== output) return;
      const { key } = shareOf(of.submission);
      const head = heads.get(key);
      if (head !== undefined) head.line.push(of);
      else heads.set(key, { line: [of], index: of.taken, order, time: this.#times.get(key) ?? 0 });
    });
    return [...heads.values()];
  }

  #best(heads: readonly Head[]): Head | undefined {
    return heads.reduce<Head | undefined>(
      (best, head) => (best === undefined || this.#compare(head, best) < 0 ? head : best),
      undefined,
    );
  }

  #compare(a: Head, b: Head): number {
    const ranked = this.#byPriority ? a.line[0].submission.priority - b.line[0].submission.priority : 0;
    return ranked || a.time - b.time || a.order - b.order;
  }

  /** A share that did not wait: it starts where those are that do, and not before where it left off. */
  #arrive(key: string): void {
    const waiting = new Set(this.#line.map(({ submission }) => shareOf(submission).key));
    if (waiting.has(key)) return;
    const now = Math.min(...[...waiting].map((other) => this.#times.get(other) ?? 0));
    for (const [other, time] of this.#times) if (!waiting.has(other) && time <= now) this.#times.delete(other);
    const own = this.#times.get(key) ?? 0;
    this.#times.set(key, Number.isFinite(now) ? Math.max(own, now) : own);
  }
}

/** One share's way through a batch that is being packed. */
interface Head {
  /** Its requests from the current one on. */
  readonly line: [Waiting, ...Waiting[]];
  /** The current one's next input. */
  index: number;
  /** Place of its first request in the line. */
  readonly order: number;
  time: number;
}

/** @returns whether the share has something left */
function advance(head: Head): boolean {
  head.index++;
  if (head.index < head.line[0].submission.inputs.length) return true;
  head.line.shift();
  const [next] = head.line as Waiting[];
  head.index = next?.taken ?? 0;
  return next !== undefined;
}

function shareOf({ share }: PoolSubmission): FairShare {
  return share ?? NO_SHARE;
}

/** Of those that name none. */
const NO_SHARE: FairShare = { key: "", weight: 1 };
