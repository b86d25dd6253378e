/**
 * Writing out what another server answers, as it comes and at the client's speed.
 *
 * Invariants: the head goes out with the first bytes, behind the call's record, so that what fails before them still
 * has its real status; while the client is behind, the source gives nothing; a stream of events is passed on in whole
 * frames, so that a comment or a failure between two pieces is never inside of one; an answer with a length has that
 * length or its connection is cut; the source hears of the end on every path that is not its own.
 */
import type { Socket } from "node:net";
import { sseComment } from "#base/sse.ts";
import { Fault } from "#core/fault.ts";
import type { RelayTarget } from "#core/relay.ts";
import type { Exchange } from "./_exchange.ts";
import { WholeFrames } from "./_frames.ts";
import { type Before, type OwnHeaders, STREAM_HEADERS } from "./_head.ts";
import { linger, sendsOn } from "./_linger.ts";
import type { Timer } from "./_timers.ts";
import type { Reply } from "./reply.ts";

const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
const NOTHING: OwnHeaders = {};

type Relayed = Extract<Reply, { kind: "relay" }>;

const KEEP_ALIVE = sseComment("keep-alive");
/** In the time after which a silence is filled: so much later it may be. */
const LOOKS = 4;
/** Answers that have no body, whatever an upstream sends. */
const BODILESS: ReadonlySet<number> = new Set([204, 304]);

/**
 * Undefined: it is written, and taken.
 * @throws what `before` throws, what the source fails with, or the reason of the abort
 */
export function writeRelay(exchange: Exchange, reply: Relayed, before: Before): Promise<void> | undefined {
  // What has no length is told to be over by its end, which closes the connection at once.
  const sending = reply.headers["content-length"] !== undefined && !reply.stream && sendsOn(exchange);
  if (sending instanceof Promise) return writeBesideBody(exchange, reply, before, sending);
  const whole = new Target(exchange, reply, before, false).whole();
  return whole ?? exchange.taken();
}

/** The client sends a body still that nobody reads. */
async function writeBesideBody(
  exchange: Exchange,
  reply: Relayed,
  before: Before,
  sending: Promise<boolean>,
): Promise<void> {
  const lingers = await sending;
  await new Target(exchange, reply, before, lingers).whole();
  if (lingers) await linger(exchange);
  await exchange.taken();
}

/** What breaks these would break the connection's framing; who rebuilds the head keeps to them. @throws Error */
function requireRelayable({ status, headers }: Relayed): void {
  const length = headers["content-length"];
  if (!(status >= 200 && status <= 599)) throw new Error(`no answer has the status ${status}`);
  if (length !== undefined && !/^[0-9]{1,15}$/.test(length)) throw new Error("the length is no number");
  for (const name in headers) if (HOP_BY_HOP.has(name)) throw new Error("a header of the upstream's connection");
}

/** Why the answer ended early; `WHOLE`: it did not. */
interface Outcome {
  readonly reason: unknown;
}

const WHOLE: Outcome = { reason: undefined };

type Phase = "silent" | "recording" | "open" | "over";

interface Waiting {
  readonly resolve: (taken: Promise<void> | undefined) => void;
  readonly reject: (reason: unknown) => void;
}

class Target implements RelayTarget {
  readonly #exchange: Exchange;
  readonly #reply: Relayed;
  readonly #before: Before;
  readonly #frames: WholeFrames | undefined;
  readonly #bodiless: boolean;
  /** The connection closes behind the answer, which is told by its bytes alone. */
  readonly #lingers: boolean;
  #phase: Phase = "silent";
  /** What came while the record was on its way. */
  readonly #early: Buffer[] = [];
  /** The source has given everything. */
  #complete = false;
  /** What the length promises; undefined: nothing is promised. */
  #left: number | undefined;
  /** Present: pieces go straight to the connection. */
  #wire: Socket | undefined;
  #silence: NodeJS.Timeout | undefined;
  /** Since somebody looked whether it is silent: an event starts no timer. */
  #spoke = false;
  #stall: Timer | undefined;
  #outcome: Outcome | undefined;
  #waiting: Waiting | undefined;

  constructor(exchange: Exchange, reply: Relayed, before: Before, lingers: boolean) {
    this.#exchange = exchange;
    this.#reply = reply;
    this.#before = before;
    this.#lingers = lingers;
    this.#frames = reply.stream ? new WholeFrames() : undefined;
    this.#bodiless = BODILESS.has(reply.status);
    const length = reply.stream || this.#bodiless ? undefined : reply.headers["content-length"];
    this.#left = length === undefined ? undefined : Number(length);
  }

  /** Until the source has given everything and it is with the client, but for one that lingers. Undefined: it is, at once. */
  whole(): Promise<void> | undefined {
    this.#exchange.counters.handlers++;
    this.#exchange.interrupts(this.#stop);
    if (this.#outcome === undefined) this.#pipe();
    if (this.#outcome === undefined)
      return new Promise((resolve, reject) => {
        this.#waiting = { resolve, reject };
      });
    if (this.#outcome !== WHOLE) throw this.#outcome.reason;
    return undefined;
  }

  #pipe(): void {
    try {
      this.#reply.source.pipe(this);
    } catch (error) {
      this.#stop(error);
    }
  }

  soon(): void {
    if (this.#phase === "silent") this.#open();
  }

  write(chunk: Uint8Array): boolean {
    if (this.#phase === "silent") this.#open();
    try {
      if (this.#phase === "open") return this.#pass(chunk);
    } catch (error) {
      this.#stop(error);
    }
    if (this.#phase === "recording") this.#early.push(Buffer.from(chunk));
    return false;
  }

  end(): void {
    if (this.#phase === "over" || this.#complete) return;
    this.#complete = true;
    if (this.#phase === "silent") this.#open();
    try {
      if (this.#phase === "open") this.#conclude();
    } catch (error) {
      this.#stop(error);
    }
  }

  fail(fault: Fault): void {
    if (this.#phase === "over" || this.#complete) return;
    this.#complete = true;
    this.#stop(fault);
  }

  readonly #stop = (reason: unknown): void => {
    this.#over({ reason });
  };

  /** Once. */
  #over(outcome: Outcome): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = outcome;
    this.#close();
    if (outcome !== WHOLE) {
      this.#waiting?.reject(outcome.reason);
      return;
    }
    this.#waiting?.resolve(this.#exchange.taken());
  }

  #close(): void {
    this.#phase = "over";
    this.#exchange.counters.handlers--;
    clearInterval(this.#silence);
    this.#stall?.end();
    this.#exchange.onDrain(undefined);
    this.#wire?.off("drain", this.#drained);
    if (!this.#complete) this.#reply.source.cancel();
    this.#complete = true;
  }

  #open(): void {
    this.#phase = "recording";
    try {
      const recorded = this.#before.record(this.#reply.status);
      if (recorded instanceof Promise) recorded.then(this.#recorded, this.#stop);
      else this.#head();
    } catch (error) {
      this.#stop(error);
    }
  }

  readonly #recorded = (): void => {
    if (this.#phase !== "recording") return;
    try {
      this.#head();
      this.#catchUp();
    } catch (error) {
      this.#stop(error);
    }
  };

  #catchUp(): void {
    let ready = true;
    for (const chunk of this.#early.splice(0)) ready = this.#pass(chunk);
    // `#pass` may have ended it all: more came than the length promises.
    if (this.#phase !== "open") return;
    if (this.#complete) this.#conclude();
    else if (ready) this.#reply.source.resume();
  }

  #head(): void {
    const { status, stream } = this.#reply;
    this.#exchange.head(status, this.#headers(this.#before.headers()), this.#left);
    this.#exchange.streaming = stream;
    this.#phase = "open";
    if (stream) this.#silence = this.#keepAlive();
  }

  /** Ours count before the upstream's, and before both what describes the body. */
  #headers(own: OwnHeaders): string[] {
    requireRelayable(this.#reply);
    const { headers, stream } = this.#reply;
    const described = stream ? STREAM_HEADERS : NOTHING;
    const list: string[] = [];
    for (const name in headers)
      if (name !== "content-length" && own[name] === undefined && described[name] === undefined)
        list.push(name, headers[name] ?? "");
    for (const name in own) if (described[name] === undefined) list.push(name, own[name] ?? "");
    for (const name in described) list.push(name, described[name] ?? "");
    if ((headers["cache-control"] ?? own["cache-control"] ?? described["cache-control"]) === undefined)
      list.push("cache-control", "no-store");
    if (this.#left !== undefined) list.push("content-length", headers["content-length"] ?? "");
    return list;
  }

  /** @returns whether more may come */
  #pass(chunk: Uint8Array): boolean {
    if (this.#bodiless || chunk.length === 0) return true;
    if (this.#frames !== undefined) return this.#passFrames(chunk, this.#frames);
    if (this.#left !== undefined) {
      if (chunk.length > this.#left) {
        this.#stop(new Fault("engine_failed", "The answer broke off.", { detail: "more came than its length says" }));
        return false;
      }
      this.#left -= chunk.length;
      if (this.#left === 0 && !this.#lingers) {
        // The last bytes go with the end, so that a small answer is one write.
        this.#exchange.endWith(chunk);
        return true;
      }
    }
    return this.#write(chunk);
  }

  #passFrames(chunk: Uint8Array, frames: WholeFrames): boolean {
    const whole = frames.take(chunk);
    if (whole === undefined) return true;
    this.#spoke = true;
    const ready = this.#write(whole);
    this.#exchange.streaming = frames.between;
    return ready;
  }

  #write(chunk: Uint8Array): boolean {
    const wire = this.#wire;
    if (wire !== undefined ? this.#exchange.push(wire, chunk) : this.#exchange.write(Buffer.from(chunk))) {
      // Behind the first piece, which takes the head along.
      if (wire === undefined && this.#exchange.res.chunkedEncoding) this.#wire = this.#exchange.wire;
      return true;
    }
    this.#stall ??= this.#exchange.stalls();
    if (wire !== undefined) wire.once("drain", this.#drained);
    else this.#exchange.onDrain(this.#drained);
    return false;
  }

  readonly #drained = (): void => {
    this.#stall?.end();
    this.#stall = undefined;
    if (this.#phase === "open" && !this.#complete) this.#reply.source.resume();
  };

  #conclude(): void {
    const rest = this.#frames?.rest();
    if (rest !== undefined) this.#write(rest);
    if ((this.#left ?? 0) > 0) {
      this.#stop(new Fault("engine_failed", "The answer broke off.", { detail: "its length says more" }));
      return;
    }
    if (!this.#lingers && !this.#exchange.res.writableEnded) this.#exchange.end();
    this.#over(WHOLE);
  }

  #keepAlive(): NodeJS.Timeout | undefined {
    const { options, res } = this.#exchange;
    if (options.sseKeepAliveMs === 0) return undefined;
    let silent = 0;
    return setInterval(() => {
      silent = this.#spoke ? 0 : silent + 1;
      this.#spoke = false;
      if (silent < LOOKS) return;
      silent = 0;
      const idle = this.#exchange.streaming && this.#phase === "open" && !this.#exchange.gone;
      if (idle && !res.writableNeedDrain && this.#wire?.writableNeedDrain !== true) this.#exchange.write(KEEP_ALIVE);
    }, options.sseKeepAliveMs / LOOKS);
  }
}
