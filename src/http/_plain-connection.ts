/**
 * Connections whose requests are plain, one behind the other: read and answered without node:http.
 *
 * Invariants (Wall: T132): a request is taken here when its head came in one read, is plain (_plain-head.ts), is for a
 * route that wants it, and nothing came behind it; the first that is not goes to node:http as the bytes that came, and
 * the connection with it, for good. So this reader never says where one request ends and the next begins: it only takes
 * what is alone. Every wait has an end. Callers: listener.ts.
 */
import type { Socket } from "node:net";
import type { Line } from "./_connections.ts";
import { roomFor } from "./_gathered.ts";
import { type Reads, readTo } from "./_own-reads.ts";
import { type Answering, PlainAnswer } from "./_plain-answer.ts";
import { type PlainHead, PlainHeads } from "./_plain-head.ts";
import { PlainRequest, type Reading } from "./_plain-request.ts";
import { writeRaw } from "./_raw.ts";
import type { HttpOptions } from "./options.ts";

/** Whom plain requests go to. */
export interface PlainHandling<M> {
  /** Undefined: what is asked for there is node:http's to read. */
  find(method: string, target: string): M | undefined;
  handle(found: M, req: PlainRequest, res: PlainAnswer): void;
}

/** Of all connections: what a read brings is looked at, and copied, before there is another. */
const RECEIVED = Buffer.allocUnsafeSlow(64 * 1024);
/** A client that sends just when the time it was told is over finds somebody still. */
const MARGIN_MS = 1000;
/** What may come behind a request that is not answered. */
const MOST_BEHIND = 64 * 1024;

/** Those of one listener. */
export class PlainConnections<M> {
  readonly #options: HttpOptions;
  readonly #handling: PlainHandling<M>;
  readonly #open = new Set<PlainConnection<M>>();
  readonly #watch: NodeJS.Timeout;

  /** @param checkMs how often it is looked whose time is over */
  constructor(options: HttpOptions, handling: PlainHandling<M>, checkMs: number) {
    this.#options = options;
    this.#handling = handling;
    this.#watch = setInterval(() => this.#look(), checkMs).unref();
  }

  /**
   * @param onward has the connection from the first request on that is not plain
   * @returns false: it cannot be read here, and nothing was done
   */
  take(socket: Socket, line: Line, onward: () => void): boolean {
    const gone = (): void => void this.#open.delete(connection);
    const connection = new PlainConnection(socket, line, this.#options, this.#handling, { onward, gone });
    if (!connection.begin()) return false;
    this.#open.add(connection);
    return true;
  }

  /** Those that wait for a further request. */
  closeIdle(): void {
    for (const connection of this.#open) connection.closeIdle();
  }

  close(): void {
    clearInterval(this.#watch);
  }

  #look(): void {
    const now = performance.now();
    for (const connection of this.#open) if (connection.look(now)) this.#open.delete(connection);
  }
}

interface Ends {
  /** node:http has it from now on. */
  readonly onward: () => void;
  readonly gone: () => void;
}

class PlainConnection<M> implements Reads, Reading, Answering {
  readonly socket: Socket;
  readonly #line: Line;
  readonly #options: HttpOptions;
  readonly #handling: PlainHandling<M>;
  readonly #ends: Ends;
  #req: PlainRequest | undefined;
  #res: PlainAnswer | undefined;
  /** What came behind the request that is being answered. */
  #behind: Buffer | undefined;
  /** Where the last read was told to go. */
  #room: Buffer | undefined;
  #state: "reading" | "closing" | "handed" = "reading";
  readonly #heads = new PlainHeads();
  #answers = 0;
  /** By performance.now(): since then, or since that was seen, no request has come; undefined: not looked since the last. */
  #idleSince: number | undefined = performance.now();

  constructor(socket: Socket, line: Line, options: HttpOptions, handling: PlainHandling<M>, ends: Ends) {
    this.socket = socket;
    this.#line = line;
    this.#options = options;
    this.#handling = handling;
    this.#ends = ends;
  }

  begin(): boolean {
    if (!readTo(this.socket, this)) return false;
    this.socket.on("end", this.#ended).on("close", this.#closed).on("drain", this.#drained).on("error", this.#failed);
    return true;
  }

  // Reads

  came(size: number): boolean {
    const room = this.#room;
    this.#room = undefined;
    switch (this.#state) {
      // For whoever node:http has given the connection to: as it would have come by itself.
      case "handed":
        return this.socket.push(Buffer.from(RECEIVED.subarray(0, size)));
      case "closing":
        return true;
      case "reading":
        if (room !== undefined) return this.#filled(size);
        return this.#req === undefined ? this.#request(size) : this.#more(this.#req, size);
    }
  }

  /** Behind a body's last byte it is no more that body's place, whose memory may be given back then (Wall: T127). */
  into(): Uint8Array {
    this.#room = this.#state === "reading" ? this.#req?.room() : undefined;
    return this.#room ?? RECEIVED;
  }

  // Reading

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  // Answering

  answered(keeps: boolean): void {
    const complete = this.#req?.complete === true;
    this.#req = undefined;
    this.#res = undefined;
    this.#answers++;
    this.#idleSince = undefined;
    if (!keeps || !complete) {
      this.#state = "closing";
      this.socket.destroySoon();
      return;
    }
    const behind = this.#behind;
    this.#behind = undefined;
    if (behind !== undefined) this.#hand(behind);
  }

  closeIdle(): void {
    if (this.#state === "reading" && this.#answers > 0 && this.#req === undefined) this.socket.destroy();
  }

  /** @returns whether nobody needs to look any more */
  look(now: number): boolean {
    const { socket } = this;
    if (socket.destroyed) return true;
    if (this.#state === "handed") return this.#lookBehind(now);
    if (this.#req !== undefined) return false;
    this.#idleSince ??= now;
    const { headersTimeoutMs, keepAliveTimeoutMs } = this.#options;
    const most = this.#answers === 0 ? headersTimeoutMs : keepAliveTimeoutMs + MARGIN_MS;
    if (now - this.#idleSince >= most) socket.destroy();
    return socket.destroyed;
  }

  /** node:http counts from when it got the connection: a first head is to be there in the same time all the same. */
  #lookBehind(now: number): boolean {
    if (this.#answers > 0 || this.#line.next !== undefined) return true;
    if (now - (this.#idleSince ?? now) < this.#options.headersTimeoutMs) return false;
    if (this.socket.writable) writeRaw(this.socket, 408);
    else this.socket.destroy();
    return true;
  }

  #request(size: number): boolean {
    const { maxHeaderBytes, maxHeaders } = this.#options;
    const head = this.#heads.read(RECEIVED, size, maxHeaderBytes, maxHeaders);
    const alone = head !== undefined && size - head.size <= (head.length ?? 0);
    const found = alone ? this.#handling.find(head.method, head.target) : undefined;
    if (head !== undefined && found !== undefined) return this.#start(head, size, found);
    this.#hand(Buffer.from(RECEIVED.subarray(0, size)));
    return true;
  }

  #start(head: PlainHead, size: number, found: M): boolean {
    const { socket } = this;
    if (this.#line.retired) {
      socket.destroy();
      return true;
    }
    const req = new PlainRequest(head, this);
    const res = new PlainAnswer(req, this, this.#options.keepAliveTimeoutMs);
    // The answer says so and closes, so that a client of good will connects anew.
    if (head.closes || performance.now() >= this.#line.agesAt) res.shouldKeepAlive = false;
    this.#req = req;
    this.#res = res;
    const came = size - head.size;
    if (came > 0) req.begin(placeOf(head.length ?? 0, head.size, came), came);
    this.#handling.handle(found, req, res);
    // A body that nobody has asked for is not read.
    return req.complete || req.wanted;
  }

  /** It was read to where its body lies. */
  #filled(size: number): boolean {
    const req = this.#req;
    return req === undefined || req.filled(size) || req.complete;
  }

  /** More of a request, or what came behind it. */
  #more(req: PlainRequest, size: number): boolean {
    const own = Math.min(req.left, size);
    if (own < size) this.#behind = joined(this.#behind, RECEIVED.subarray(own, size));
    if (own > 0 && !req.take(Buffer.from(RECEIVED.subarray(0, own))) && !req.complete) return false;
    return (this.#behind?.length ?? 0) < MOST_BEHIND;
  }

  /** @param bytes that came and that nobody has looked at */
  #hand(bytes: Buffer): void {
    const { socket } = this;
    this.#state = "handed";
    this.#leave();
    socket.unshift(bytes);
    this.#ends.onward();
    socket.resume();
  }

  #leave(): void {
    this.socket
      .off("end", this.#ended)
      .off("close", this.#closed)
      .off("drain", this.#drained)
      .off("error", this.#failed);
  }

  /** The client says no more: it is gone, as for node:http. */
  readonly #ended = (): void => {
    // A request that broke off; an answer that is under way would be corrupted by ours.
    if (this.#req?.complete === false && this.#res?.headersSent === false) writeRaw(this.socket, 400);
    else this.socket.end();
  };

  readonly #closed = (): void => {
    const res = this.#res;
    this.#state = "closing";
    this.#req = undefined;
    this.#res = undefined;
    this.#behind = undefined;
    res?.lost();
    this.#ends.gone();
  };

  readonly #drained = (): void => this.#res?.drained();

  readonly #failed = (): void => {
    this.socket.destroy();
  };
}

/** A place for the body with its first bytes. */
function placeOf(length: number, from: number, came: number): Buffer {
  const place = Buffer.allocUnsafe(roomFor(length, came));
  RECEIVED.copy(place, 0, from, from + came);
  return place;
}

function joined(before: Buffer | undefined, more: Buffer): Buffer {
  return before === undefined ? Buffer.from(more) : Buffer.concat([before, more]);
}
