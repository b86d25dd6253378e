/**
 * One request and its answer while they are on the wire: identity, abort, waiting for the client, and the head.
 *
 * Invariants: the signal fires once, with a Fault as its reason; at most one party waits at a time (the corridor is
 * sequential); no method throws because the client is gone: the signal tells. Private to the pipeline and its parts.
 */
import { Socket } from "node:net";
import { headerValues } from "#base/headers.ts";
import { newId } from "#base/ids.ts";
import type { OpenCall } from "#base/open-calls.ts";
import { Fault } from "#core/fault.ts";
import { Answer } from "./_answer.ts";
import { writeChunk } from "./_chunks.ts";
import type { Incoming, Outgoing } from "./_message.ts";
import { PlainAnswer } from "./_plain-answer.ts";
import { PlainRequest } from "./_plain-request.ts";
import { Request } from "./_request.ts";
import type { Timer } from "./_timers.ts";
import type { Counters } from "./counters.ts";
import type { HttpOptions } from "./options.ts";

const ONE_PIECE = 16 * 1024;
const EMPTY = new Uint8Array(0);
const CREDENTIALS = ["authorization", "x-api-key"];
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;

export class Exchange implements OpenCall {
  readonly req: Incoming;
  readonly res: Outgoing;
  readonly requestId: string;
  readonly startedAt = performance.now();
  readonly options: HttpOptions;
  readonly counters: Counters;
  /** Whether the request announces a body. */
  readonly hasBody: boolean;
  /** Whether it has been taken in whole. */
  bodyRead = false;
  bytesIn = 0;
  bytesOut = 0;
  /** The answer is a stream of events, so that a failure can still be told behind its head. */
  streaming = false;
  /** Sees what is said, where the operator wants it kept. */
  tap: ((part: "request" | "answer", piece: string | Uint8Array) => void) | undefined;
  /** Where the client looks for the id besides x-request-id, if anywhere. */
  idHeader: string | undefined;
  /** The connection ends with this answer. */
  last = false;
  place = -1;
  /** It is a channel now: no HTTP is written any more. */
  switched = false;
  #aborted: Fault | undefined;
  /** Made for who looks at `signal`: a relayed call needs none. */
  #controller: AbortController | undefined;
  #onAbort: ((reason: Fault) => void) | undefined;
  #onDrain: (() => void) | undefined;
  #wake: (() => void) | undefined;
  #interrupt: ((reason: Fault) => void) | undefined;
  #watched = false;
  #head: Head | undefined;

  constructor(req: Incoming, res: Outgoing, options: HttpOptions, counters: Counters) {
    this.req = req;
    this.res = res;
    this.options = options;
    this.counters = counters;
    const { "content-length": length, "transfer-encoding": coding } = req.headers;
    this.hasBody = coding !== undefined || (length !== undefined && length !== "0");
    this.requestId = (options.requestIdHeader ? givenId(req, options) : undefined) ?? newId();
    // A connection that breaks shows as a close; without a listener an error of the stream would end the process.
    res.on("error", ignore);
    // Of a request from a connection nobody is told who does not listen.
    if (!(req instanceof PlainRequest || req instanceof Request)) req.on("error", ignore);
    res.on("close", () => {
      if (!res.writableFinished) this.abort(new Fault("cancelled", "The client went away."));
      this.#wake?.();
    });
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#aborted !== undefined && !this.#controller.signal.aborted) this.#controller.abort(this.#aborted);
    return this.#controller.signal;
  }

  /** The reason of the abort; undefined: not aborted. */
  get aborted(): Fault | undefined {
    return this.#aborted;
  }

  /** Nothing can reach the client any more. */
  get gone(): boolean {
    return this.switched || this.res.destroyed || this.res.closed;
  }

  abort(reason: Fault): void {
    if (this.#aborted !== undefined) return;
    this.#aborted = reason;
    this.#controller?.abort(reason);
    this.#onAbort?.(reason);
    this.#interrupt?.(reason);
    this.#wake?.();
  }

  /** One listener, the last; called at once where the call is over. */
  onAbort(run: (reason: Fault) => void): void {
    if (this.#aborted !== undefined) run(this.#aborted);
    else this.#onAbort = run;
  }

  /** Whoever waits is told of the abort, the last that asked; at once where the call is over. */
  interrupts(run: (reason: Fault) => void): void {
    if (this.#aborted !== undefined) run(this.#aborted);
    else this.#interrupt = run;
  }

  /** The result of the work, or the abort, whichever comes first; late results are dropped. */
  race<T>(work: PromiseLike<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.interrupts(reject);
      work.then(resolve, reject);
    });
  }

  /**
   * What a handler's work leads to, or the abort. It counts as a handler until it ends, however it ends.
   * @param next with its result; @param late with one that came after the abort
   */
  handled<T, U>(work: Promise<T>, next: (found: T) => U | Promise<U>, late: (found: T) => void): Promise<U> {
    this.counters.handlers++;
    return new Promise((resolve, reject) => {
      this.interrupts(reject);
      work.then(
        (found) => {
          this.counters.handlers--;
          if (this.#aborted !== undefined) {
            late(found);
            return;
          }
          try {
            resolve(next(found));
          } catch (error) {
            reject(error);
          }
        },
        (error: unknown) => {
          this.counters.handlers--;
          reject(error);
        },
      );
    });
  }

  /** One listener, for whoever pushes; `taken` is for who waits. */
  onDrain(run: (() => void) | undefined): void {
    this.#onDrain = run;
    if (run !== undefined) this.#watch();
  }

  /** A wait for the client begins. */
  stalls(): Timer {
    return this.counters.after(this.options.stallTimeoutMs, () => this.cut("the client takes nothing"));
  }

  /**
   * Until the client has taken what was written, or is gone (also: stalled, and cut for it). Undefined: so it is.
   * @throws Fault the reason of an abort that comes meanwhile
   */
  taken(): Promise<void> | undefined {
    return this.#isTaken ? undefined : this.#untilTaken();
  }

  async #untilTaken(): Promise<void> {
    this.#watch();
    const before = this.aborted;
    while (!this.#isTaken) {
      const timer = this.stalls();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      timer.end();
      this.#wake = undefined;
      if (this.aborted !== before && !this.gone) throw this.aborted;
    }
  }

  /** What the kernel has is taken, though `finish` comes a turn later. */
  get #isTaken(): boolean {
    const { res } = this;
    if (this.gone || res.writableFinished) return true;
    if (res.writableEnded) return res.socket !== null && res.writableLength === 0;
    return !res.writableNeedDrain;
  }

  /** From the first wait for the client on: most answers have none. */
  #watch(): void {
    if (this.#watched) return;
    this.#watched = true;
    const wake = (): void => this.#wake?.();
    this.res.on("drain", () => {
      wake();
      this.#onDrain?.();
    });
    this.res.on("finish", wake);
    this.res.on("error", wake);
  }

  /** Ends the connection now, with nothing more said. */
  cut(detail: string): void {
    this.abort(new Fault("cancelled", "The client went away.", { detail }));
    this.res.destroy();
  }

  /**
   * Status line and headers. An answer before the body is read ends the connection: the rest stays unread. So does one to
   * a request with Upgrade, behind which Node's parser may drop bytes: what follows must not be a request.
   * @param headers name and value in turn, each name once; it is added to
   * @param length of the body, which stands among them: it may go out with its one piece
   */
  head(status: number, headers: string[], length?: number): void {
    const closes = this.last || (this.hasBody && !this.bodyRead) || this.req.headers.upgrade !== undefined;
    headers.push("x-content-type-options", "nosniff");
    if (this.options.requestIdHeader) {
      headers.push("x-request-id", this.requestId);
      if (this.idHeader !== undefined) headers.push(this.idHeader, this.requestId);
    }
    if (closes) headers.push("connection", "close");
    this.#head = { status, headers, length };
    if (closes || length === undefined || this.options.maxRequestsPerSocket > 0) this.#sendHead();
  }

  #sendHead(): void {
    const head = this.#head;
    this.#head = undefined;
    if (head !== undefined) this.res.writeHead(head.status, head.headers);
  }

  /** @returns whether the answer was all of this, and is out */
  #sendWhole(body: Uint8Array): boolean {
    const { res } = this;
    const head = this.#head;
    if (head === undefined || head.length !== body.length || !(res instanceof PlainAnswer || res instanceof Answer))
      return false;
    if (!res.whole(head.status, head.headers, body, this.options.keepAliveTimeoutMs)) return false;
    this.#head = undefined;
    return true;
  }

  /** @returns whether the client keeps up */
  write(chunk: string | Uint8Array): boolean {
    this.bytesOut += Buffer.byteLength(chunk);
    this.tap?.("answer", chunk);
    this.#sendHead();
    return this.res.write(chunk);
  }

  /** A message of a channel, by either side. */
  said(part: "request" | "answer", text: string): void {
    const bytes = Buffer.byteLength(text);
    if (part === "request") this.bytesIn += bytes;
    else this.bytesOut += bytes;
    this.tap?.(part, text);
  }

  /** The connection below the answer; undefined: a request without a socket. */
  get wire(): Socket | undefined {
    const { socket } = this.res;
    return socket instanceof Socket ? socket : undefined;
  }

  /**
   * A piece of a chunked answer whose head and first piece are written (`write`), straight to its connection.
   * @param chunk not empty, and not kept
   * @returns whether the connection keeps up
   */
  push(wire: Socket, chunk: Uint8Array): boolean {
    this.bytesOut += chunk.length;
    this.tap?.("answer", chunk);
    return writeChunk(wire, chunk);
  }

  /** The answer's last bytes and its end. @param chunk not kept */
  endWith(chunk: Uint8Array): void {
    this.bytesOut += chunk.length;
    this.tap?.("answer", chunk);
    if (this.#sendWhole(chunk)) return;
    this.#sendHead();
    const bytes = chunk instanceof Buffer ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    // A string goes out in one piece with the head before it.
    if (bytes.length > ONE_PIECE) this.res.end(Buffer.from(bytes));
    else this.res.end(bytes.toString("latin1"), "latin1");
  }

  /** The answer's last bytes, if any, and its end. */
  end(chunk: Uint8Array = EMPTY): void {
    this.bytesOut += chunk.length;
    if (chunk.length > 0) this.tap?.("answer", chunk);
    if (this.#sendWhole(chunk)) return;
    this.#sendHead();
    if (chunk.length === 0) this.res.end();
    else this.res.end(chunk);
  }
}

/** Not sent yet. */
interface Head {
  readonly status: number;
  readonly headers: string[];
  /** Of the body; undefined: not known. */
  readonly length: number | undefined;
}

function ignore(): void {}

/** It will stand in logs: one that holds a credential is not taken over (Wall: T71). */
function givenId(req: Incoming, { redact }: HttpOptions): string | undefined {
  const [id, ...more] = headerValues(req.rawHeaders, "x-request-id");
  if (id === undefined || more.length > 0 || !REQUEST_ID.test(id) || redact(id) !== id) return undefined;
  const credentials = CREDENTIALS.flatMap((name) => headerValues(req.rawHeaders, name));
  return credentials.some((credential) => credential.includes(id) || holdsToken(id, credential)) ? undefined : id;
}

function holdsToken(id: string, credential: string): boolean {
  const token = credential.slice(credential.lastIndexOf(" ") + 1);
  return token !== "" && id.includes(token);
}
