/**
 * Operators' work on the engines, one after another, in the order in which it was asked for.
 *
 * Invariants: work begins when all that was asked for before it is over or is something that it may overtake; work whose
 * caller has stopped waiting keeps its place until it is really over; there is a bound on how much is in line. Used by
 * operations.ts and weights.ts, which share one.
 */
import { Fault } from "#core/fault.ts";
import { within } from "./_within.ts";

/** work → what it may overtake. A resume calls off a pause that waits, and must not wait for it. */
const OVERTAKES = {
  pause: ["scale"],
  resume: ["pause", "sleep", "scale"],
  sleep: [],
  wake: ["pause", "sleep"],
  scale: [],
  reset: ["pause", "scale"],
  weights: [],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export type Work = keyof typeof OVERTAKES;

export interface LineOptions {
  /** Until work begins. */
  readonly turnMs?: number;
  /** Until it is over. */
  readonly workMs?: number;
}

const DEFAULT_TURN_MS = 30_000;
const DEFAULT_WORK_MS = 240_000;
const MOST = 16;

interface Place {
  readonly work: Work;
  begin: (() => void) | undefined;
}

export class OperationLine {
  readonly #turnMs: number;
  readonly #workMs: number;
  readonly #places: Place[] = [];

  constructor({ turnMs = DEFAULT_TURN_MS, workMs = DEFAULT_WORK_MS }: LineOptions = {}) {
    this.#turnMs = turnMs;
    this.#workMs = workMs;
  }

  /** Whether such work is being done. */
  doing(work: Work): boolean {
    return this.#places.some((place) => place.work === work && place.begin === undefined);
  }

  /**
   * @param late what is true while the work is not over in time; printed to the caller
   * @param workMs until it is over, where that is not as usual
   * @throws Fault overloaded: its turn did not come | request_timeout: it goes on | what the work throws
   */
  async run<T>(work: Work, late: string, what: () => Promise<T>, workMs = this.#workMs): Promise<T> {
    const place = await this.#turn(work);
    const done = what().finally(() => this.#leave(place));
    done.catch(() => {});
    return within(done, workMs, () => new Fault("request_timeout", late));
  }

  async #turn(work: Work): Promise<Place> {
    if (this.#places.length >= MOST) throw this.#busy(work);
    const place: Place = { work, begin: undefined };
    this.#places.push(place);
    if (this.#mayBegin(place)) return place;
    const turn = Promise.withResolvers<void>();
    place.begin = turn.resolve;
    await within(turn.promise, this.#turnMs, () => this.#busy(work, place)).catch((error: unknown) => {
      this.#leave(place);
      throw error;
    });
    return place;
  }

  #mayBegin(place: Place): boolean {
    return this.#before(place).length === 0;
  }

  /** What it has to wait for. */
  #before(place: Place): readonly Place[] {
    const overtakes: readonly Work[] = OVERTAKES[place.work];
    return this.#places.slice(0, this.#places.indexOf(place)).filter(({ work }) => !overtakes.includes(work));
  }

  #leave(place: Place): void {
    const at = this.#places.indexOf(place);
    if (at >= 0) this.#places.splice(at, 1);
    for (const next of this.#places) {
      if (next.begin === undefined || !this.#mayBegin(next)) continue;
      next.begin();
      next.begin = undefined;
    }
  }

  #busy(work: Work, place?: Place): Fault {
    const first = (place === undefined ? this.#places : this.#before(place))[0]?.work ?? "other work";
    return new Fault("overloaded", `Nothing was done (${work}): ${first} is under way. Try again later.`, {
      retryAfterMs: 5000,
    });
  }
}
