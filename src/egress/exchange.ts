/**
 * One request and its answer over an agent: no redirects, no retries, no judgement of where it goes.
 *
 * Why not undici's own body streams: a stream that fails drops what it had buffered, and a download that is to be
 * resumed should keep every byte that arrived. Here the failure comes after the last byte.
 * Invariants: at most about 1 MiB waits for a slow reader, then the socket is paused; a body is read by one reader.
 * Callers: fetch.ts, which has judged the URL.
 */
import type { IncomingHttpHeaders } from "node:http";
import type { Agent, Dispatcher } from "undici";

export interface ExchangeRequest {
  readonly method: "GET" | "POST";
  readonly headers: Record<string, string>;
  readonly body: string | null;
  readonly signal: AbortSignal | undefined;
}

export interface ExchangeResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: ExchangeBody;
}

const PAUSE_BYTES = 1024 * 1024;

export function exchange(agent: Agent, url: URL, outbound: ExchangeRequest): Promise<ExchangeResponse> {
  const { promise, resolve, reject } = Promise.withResolvers<ExchangeResponse>();
  let body: ExchangeBody | undefined;
  let stopListening = (): void => {};
  const finish = (error: Error | undefined): void => {
    stopListening();
    body?.end(error);
    if (error !== undefined) reject(error);
  };
  const handler: Dispatcher.DispatchHandler = {
    onRequestStart: (controller) => {
      const abort = (): void => controller.abort(new DOMException("stopped", "AbortError"));
      if (outbound.signal?.aborted === true) return abort();
      outbound.signal?.addEventListener("abort", abort, { once: true });
      stopListening = () => outbound.signal?.removeEventListener("abort", abort);
    },
    onResponseStart: (controller, status, headers) => {
      if (status < 200) return;
      body = new ExchangeBody(controller);
      resolve({ status, headers, body });
    },
    onResponseData: (_controller, chunk) => body?.push(chunk),
    onResponseEnd: () => finish(undefined),
    onResponseError: (_controller, error) => finish(error),
  };
  const { method, headers, body: content } = outbound;
  agent.dispatch({ origin: url.origin, path: url.pathname + url.search, method, headers, body: content }, handler);
  return promise;
}

export class ExchangeBody {
  private readonly controller: Dispatcher.DispatchController;
  private readonly queue: Uint8Array[] = [];
  private queuedBytes = 0;
  private ended = false;
  private error: Error | undefined;
  private wake: () => void = () => {};

  constructor(controller: Dispatcher.DispatchController) {
    this.controller = controller;
  }

  push(chunk: Uint8Array): void {
    this.queue.push(chunk);
    this.queuedBytes += chunk.byteLength;
    if (this.queuedBytes >= PAUSE_BYTES) this.controller.pause();
    this.wake();
  }

  end(error: Error | undefined): void {
    this.ended = true;
    this.error = error;
    this.wake();
  }

  /** The next bytes; undefined at the end, "late" when none came within `limitMs`. @throws what ended the body */
  async next(limitMs: number): Promise<Uint8Array | undefined | "late"> {
    if (this.queue.length === 0 && !this.ended) await this.activity(limitMs);
    const chunk = this.queue.shift();
    if (chunk === undefined) {
      if (!this.ended) return "late";
      if (this.error !== undefined) throw this.error;
      return undefined;
    }
    const wasFull = this.queuedBytes >= PAUSE_BYTES;
    this.queuedBytes -= chunk.byteLength;
    if (wasFull && this.queuedBytes < PAUSE_BYTES) this.controller.resume();
    return chunk;
  }

  /** Gives up the rest. Harmless after the end. */
  close(): void {
    this.queue.length = 0;
    if (!this.ended) this.controller.abort(new DOMException("not wanted any more", "AbortError"));
  }

  private activity(limitMs: number): Promise<void> {
    return new Promise((done) => {
      const timer = setTimeout(done, Math.max(0, limitMs));
      this.wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }
}
