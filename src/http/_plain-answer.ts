/**
 * The answer to a plain request: of ServerResponse what the corridor uses, on the connection itself.
 *
 * Invariants: heads and pieces say what node:http would write, and byte for byte where the connection is kept; nothing is written behind the end; the
 * connection has its next request when the kernel has all of this answer, and ends behind it where the head says so.
 * Private to http; made by _plain-connection.ts.
 */
import type { Socket } from "node:net";
import { writeChunk } from "./_chunks.ts";
import { headBytes, writeWhole } from "./_head-bytes.ts";
import type { PlainRequest } from "./_plain-request.ts";

/** The connection that it is the answer on. */
export interface Answering {
  readonly socket: Socket;
  /** Once, when the kernel has it. */
  answered(keeps: boolean): void;
}

type Event = "close" | "drain" | "error" | "finish";

const LAST_CHUNK = "0\r\n\r\n";
const NOTHING = "";

export class PlainAnswer {
  readonly req: PlainRequest;
  statusCode = 200;
  headersSent = false;
  /** Whether the connection goes on behind it. */
  shouldKeepAlive = true;
  chunkedEncoding = false;
  writableEnded = false;
  /** The kernel has it. */
  writableFinished = false;
  destroyed = false;
  closed = false;
  readonly #keptMs: number;
  #on: Answering | undefined;
  /** Made, and not written yet. */
  #head: Buffer | undefined;
  #bodiless = false;
  #close: (() => void)[] | undefined;
  #drain: (() => void)[] | undefined;
  #finish: (() => void)[] | undefined;

  /** @param keptMs how long the connection may be idle behind it */
  constructor(req: PlainRequest, on: Answering, keptMs: number) {
    this.req = req;
    this.#on = on;
    this.#keptMs = keptMs;
  }

  get socket(): Socket | null {
    return this.#on?.socket ?? null;
  }

  get writableLength(): number {
    return this.#on?.socket.writableLength ?? 0;
  }

  get writableNeedDrain(): boolean {
    return this.#on?.socket.writableNeedDrain ?? false;
  }

  /** An error of the connection shows as its close. */
  on(event: Event, run: () => void): this {
    if (event === "close") this.#close = added(this.#close, run);
    else if (event === "drain") this.#drain = added(this.#drain, run);
    else if (event === "finish") this.#finish = added(this.#finish, run);
    return this;
  }

  /** Each of them comes once, but for `drain`, of which nobody wants just one. */
  once(event: Exclude<Event, "drain">, run: () => void): this {
    return this.on(event, run);
  }

  /** As of _answer.ts. */
  whole(status: number, headers: readonly string[], body: Uint8Array, keptMs: number): boolean {
    const { socket } = this;
    if (socket === null || !this.shouldKeepAlive || this.headersSent || this.destroyed || isBodiless(status))
      return false;
    if (!writeWhole(socket, { status, headers, keptMs }, body)) return false;
    this.statusCode = status;
    this.headersSent = true;
    this.#ended(socket);
    return true;
  }

  /**
   * It goes out with what follows.
   * @param headers name and value in turn; of the connection at most that it closes
   * @throws Error a header that is none
   */
  writeHead(status: number, headers: readonly string[]): void {
    const about: string[] = [];
    let counted = false;
    for (let at = 0; at + 1 < headers.length; at += 2) {
      const [name, value] = [headers[at] as string, headers[at + 1] as string];
      if (name === "connection") this.shouldKeepAlive = false;
      else about.push(name, value);
      if (name === "content-length") counted = true;
    }
    this.#bodiless = isBodiless(status);
    this.chunkedEncoding = !counted && !this.#bodiless;
    const keptMs = this.shouldKeepAlive ? this.#keptMs : undefined;
    this.#head = headBytes({ status, headers: about, keptMs, ...(this.chunkedEncoding ? { chunked: true } : {}) });
    this.statusCode = status;
    this.headersSent = true;
  }

  /** @returns whether the client keeps up */
  write(chunk: string | Uint8Array): boolean {
    const { socket } = this;
    if (socket === null || this.destroyed || this.writableEnded) return false;
    const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    const head = this.#head;
    this.#head = undefined;
    if (head !== undefined) socket.cork();
    let ready = head === undefined || socket.write(head);
    if (bytes.length > 0 && !this.#bodiless)
      ready = this.chunkedEncoding ? writeChunk(socket, bytes) : socket.write(bytes);
    if (head !== undefined) socket.uncork();
    return ready;
  }

  /** @param chunk its last bytes; a text has bytes for characters */
  end(chunk: string | Uint8Array = NOTHING, _encoding: "latin1" = "latin1"): void {
    const { socket } = this;
    if (socket === null || this.destroyed || this.writableEnded) return;
    socket.cork();
    this.write(typeof chunk === "string" ? Buffer.from(chunk, "latin1") : chunk);
    if (this.chunkedEncoding) socket.write(LAST_CHUNK, "latin1");
    socket.uncork();
    this.#ended(socket);
  }

  /** Cuts the connection. */
  destroy(): void {
    this.destroyed = true;
    this.#on?.socket.destroy();
  }

  /** The connection has room again. */
  drained(): void {
    for (const run of this.#drain ?? []) run();
  }

  /** The connection is gone. */
  lost(): void {
    this.destroyed = true;
    this.#shut();
  }

  #ended(socket: Socket): void {
    this.writableEnded = true;
    if (socket.writableLength === 0) this.#finished();
    else socket.write(NOTHING, "latin1", () => this.#finished());
  }

  #finished(): void {
    if (this.closed || this.#on?.socket.destroyed === true) return;
    this.writableFinished = true;
    for (const run of this.#finish ?? []) run();
    this.#on?.answered(this.shouldKeepAlive);
    this.#shut();
  }

  /** It keeps nobody from then on, also if it has grown old itself (docs/decisions/0027-gateway.md). */
  #shut(): void {
    if (this.closed) return;
    this.closed = true;
    const listeners = this.#close ?? [];
    this.#on = undefined;
    this.#close = undefined;
    this.#drain = undefined;
    this.#finish = undefined;
    this.req.release();
    for (const run of listeners) run();
  }
}

function added<T>(list: T[] | undefined, one: T): T[] {
  if (list === undefined) return [one];
  list.push(one);
  return list;
}

function isBodiless(status: number): boolean {
  return status < 200 || status === 204 || status === 304;
}
