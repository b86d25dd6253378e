/**
 * One request to an upstream and the answer as it comes: the head as a promise, the body pushed to whoever relays it.
 *
 * Invariants: exactly one outcome, told once to `ended`, whoever ends it; after a cancel the connection is destroyed and
 * nothing more is pushed; a target that said "no more" gets nothing until it resumes, and at most about HELD_BYTES (and
 * what one read brought) wait for it; of a body that breaks off every byte that arrived is pushed before the failure.
 * Its limits of time stand behind one timer, that looks when it is due whether something came meanwhile: an event starts
 * and stops none. Callers: client.ts.
 */
import { Fault } from "#core/fault.ts";
import type { RelaySource, RelayTarget, UpstreamAnswer } from "#core/relay.ts";
import type { AnswerSink } from "./_answer.ts";
import type { AnswerHeaders } from "./_head.ts";
import { UpstreamFault, type UpstreamReason, upstreamFault } from "./fault.ts";
import { type JudgedHead, judgedHead } from "./heads.ts";

/** Milliseconds; 0: no limit. */
export interface UpstreamTimeouts {
  /** From the call to the head of the answer, connecting and waiting for a connection included. */
  readonly firstByteMs: number;
  /** Between two pieces of the body. */
  readonly idleMs: number;
  readonly totalMs: number;
}

/** `whole`: all of the answer arrived; `failed`: not all of it, or none; `cancelled`: by this side. */
export type UpstreamOutcome = "whole" | "failed" | "cancelled";

export interface SendOptions {
  readonly signal?: AbortSignal;
  readonly timeouts: UpstreamTimeouts;
  /** Bytes of the body at most; absent: as many as come. */
  readonly maxBytes?: number;
  /** Once, when the exchange is over: before `send` rejects, or after the answer's last byte arrived. */
  readonly ended?: (outcome: UpstreamOutcome, fault: Fault | undefined) => void;
}

export interface UpstreamReply extends UpstreamAnswer {
  /** What it asks for before the next try. */
  readonly retryAfterMs?: number;
}

const HELD_BYTES = 64 * 1024;

/** The connection, as far as an exchange has to do with it. */
export interface Carrier {
  pause(): void;
  resume(): void;
  destroy(): void;
}

export class Exchange implements AnswerSink, RelaySource {
  readonly reply: Promise<UpstreamReply>;
  /** It waited for a connection, and does not need one any more. */
  left: (() => void) | undefined;
  readonly #options: SendOptions;
  readonly #settle: { resolve(reply: UpstreamReply): void; reject(error: unknown): void };
  /** Of `performance.now()`: when all of it has to be there. */
  readonly #endBy: number;
  /** And the head. */
  #headBy: number;
  #lastAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #carrier: Carrier | undefined;
  /** Bytes of the request may have reached the upstream. */
  #sent = false;
  #target: RelayTarget | undefined;
  #headed = false;
  /** The upstream's side is over; with the failure, if it was one. */
  #over = false;
  #fault: Fault | undefined;
  /** The target has been told the end, or wants to hear nothing. */
  #told = false;
  #flowing = false;
  #paused = false;
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #bytes = 0;
  readonly #maxBytes: number;

  constructor(options: SendOptions) {
    this.#options = options;
    this.#maxBytes = options.maxBytes ?? Number.POSITIVE_INFINITY;
    const { promise, resolve, reject } = Promise.withResolvers<UpstreamReply>();
    this.reply = promise;
    this.#settle = { resolve, reject };
    const { firstByteMs, totalMs } = options.timeouts;
    const now = performance.now();
    this.#endBy = now + (totalMs || Number.POSITIVE_INFINITY);
    this.#headBy = Math.min(this.#endBy, now + (firstByteMs || Number.POSITIVE_INFINITY));
    this.#arm(now);
    options.signal?.addEventListener("abort", this.#aborted, { once: true });
    if (options.signal?.aborted === true) this.#aborted();
  }

  get over(): boolean {
    return this.#over;
  }

  // RelaySource

  pipe(target: RelayTarget): void {
    this.#target = target;
    this.resume();
  }

  resume(): void {
    if (this.#target === undefined || this.#flowing || this.#told) return;
    this.#flowing = true;
    while (this.#flowing && this.#held.length > 0 && !this.#told) {
      const chunk = this.#held.shift() as Uint8Array;
      this.#heldBytes -= chunk.byteLength;
      this.#flowing = this.#target.write(chunk);
    }
    if (!this.#flowing) return;
    if (this.#over) this.#tell();
    else if (this.#paused) this.#unpause();
  }

  cancel(): void {
    this.#told = true;
    this.#held = [];
    this.#stop(new UpstreamFault("cancelled", { sent: this.#sent }));
  }

  // What the client and the connection call

  /** The request is about to be written. */
  carried(by: Carrier): void {
    this.#carrier = by;
    this.#sent = true;
  }

  head(status: number, headers: AnswerHeaders): void {
    if (this.#over) return;
    const head = judgedHead(status, headers);
    const problem = typeof head === "string" ? "protocol" : this.#problem(head);
    if (typeof head === "string" || problem !== undefined) {
      const detail = typeof head === "string" ? head : String(status);
      this.#stop(new UpstreamFault(problem ?? "protocol", { sent: true, detail }));
      return;
    }
    this.#headed = true;
    const now = performance.now();
    this.#lastAt = now;
    this.#arm(now);
    const { retryAfterMs } = head;
    this.#settle.resolve({
      status,
      headers: head.headers,
      source: this,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }

  data(chunk: Uint8Array): void {
    if (this.#over || this.#told) return;
    this.#lastAt = performance.now();
    this.#bytes += chunk.byteLength;
    if (this.#bytes > this.#maxBytes) {
      this.#stop(new UpstreamFault("too_large", { sent: true }));
    } else if (this.#flowing && this.#target !== undefined) {
      this.#flowing = this.#target.write(chunk);
      if (!this.#flowing) this.#pause();
    } else {
      // It lasts no longer than this call.
      this.#held.push(Uint8Array.from(chunk));
      this.#heldBytes += chunk.byteLength;
      if (this.#target !== undefined || this.#heldBytes >= HELD_BYTES) this.#pause();
    }
  }

  whole(): void {
    this.#finish("whole", undefined);
  }

  /** @param error what the connection failed with, or why there is none */
  failed(error: unknown): void {
    this.#finish("failed", upstreamFault(error, this.#sent));
  }

  #problem({ status, length = 0 }: JudgedHead): UpstreamReason | undefined {
    if (status >= 300 && status < 400) return "redirect";
    return length > this.#maxBytes ? "too_large" : undefined;
  }

  #pause(): void {
    this.#paused = true;
    this.#carrier?.pause();
  }

  #unpause(): void {
    this.#paused = false;
    // The silence until now was not the upstream's.
    this.#lastAt = performance.now();
    this.#carrier?.resume();
  }

  readonly #aborted = (): void => {
    const reason: unknown = this.#options.signal?.reason;
    this.#stop(reason instanceof Fault ? reason : new UpstreamFault("cancelled", { sent: this.#sent }), "cancelled");
  };

  /** Ends the exchange from this side: the connection goes with it, as the rest of the answer would come on it. */
  #stop(fault: Fault, outcome: UpstreamOutcome = outcomeOf(fault)): void {
    if (this.#over) return;
    const carrier = this.#carrier;
    this.#finish(outcome, fault);
    carrier?.destroy();
  }

  #finish(outcome: UpstreamOutcome, fault: Fault | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#fault = fault;
    // From here on it is another's.
    this.#carrier = undefined;
    this.left?.();
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#aborted);
    this.#options.ended?.(outcome, fault);
    if (!this.#headed) this.#settle.reject(fault ?? new UpstreamFault("protocol", { sent: true }));
    else if (this.#flowing) this.#tell();
  }

  #tell(): void {
    if (this.#told) return;
    this.#told = true;
    if (this.#fault === undefined) this.#target?.end();
    else this.#target?.fail(this.#fault);
  }

  /** When it is late, should nothing come. */
  #due(now: number): number {
    if (!this.#headed) return this.#headBy;
    const { idleMs } = this.#options.timeouts;
    if (idleMs === 0) return this.#endBy;
    return Math.min(this.#endBy, (this.#paused ? now : this.#lastAt) + idleMs);
  }

  #arm(now: number): void {
    clearTimeout(this.#timer);
    const due = this.#due(now);
    this.#timer = Number.isFinite(due) ? setTimeout(this.#look, Math.max(1, Math.ceil(due - now))) : undefined;
  }

  readonly #look = (): void => {
    const now = performance.now();
    if (now >= this.#due(now)) this.#stop(new UpstreamFault("timeout", { sent: this.#sent }));
    else this.#arm(now);
  };
}

function outcomeOf(fault: Fault): UpstreamOutcome {
  return fault.kind === "cancelled" ? "cancelled" : "failed";
}
