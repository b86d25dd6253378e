/**
 * A conversation in messages of text, over a WebSocket (RFC 6455): what http has from a client and egress from an
 * upstream, and what serving works with.
 *
 * Invariants: messages are pulled, and while nobody pulls the other side is not read, so that at most what one read
 * brought waits here; `send` resolves when the bytes have left, so that who waits for it never runs ahead of a slow
 * reader; one that takes nothing, or answers no ping, is cut; nothing throws because the other side is gone. The
 * frames are the library's (ws), whose socket comes in here already open. Made by http/_channel.ts and
 * egress/upstream/channel.ts.
 */

/** What of ws' WebSocket is used. */
export interface ChannelSocket {
  readonly readyState: number;
  on(event: "message", run: (data: unknown, isBinary: boolean) => void): unknown;
  on(event: "close" | "pong", run: () => void): unknown;
  on(event: "error", run: (error: Error) => void): unknown;
  send(text: string, done: (error?: Error) => void): void;
  ping(): void;
  pause(): void;
  resume(): void;
  close(code: number, reason: string): void;
  terminate(): void;
}

export interface ChannelOptions {
  /** A message that is not taken for so long ends the channel; milliseconds. */
  readonly stallMs: number;
  /** Pings come this often; one without an answer until the next ends the channel. */
  readonly pingMs: number;
  /** Sees what is said. */
  readonly seen?: (from: "them" | "us", text: string) => void;
}

/** The other side broke the protocol; it has been told by a close code. */
export class ChannelError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "ChannelError";
  }
}

/** RFC 6455, 7.4.1. */
export const CLOSED = {
  normal: 1000,
  goingAway: 1001,
  unsupported: 1003,
  policy: 1008,
  internal: 1011,
} as const;

const OPEN = 1;
/** What fits into a close frame behind its code. */
const REASON_BYTES = 123;

export class Channel {
  readonly #socket: ChannelSocket;
  readonly #options: ChannelOptions;
  readonly #waiting: string[] = [];
  #receiver: { resolve(text: string | undefined): void; reject(error: Error): void } | undefined;
  #error: Error | undefined;
  #closed = false;
  #paused = false;
  #answered = true;
  /** Who waits until what was sent has left. */
  readonly #sending = new Set<() => void>();
  readonly #pings: NodeJS.Timeout;
  readonly #end = Promise.withResolvers<void>();

  constructor(socket: ChannelSocket, options: ChannelOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#pings = setInterval(() => this.#ping(), options.pingMs);
    this.#pings.unref();
    socket.on("message", (data, isBinary) => this.#took(data, isBinary));
    socket.on("pong", () => {
      this.#answered = true;
    });
    socket.on("error", ({ message }) => this.#failed(new ChannelError(message)));
    socket.on("close", () => this.#over());
  }

  /** The connection is gone. */
  get ended(): Promise<void> {
    return this.#end.promise;
  }

  /**
   * The next message, in order; one caller at a time. Undefined: there will be none.
   * @throws ChannelError; what it was interrupted with
   */
  receive(): Promise<string | undefined> {
    const text = this.#waiting.shift();
    if (text !== undefined) return Promise.resolve(text);
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.#closed) return Promise.resolve(undefined);
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
    this.#receiver = { resolve, reject };
    this.#read();
    return promise;
  }

  /** Whoever receives gets this in place of what may still come. */
  interrupt(error: Error): void {
    this.#failed(error);
  }

  /** Resolves when it has left, or never will. */
  send(text: string): Promise<void> {
    if (this.#socket.readyState !== OPEN) return Promise.resolve();
    this.#options.seen?.("us", text);
    return new Promise((resolve) => {
      const stalled = setTimeout(() => this.cut(), this.#options.stallMs);
      const over = (): void => {
        clearTimeout(stalled);
        this.#sending.delete(over);
        resolve();
      };
      this.#sending.add(over);
      this.#socket.send(text, over);
    });
  }

  /** No more is said; what the other side still says is dropped. @param reason for people; what is too long is left off */
  close(code: number, reason = ""): void {
    this.#closed = true;
    this.#waiting.length = 0;
    this.#socket.close(code, cutTo(reason, REASON_BYTES));
    // Its close frame comes behind whatever it has sent.
    this.#read();
    this.#wake();
  }

  /** At once, with nothing more said. */
  cut(): void {
    this.#socket.terminate();
  }

  #took(data: unknown, isBinary: boolean): void {
    this.#answered = true;
    if (this.#closed) return;
    if (isBinary) {
      this.#socket.close(CLOSED.unsupported, "text only");
      this.#failed(new ChannelError("a message that is not text"));
      return;
    }
    const text = String(data);
    this.#options.seen?.("them", text);
    const receiver = this.#receiver;
    this.#receiver = undefined;
    if (receiver !== undefined) receiver.resolve(text);
    else this.#waiting.push(text);
    this.#paused = true;
    this.#socket.pause();
  }

  #read(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }

  #ping(): void {
    // Not read, it cannot have answered.
    if (this.#paused || this.#socket.readyState !== OPEN) return;
    if (!this.#answered) {
      this.cut();
      return;
    }
    this.#answered = false;
    this.#socket.ping();
  }

  #failed(error: Error): void {
    this.#error ??= error;
    this.#wake();
  }

  #over(): void {
    this.#closed = true;
    clearInterval(this.#pings);
    for (const over of [...this.#sending]) over();
    this.#end.resolve();
    this.#wake();
  }

  #wake(): void {
    const receiver = this.#receiver;
    this.#receiver = undefined;
    if (this.#error !== undefined) receiver?.reject(this.#error);
    else receiver?.resolve(undefined);
  }
}

/** Whole characters. */
function cutTo(text: string, bytes: number): string {
  let cut = text;
  while (Buffer.byteLength(cut) > bytes) cut = cut.slice(0, -1);
  return cut.isWellFormed() ? cut : cut.slice(0, -1);
}
