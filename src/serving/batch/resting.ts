/**
 * Batches that have no place for a while: interrupted ones until they are tried again, and those that left theirs until
 * the limit that they wait for begins anew. In memory: after a start all are tried. Private to runner.ts.
 */
import type { Batch } from "#core/batches.ts";

/** After an interruption: doubled each time, up to the second. */
const PAUSES_MS = [1000, 60_000] as const;

interface Rest {
  /** Unix milliseconds. */
  readonly until: number;
  /** It was interrupted, and how long it rests for that; absent: it only waits. */
  readonly pause?: number;
}

export class Resting {
  readonly #rests = new Map<string, Rest>();

  /** Not at once, as whatever it is may last. */
  interrupted({ id }: Batch, now: number): void {
    const [first, longest] = PAUSES_MS;
    const pause = Math.min(2 * (this.#rests.get(id)?.pause ?? first / 2), longest);
    this.#rests.set(id, { pause, until: now + pause });
  }

  waits({ id }: Batch, until: number): void {
    this.#rests.set(id, { until });
  }

  forget({ id }: Batch): void {
    this.#rests.delete(id);
  }

  /** @param ends it is cancelled or over its time: what only waits does not wait for that */
  has({ id }: Batch, ends: boolean, now: number): boolean {
    const rest = this.#rests.get(id);
    return rest !== undefined && rest.until > now && (rest.pause !== undefined || !ends);
  }

  /** Since when it has wanted a place. */
  since({ id, createdAt }: Batch): number {
    return this.#rests.get(id)?.until ?? createdAt;
  }
}
