/**
 * One connection to an upstream: writes a request, reads its answer, and is then free for the next.
 *
 * Requests go out at the end of the turn of the event loop in which they came: the first write wakes the upstream, the
 * others find it awake, and what prepares them and what writes them stay in the processor's caches, each by itself.
 * Invariants (Wall: T120): one request at a time; a connection on which anything was not whole, or came unasked, is
 * destroyed and never free again; who has it is told one end, and of a whole answer when all of the request is written
 * or never will be (T127). Answers are read into one place that all connections share, which is safe as whoever looks at
 * them is done when the next read begins. Callers: client.ts.
 */
import type { Socket } from "node:net";
import { AnswerReader, type AnswerSink } from "./_answer.ts";
import type { AnswerHead, AnswerHeaders, HeaderValue } from "./_head.ts";
import type { Carrier, Exchange } from "./exchange.ts";
import { UpstreamFault } from "./fault.ts";

/** Who has connections, hears of their ends. */
export interface ConnectionOwner {
  /** It has nothing to carry. */
  free(connection: Connection): void;
  gone(connection: Connection): void;
  /** What it carries may be late then. @param due of `performance.now()` */
  watch(due: number): void;
}

/** Behind what most servers keep a connection open for: five seconds is the least that is common. */
const KEEP_MS = 4000;
const MAX_KEEP_MS = 600_000;
/** A server's own time, less what a request may be on its way. */
const KEEP_MARGIN_MS = 2000;
const RECEIVED = Buffer.allocUnsafeSlow(64 * 1024);
/** Requests that wait for the end of the turn; with so many they go. */
const MOST_UNSENT = 64;

/** Of all upstreams, in their order. */
let unsent: Connection[] = [];

function sendAll(): void {
  const all = unsent;
  unsent = [];
  for (const connection of all) connection.send();
}

export class Connection implements Carrier, AnswerSink {
  readonly #owner: ConnectionOwner;
  readonly #reader = new AnswerReader(this);
  #socket: Socket | undefined;
  #exchange: Exchange | undefined;
  #error: Error | undefined;
  #keepUntil = 0;
  #paused = false;
  /** What it carries has not begun to go out. */
  #unsent = false;

  constructor(owner: ConnectionOwner) {
    this.#owner = owner;
  }

  /** For node:net: where it reads to, and who looks. */
  readonly onread = {
    buffer: RECEIVED,
    callback: (length: number): boolean => {
      this.#read(length);
      return true;
    },
  };

  /** @param socket connected */
  open(socket: Socket): void {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("error", (error) => {
      this.#error = error;
    });
    // The other side says no more; what it has not said it never will.
    socket.on("end", () => socket.destroy());
    socket.on("close", () => {
      this.#lose(this.#error ?? new Error("the connection was closed"));
      this.#owner.gone(this);
    });
    this.#keepUntil = performance.now() + KEEP_MS;
    socket.unref();
  }

  /** May carry another, as far as this side knows. */
  get usable(): boolean {
    const socket = this.#socket;
    return socket !== undefined && !socket.destroyed && socket.writable && performance.now() < this.#keepUntil;
  }

  /** What it carries; undefined: nothing. */
  get exchange(): Exchange | undefined {
    return this.#exchange;
  }

  carry(exchange: Exchange): void {
    const socket = this.#socket;
    if (socket === undefined) throw new Error("it is not open");
    this.#exchange = exchange;
    this.#reader.begin();
    exchange.carried(this);
    socket.ref();
    this.#unsent = true;
    const waiting = unsent.push(this);
    if (waiting === 1) setImmediate(sendAll);
    else if (waiting >= MOST_UNSENT) sendAll();
  }

  /** At the end of a turn. Who has left meanwhile has nothing sent. */
  send(): void {
    const [exchange, socket] = [this.#exchange, this.#socket];
    this.#unsent = false;
    if (exchange === undefined || socket === undefined || socket.destroyed) return;
    let pieces: Uint8Array | readonly Uint8Array[];
    try {
      pieces = exchange.sending();
    } catch (error) {
      // Whoever asked hears of it, not the loop, and the others' requests go out.
      this.#lose(error);
      this.destroy();
      return;
    }
    if (pieces instanceof Uint8Array) {
      socket.write(pieces);
      return;
    }
    socket.cork();
    for (const piece of pieces) socket.write(piece);
    socket.uncork();
  }

  get written(): boolean {
    return !this.#unsent && this.#socket?.writableLength === 0;
  }

  watch(due: number): void {
    this.#owner.watch(due);
  }

  // AnswerSink: what the reader finds goes to whoever is carried.

  head(status: number, headers: AnswerHeaders): void {
    this.#exchange?.head(status, headers);
  }

  data(bytes: Uint8Array): void {
    this.#exchange?.data(bytes);
  }

  pause(): void {
    this.#paused = true;
    this.#socket?.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket?.resume();
  }

  destroy(error?: Error): void {
    this.#socket?.destroy(error);
  }

  #read(length: number): void {
    const [exchange, reader] = [this.#exchange, this.#reader];
    // Nobody has asked yet: it would be taken for the next one's answer.
    if (exchange === undefined || this.#unsent) {
      this.#lose(new UpstreamFault("protocol", { sent: false, detail: "an answer that nobody had asked for" }));
      this.destroy();
      return;
    }
    let looked: number;
    try {
      looked = reader.read(RECEIVED, length);
    } catch (error) {
      this.#lose(error);
      this.destroy();
      return;
    }
    if (reader.problem !== undefined) {
      this.#lose(new UpstreamFault("protocol", { sent: true, detail: reader.problem }));
      this.destroy();
    } else if (reader.done && this.#exchange === exchange) this.#whole(exchange, reader.head, looked === length);
  }

  #whole(exchange: Exchange, head: AnswerHead | undefined, clean: boolean): void {
    const socket = this.#socket;
    this.#exchange = undefined;
    const keepMs = keepOf(head?.headers["keep-alive"]);
    const good = clean && head?.keeps === true && socket?.writable === true && socket.writableLength === 0;
    if (good && keepMs > 0) {
      this.#keepUntil = performance.now() + keepMs;
      socket.unref();
      this.resume();
      this.#owner.free(this);
    } else this.destroy();
    exchange.whole();
  }

  #lose(error: unknown): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    exchange?.failed(error);
  }
}

function keepOf(said: HeaderValue): number {
  if (said === undefined) return KEEP_MS;
  const seconds = /(?:^|[ ,])timeout=(\d{1,6})/.exec(String(said))?.[1];
  return seconds === undefined ? KEEP_MS : Math.min(Number(seconds) * 1000 - KEEP_MARGIN_MS, MAX_KEEP_MS);
}
