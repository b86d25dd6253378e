/**
 * An answer that goes out whole, head and body in one write, where the connection goes on behind it.
 *
 * Why not writeHead and end: they make a text of the head, piece by piece, check each, and another text of head and body;
 * here both are bytes in a place that is there already. Only what is plain is written here: HTTP/1.1, a body, a connection
 * that is kept; everything else is node:http's, which also keeps its books of every answer. Invariant: a character that
 * could end a header's line, or is none of one byte, is in no head (as of node:http's). Callers: listener.ts makes the
 * server with it, _exchange.ts writes.
 */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { SHARED_MOST, slab } from "./_slab.ts";

/** Not imported, as in listener.ts. */
const { STATUS_CODES, ServerResponse } = process.getBuiltinModule("node:http");

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const COLON = 0x3a;
const DEL = 0x7f;
const LAST = 0xff;

export class Answer<R extends IncomingMessage = IncomingMessage> extends ServerResponse<R> {
  /** As node:http knows that a head is made, and gone. */
  declare _header: string | null;
  declare _headerSent: boolean;

  /**
   * @param headers name and value in turn, the body's length among them; nothing about the connection
   * @param body not kept
   * @param keptMs how long the connection may be idle, as the client is told
   * @returns false: it is none of those; nothing is written
   * @throws Error a header that is none; nothing is written
   */
  whole(status: number, headers: readonly string[], body: Uint8Array, keptMs: number): boolean {
    const { socket } = this;
    if (socket === null || !this.#isPlain(status)) return false;
    const most = mostOf(headers) + body.length;
    if (most > SHARED_MOST) return false;
    write(socket, most, statusLine(status), headers, endOfHead(keptMs), body);
    this.statusCode = status;
    this._header = "sent";
    this._headerSent = true;
    this.end();
    return true;
  }

  #isPlain(status: number): boolean {
    const { method, httpVersion } = this.req;
    return (
      this.shouldKeepAlive &&
      !this.headersSent &&
      !this.destroyed &&
      httpVersion === "1.1" &&
      method !== "HEAD" &&
      status >= 200 &&
      status !== 204 &&
      status !== 304
    );
  }
}

/** Status line and end of head are short. */
const AROUND = 256;

function mostOf(headers: readonly string[]): number {
  let most = AROUND;
  // A colon and a space, or a line's end, behind each.
  for (const text of headers) most += text.length + 2;
  return most;
}

function write(
  socket: Socket,
  most: number,
  first: Buffer,
  headers: readonly string[],
  last: Buffer,
  body: Uint8Array,
): void {
  const start = slab.room(most);
  const target = slab.bytes;
  target.set(first, start);
  let at = start + first.length;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    at = put(target, at, headers[i] as string);
    target[at++] = COLON;
    target[at++] = SPACE;
    at = put(target, at, headers[i + 1] as string);
    target[at++] = CR;
    target[at++] = LF;
  }
  target.set(last, at);
  at += last.length;
  target.set(body, at);
  slab.write(socket, start, at + body.length);
}

/** @returns where it ends. @throws Error */
function put(target: Buffer, start: number, text: string): number {
  let at = start;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if ((c < SPACE && c !== TAB) || c === DEL || c > LAST) throw new Error("a header of an answer is none");
    target[at++] = c;
  }
  return at;
}

const statusLines = new Map<number, Buffer>();

function statusLine(status: number): Buffer {
  let line = statusLines.get(status);
  if (line === undefined) {
    line = Buffer.from(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "unknown"}\r\n`, "latin1");
    statusLines.set(status, line);
  }
  return line;
}

let told = { second: 0, keptMs: 0, bytes: Buffer.alloc(0) };

/** The date, which is the same for a second, that the connection is kept, and the empty line. */
function endOfHead(keptMs: number): Buffer {
  const second = Math.floor(Date.now() / 1000);
  if (told.second === second && told.keptMs === keptMs) return told.bytes;
  const date = `Date: ${new Date(second * 1000).toUTCString()}\r\nConnection: keep-alive\r\n`;
  const kept = keptMs > 0 ? `Keep-Alive: timeout=${Math.floor(keptMs / 1000)}\r\n` : "";
  told = { second, keptMs, bytes: Buffer.from(`${date}${kept}\r\n`, "latin1") };
  return told.bytes;
}
