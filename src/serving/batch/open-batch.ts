/**
 * A batch that is being worked on: what stops it, what has it leave its place to another, and whether all that it does is
 * to wait for a limit or for a server that is full. Private to runner.ts.
 */
import { setTimeout as wait } from "node:timers/promises";
import type { Batch } from "#core/batches.ts";
import type { Place } from "./places.ts";
import type { Tries, Turns } from "./turns.ts";

export interface OpenParts {
  readonly turns: Turns;
  /** Unix milliseconds. */
  readonly now: () => number;
}

export class OpenBatch implements Place {
  readonly batch: Batch;
  /** Aborted with a Stop. */
  readonly stop = new AbortController();
  readonly #parts: OpenParts;
  readonly #rest = new AbortController();
  /** Lines that are begun and not answered. */
  #lines = 0;
  /** Those of them that wait for their next try: when that is, Unix milliseconds. */
  readonly #waits = new Set<{ readonly until: number }>();
  /** When a line began to wait for its next try, with no answer to any since. */
  #since: number | undefined;
  #goesOnAt: number | undefined;
  #unwritten = 0;

  constructor(batch: Batch, parts: OpenParts) {
    this.batch = batch;
    this.#parts = parts;
  }

  get tenant(): string {
    return this.batch.tenant;
  }

  get createdAt(): number {
    return this.batch.createdAt;
  }

  get waitsSince(): number | undefined {
    return this.#lines > 0 && this.#waits.size === this.#lines ? this.#since : undefined;
  }

  get unwritten(): number {
    return this.#unwritten;
  }

  get leaves(): boolean {
    return this.#rest.signal.aborted;
  }

  /** It begins no line any more and ends those that wait; what is on its way is answered first. */
  leave(): void {
    if (this.waitsSince !== undefined) this.#goesOnAt = Math.min(...[...this.#waits].map(({ until }) => until));
    this.#rest.abort();
  }

  /** Aborted: it leaves. */
  get rest(): AbortSignal {
    return this.#rest.signal;
  }

  /** Where it left because it waited: when its next try would have been, Unix milliseconds. */
  get goesOnAt(): number | undefined {
    return this.#goesOnAt;
  }

  /** A line, from its first try to its answer. @param leaving ends what waits @throws its reason, or what `work` throws */
  async answer<T>(work: (tries: Tries) => Promise<T>, leaving: AbortSignal): Promise<T> {
    this.#lines++;
    try {
      const answer = await work({
        once: (one) => this.#parts.turns.take(this.tenant, one, leaving),
        wait: (ms) => this.#wait(ms, leaving),
      });
      this.#since = undefined;
      this.#unwritten++;
      return answer;
    } finally {
      this.#lines--;
    }
  }

  /** An answer has its row. */
  written(): void {
    this.#unwritten--;
  }

  async #wait(ms: number, signal: AbortSignal): Promise<void> {
    const now = this.#parts.now();
    const own = { until: now + ms };
    this.#since ??= now;
    this.#waits.add(own);
    try {
      await wait(ms, undefined, { signal });
    } finally {
      this.#waits.delete(own);
    }
  }
}
