/**
 * One request to an upstream and the answer as it comes: the head as a promise, the body pushed to whoever relays it.
 *
 * Invariants: exactly one outcome, told once to `ended`, whoever ends it; after a cancel the connection is destroyed and
 * nothing more is pushed; a target that said "no more" gets nothing until it resumes, and at most about HELD_BYTES (and
 * what one read brought) wait for it; of a body that breaks off every byte that arrived is pushed before the failure.
 * Why not undici's own bodies: they are streams, and cost more than what they carry. Callers: client.ts.
 */
import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher } from "undici";
import { Fault } from "#core/fault.ts";
import type { RelaySource, RelayTarget, UpstreamAnswer } from "#core/relay.ts";
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

export class Exchange implements Dispatcher.DispatchHandler, RelaySource {
  readonly reply: Promise<UpstreamReply>;
  readonly #options: SendOptions;
  readonly #settle: { resolve(reply: UpstreamReply): void; reject(error: unknown): void };
  readonly #startedAt = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #target: RelayTarget | undefined;
  #headed = false;
  /** The upstream's side is over; with the failure, if it was one. */
  #over = false;
  #fault: Fault | undefined;
  /** The target has been told the end, or wants to hear nothing. */
  #told = false;
  #flowing = false;
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
    this.#arm(firstByteMs === 0 ? totalMs : totalMs === 0 ? firstByteMs : Math.min(firstByteMs, totalMs));
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
    else this.#controller?.resume();
  }

  cancel(): void {
    this.#told = true;
    this.#held = [];
    this.#stop(new UpstreamFault("cancelled", { sent: this.#controller !== undefined }));
  }

  // What undici calls

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#over) controller.abort(new Error("over"));
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    if (status < 200 || this.#over) return;
    const head = judgedHead(status, headers);
    const problem = typeof head === "string" ? "protocol" : this.#problem(head);
    if (typeof head === "string" || problem !== undefined) {
      const detail = typeof head === "string" ? head : String(status);
      this.#stop(new UpstreamFault(problem ?? "protocol", { sent: true, detail }));
      return;
    }
    this.#headed = true;
    const { totalMs } = this.#options.timeouts;
    this.#arm(totalMs === 0 ? 0 : Math.max(1, totalMs - (performance.now() - this.#startedAt)));
    const { retryAfterMs } = head;
    this.#settle.resolve({
      status,
      headers: head.headers,
      source: this,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    if (this.#over || this.#told) return;
    this.#bytes += chunk.byteLength;
    if (this.#bytes > this.#maxBytes) {
      this.#stop(new UpstreamFault("too_large", { sent: true }));
    } else if (this.#flowing && this.#target !== undefined) {
      this.#flowing = this.#target.write(chunk);
      if (!this.#flowing) controller.pause();
    } else {
      this.#held.push(chunk);
      this.#heldBytes += chunk.byteLength;
      if (this.#target !== undefined || this.#heldBytes >= HELD_BYTES) controller.pause();
    }
  }

  onResponseEnd(): void {
    this.#finish("whole", undefined);
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    this.#finish("failed", upstreamFault(error, this.#controller !== undefined));
  }

  /** The client could not take it. */
  refused(error: unknown): void {
    this.#finish("failed", upstreamFault(error, false));
  }

  #problem({ status, length = 0 }: JudgedHead): UpstreamReason | undefined {
    if (status >= 300 && status < 400) return "redirect";
    return length > this.#maxBytes ? "too_large" : undefined;
  }

  readonly #aborted = (): void => {
    const reason: unknown = this.#options.signal?.reason;
    const sent = this.#controller !== undefined;
    this.#stop(reason instanceof Fault ? reason : new UpstreamFault("cancelled", { sent }), "cancelled");
  };

  readonly #late = (): void => {
    this.#stop(new UpstreamFault("timeout", { sent: this.#controller !== undefined }));
  };

  /** Ends the exchange from this side: the connection goes with it, as the rest of the answer would come on it. */
  #stop(fault: Fault, outcome: UpstreamOutcome = outcomeOf(fault)): void {
    if (this.#over) return;
    this.#finish(outcome, fault);
    this.#controller?.abort(fault);
  }

  #finish(outcome: UpstreamOutcome, fault: Fault | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#fault = fault;
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

  #arm(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = milliseconds === 0 ? undefined : setTimeout(this.#late, milliseconds);
  }
}

function outcomeOf(fault: Fault): UpstreamOutcome {
  return fault.kind === "cancelled" ? "cancelled" : "failed";
}
