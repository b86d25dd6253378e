/**
 * One request to an upstream and the answer as it comes: the head told to who asked, the body pushed to whoever relays it.
 *
 * Invariants: exactly one outcome, told once to `ended`, whoever ends it, and one of head and failure; after a cancel the connection is destroyed and
 * nothing more is pushed; a target that said "no more" gets nothing until it resumes, and at most about HELD_BYTES (and
 * what one read brought) wait for it; of a body that breaks off every byte that arrived is pushed before the failure.
 * It has no timer: who carries it looks when it is due whether something came meanwhile. Callers: client.ts.
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
  /** Between two pieces of the body, and a quarter more at most. */
  readonly idleMs: number;
  readonly totalMs: number;
}

/** `whole`: all of the answer arrived; `failed`: not all of it, or none; `cancelled`: by this side. */
export type UpstreamOutcome = "whole" | "failed" | "cancelled";

export interface SendOptions {
  readonly signal?: AbortSignal | undefined;
  /** As a signal, and cheaper: one listener, the last; called at once where the call is over. */
  onAbort?(run: (reason: Fault) => void): void;
  readonly timeouts: UpstreamTimeouts;
  /** Bytes of the body at most; absent: as many as come. */
  readonly maxBytes?: number | undefined;
  /** Once, when the exchange is over: before the failure is told, or after the answer's last byte arrived. */
  ended?(outcome: UpstreamOutcome, fault: Fault | undefined): void;
}

/** Who asks, and is told one of two things, at once when it is there. Throws nothing. */
export interface Asker extends SendOptions {
  /**
   * Whoever has the source pipes it, now or later, or cancels it.
   * @param written all of the request: nothing is read of it any more, which else holds behind the whole answer
   */
  headed(head: JudgedHead, source: RelaySource, written: boolean): void;
  /** UpstreamFault; the signal's reason, where that is a Fault. */
  failed(error: unknown): void;
}

export interface UpstreamReply extends UpstreamAnswer {
  /** What it asks for before the next try. */
  readonly retryAfterMs: number | undefined;
}

/** What goes out. */
export interface Outgoing {
  /** Made when they are about to be written. */
  bytes(): Uint8Array | readonly Uint8Array[];
}

const HELD_BYTES = 64 * 1024;
/** In the time that an answer may be silent: so much later than it should a silence may show. */
const LOOKS = 4;

/** The connection, as far as an exchange has to do with it. */
export interface Carrier {
  /** It has written all that it was given. */
  readonly written: boolean;
  pause(): void;
  resume(): void;
  destroy(): void;
  /** It may be late then. */
  watch(due: number): void;
}

const NOTHING: Uint8Array[] = [];

export class Exchange implements AnswerSink, RelaySource {
  readonly #request: Outgoing;
  /** It waited for a connection, and does not need one any more. */
  left: (() => void) | undefined;
  /** Of `performance.now()`: when the head has to be there. */
  readonly headBy: number;
  readonly #asker: Asker;
  /** And all of it. */
  readonly #endBy: number;
  /** Something came since somebody looked: an event notes no time. */
  #came = false;
  /** When the last that came before had come, or a look later. */
  #lastAt = 0;
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
  #held = NOTHING;
  #heldBytes = 0;
  #bytes = 0;
  readonly #maxBytes: number | undefined;
  /** Where there is a signal: its listener. */
  #onSignal: (() => void) | undefined;

  constructor(request: Outgoing, asker: Asker) {
    this.#request = request;
    this.#asker = asker;
    this.#maxBytes = asker.maxBytes;
    const { firstByteMs, totalMs } = asker.timeouts;
    const now = performance.now();
    this.#endBy = now + (totalMs || Number.POSITIVE_INFINITY);
    this.headBy = Math.min(this.#endBy, now + (firstByteMs || Number.POSITIVE_INFINITY));
    this.#listen();
  }

  #listen(): void {
    const { signal } = this.#asker;
    // It stays when this is over, and does nothing then.
    this.#asker.onAbort?.((reason) => this.#stop(reason, "cancelled"));
    if (signal === undefined) return;
    this.#onSignal = () => {
      const reason: unknown = signal.reason;
      this.#stop(reason instanceof Fault ? reason : new UpstreamFault("cancelled", { sent: this.#sent }), "cancelled");
    };
    if (signal.aborted) this.#onSignal();
    else signal.addEventListener("abort", this.#onSignal, { once: true });
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
      this.#flowing = this.#target.write(chunk, true);
    }
    if (!this.#flowing) return;
    if (this.#over) this.#tell();
    else if (this.#paused) this.#unpause();
  }

  cancel(): void {
    this.#told = true;
    this.#letGo();
    this.#held = NOTHING;
    this.#stop(new UpstreamFault("cancelled", { sent: this.#sent }));
  }

  // What the client and the connection call

  /** It has a connection. */
  carried(by: Carrier): void {
    this.#carrier = by;
  }

  /** The request is about to be written. @returns its bytes */
  sending(): Uint8Array | readonly Uint8Array[] {
    this.#sent = true;
    return this.#request.bytes();
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
    this.#came = true;
    this.#carrier?.watch(this.due(performance.now()));
    this.#asker.headed(head, this, this.#carrier?.written === true);
  }

  data(chunk: Uint8Array): void {
    if (this.#over || this.#told) return;
    this.#came = true;
    if (this.#maxBytes !== undefined && this.#isMore(chunk, this.#maxBytes)) {
      this.#stop(new UpstreamFault("too_large", { sent: true }));
    } else if (this.#flowing && this.#target !== undefined) {
      this.#flowing = this.#target.write(chunk);
      if (!this.#flowing) this.#pause();
    } else {
      // It lasts no longer than this call.
      if (this.#held.length === 0) this.#held = [Buffer.from(chunk)];
      else this.#held.push(Buffer.from(chunk));
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

  #problem({ status, length }: JudgedHead): UpstreamReason | undefined {
    if (status >= 300 && status < 400) return "redirect";
    const most = this.#maxBytes;
    return length !== undefined && most !== undefined && length > most ? "too_large" : undefined;
  }

  #isMore({ byteLength }: Uint8Array, most: number): boolean {
    this.#bytes += byteLength;
    return this.#bytes > most;
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
    if (this.#onSignal !== undefined) this.#asker.signal?.removeEventListener("abort", this.#onSignal);
    this.#asker.ended?.(outcome, fault);
    if (!this.#headed) this.#asker.failed(fault ?? new UpstreamFault("protocol", { sent: true }));
    else if (this.#flowing) this.#tell();
  }

  #tell(): void {
    if (this.#told) return;
    this.#told = true;
    const target = this.#letGo();
    if (this.#fault === undefined) target?.end();
    else target?.fail(this.#fault);
  }

  /** A whole call hangs on its target: what is over keeps none, lest it be taken for one that lives. */
  #letGo(): RelayTarget | undefined {
    const target = this.#target;
    this.#target = undefined;
    return target;
  }

  /** When it is late, should nothing come; or, where something came, when to look again. */
  due(now: number): number {
    if (!this.#headed) return this.headBy;
    const { idleMs } = this.#asker.timeouts;
    if (idleMs === 0) return this.#endBy;
    if (this.#came) {
      this.#came = false;
      this.#lastAt = now;
      return Math.min(this.#endBy, now + idleMs / LOOKS);
    }
    return Math.min(this.#endBy, (this.#paused ? now : this.#lastAt) + idleMs);
  }

  /** It is due. */
  late(): void {
    this.#stop(new UpstreamFault("timeout", { sent: this.#sent }));
  }
}

function outcomeOf(fault: Fault): UpstreamOutcome {
  return fault.kind === "cancelled" ? "cancelled" : "failed";
}
