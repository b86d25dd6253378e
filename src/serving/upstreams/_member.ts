/**
 * One upstream as the balancer sees it: numbers only, no sockets. Callers: balancer.ts.
 */

export interface EjectionOptions {
  /** Failures one after the other that put an upstream out. */
  readonly consecutiveFailures: number;
  /** 0…1: or so many of the requests of a window, when there were at least `failureLeast`. */
  readonly failureShare: number;
  readonly failureLeast: number;
  /** The first time; each time after it is out twice as long, up to `ejectMostMs`. */
  readonly ejectMs: number;
  readonly ejectMostMs: number;
  /** 0…1: of the pool that may be out at once. A pool of one is never emptied by it. */
  readonly ejectShare: number;
}

/** `ok`: it did its work; `failed`: it, or the way to it, did not; `neutral`: says nothing about it. */
export type Verdict = "ok" | "failed" | "neutral";

const WINDOW_MS = 30_000;
/** An upstream that has held out for so many ejections' time is as good as new. */
const FORGIVEN_AFTER = 10;
/** Of its weight at the beginning of a slow start. */
const LEAST_RAMP = 0.1;
const SMOOTHING = 0.2;

export class Member {
  readonly id: number;
  weight: number;
  inFlight = 0;
  outstanding = 0;
  /** Seconds to the first byte, smoothed; undefined before the first. */
  firstByte: number | undefined;
  /** Signs of life: heads of answers, and answers. */
  answered = 0;
  healthy = true;
  asleep = false;
  leaving = false;
  adapters: ReadonlySet<string> = new Set();
  /** Grows with each that is loaded or unloaded from here. */
  adapterChanges = 0;
  ejectedUntil = Number.NEGATIVE_INFINITY;
  ejections = 0;
  /** Where it stands in the order of those that have nothing to do. */
  finish = 0;
  #consecutive = 0;
  #windowFrom = Number.NEGATIVE_INFINITY;
  #seen = 0;
  #failed = 0;
  #slowFrom: number;

  constructor(id: number, weight: number, slowFrom: number) {
    this.id = id;
    this.weight = weight;
    this.#slowFrom = slowFrom;
  }

  get consecutiveFailures(): number {
    return this.#consecutive;
  }

  ejected(now: number): boolean {
    return now < this.ejectedUntil;
  }

  /** Whether it may be given work, but for how much it has already. */
  open(now: number): boolean {
    return this.healthy && !this.asleep && !this.leaving && !this.ejected(now);
  }

  back(now: number): void {
    this.#slowFrom = now;
  }

  /** Its weight, smaller while it is new or has just come back. */
  share(now: number, slowStartMs: number): number {
    const since = Math.max(this.#slowFrom, this.ejectedUntil);
    const ramp = slowStartMs === 0 ? 1 : (now - since) / slowStartMs;
    return this.weight * Math.min(1, Math.max(LEAST_RAMP, ramp));
  }

  sawFirstByte(seconds: number): void {
    this.answered++;
    this.firstByte = this.firstByte === undefined ? seconds : this.firstByte + SMOOTHING * (seconds - this.firstByte);
  }

  /** @returns whether it has failed so much that it should be put out */
  saw(verdict: Exclude<Verdict, "neutral">, now: number, options: EjectionOptions): boolean {
    if (now - this.#windowFrom > WINDOW_MS) [this.#windowFrom, this.#seen, this.#failed] = [now, 0, 0];
    this.#seen++;
    if (verdict === "ok") {
      this.answered++;
      this.#consecutive = 0;
      if (now - this.ejectedUntil > FORGIVEN_AFTER * options.ejectMs) this.ejections = 0;
      return false;
    }
    this.#consecutive++;
    this.#failed++;
    const often = this.#seen >= options.failureLeast && this.#failed / this.#seen >= options.failureShare;
    return often || this.#consecutive >= options.consecutiveFailures;
  }

  eject(now: number, { ejectMs, ejectMostMs }: EjectionOptions): void {
    this.ejectedUntil = now + Math.min(ejectMostMs, ejectMs * 2 ** Math.min(this.ejections, 30));
    this.ejections++;
    this.#consecutive = 0;
    this.#windowFrom = Number.NEGATIVE_INFINITY;
  }
}
