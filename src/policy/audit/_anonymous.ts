/**
 * Calls of nobody: a flood of them shall neither fill the disk nor cost a write each.
 *
 * The first hundred, and one a second from then on, get records of their own, like any call. What is beyond is counted,
 * and the counts become one record every ten seconds at most; what was counted in the last of them is lost with the
 * process. Invariant: memory is bounded whoever calls. Callers: gate.ts.
 */
import type { PolicyCall } from "#policy/gate.ts";

const BURST = 100;
const PER_SECOND = 1;
const FLUSH_MS = 10_000;
const ADDRESSES = 16;

export interface Counted {
  readonly count: number;
  readonly from: string;
  readonly until: string;
  /** Fault kind, or "none" → calls. */
  readonly faults: Readonly<Record<string, number>>;
  /** Of the first addresses that were seen. */
  readonly peers: Readonly<Record<string, number>>;
  readonly otherPeers: number;
}

export class AnonymousCalls {
  readonly #flush: (counted: Counted) => void;
  readonly #now: () => number;
  #tokens = BURST;
  #filledAt: number;
  #count = 0;
  #from = 0;
  #until = 0;
  #faults = new Map<string, number>();
  #peers = new Map<string, number>();
  #otherPeers = 0;
  readonly #timer: NodeJS.Timeout;

  constructor(flush: (counted: Counted) => void, now: () => number = Date.now) {
    this.#flush = flush;
    this.#now = now;
    this.#filledAt = now();
    this.#timer = setInterval(() => this.flush(), FLUSH_MS).unref();
  }

  /** @returns whether the call gets a record of its own; else it is counted */
  admits(call: PolicyCall, fault: string | undefined): boolean {
    const now = this.#now();
    const earned = (Math.max(0, now - this.#filledAt) / 1000) * PER_SECOND;
    this.#tokens = Math.min(BURST, this.#tokens + earned);
    this.#filledAt = now;
    if (this.#tokens >= 1) {
      this.#tokens--;
      return true;
    }
    this.#add(call, fault ?? "none", now);
    return false;
  }

  flush(): void {
    if (this.#count === 0) return;
    const counted: Counted = {
      count: this.#count,
      from: new Date(this.#from).toISOString(),
      until: new Date(this.#until).toISOString(),
      faults: Object.fromEntries(this.#faults),
      peers: Object.fromEntries(this.#peers),
      otherPeers: this.#otherPeers,
    };
    this.#count = 0;
    this.#faults = new Map();
    this.#peers = new Map();
    this.#otherPeers = 0;
    this.#flush(counted);
  }

  close(): void {
    clearInterval(this.#timer);
    this.flush();
  }

  #add({ peer }: PolicyCall, fault: string, now: number): void {
    if (this.#count === 0) this.#from = now;
    this.#count++;
    this.#until = now;
    this.#faults.set(fault, (this.#faults.get(fault) ?? 0) + 1);
    const address = peer.address ?? "unix";
    if (this.#peers.has(address) || this.#peers.size < ADDRESSES)
      this.#peers.set(address, (this.#peers.get(address) ?? 0) + 1);
    else this.#otherPeers++;
  }
}
