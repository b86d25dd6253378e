/**
 * Answers' heads as bytes, as node:http would write them (RFC 9112, 4 and 5; RFC 9110, 6.6.1).
 *
 * Invariant: a character that could end a header's line, or is none of one byte, is in no head: nothing of it is written
 * then. Private to the writers: _answer.ts and _plain-answer.ts.
 */
import type { Socket } from "node:net";
import { SHARED_MOST, slab } from "./_slab.ts";

/** Not imported, as in listener.ts. */
const { STATUS_CODES } = process.getBuiltinModule("node:http");

export interface AnswerHead {
  readonly status: number;
  /** Name and value in turn; nothing about the connection. */
  readonly headers: readonly string[];
  /** How long the connection may be idle behind the answer, as the client is told; undefined: it ends. */
  readonly keptMs: number | undefined;
  /** The body comes in chunks. */
  readonly chunked?: true;
}

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const COLON = 0x3a;
const DEL = 0x7f;
const LAST = 0xff;
/** Status line and end of head are short. */
const AROUND = 256;
const CHUNKED = Buffer.from("Transfer-Encoding: chunked\r\n");

/**
 * Head and body in one write.
 * @param body not kept
 * @returns false: it is too long for that, and nothing is written. @throws Error a header that is none
 */
export function writeWhole(socket: Socket, head: AnswerHead, body: Uint8Array): boolean {
  const most = mostOf(head) + body.length;
  if (most > SHARED_MOST) return false;
  const start = slab.room(most);
  const at = put(slab.bytes, start, head);
  slab.bytes.set(body, at);
  slab.write(socket, start, at + body.length);
  return true;
}

/** @throws Error a header that is none */
export function headBytes(head: AnswerHead): Buffer {
  const bytes = Buffer.allocUnsafeSlow(mostOf(head));
  return bytes.subarray(0, put(bytes, 0, head));
}

function mostOf({ headers }: AnswerHead): number {
  let most = AROUND;
  // A colon and a space, or a line's end, behind each.
  for (const text of headers) most += text.length + 2;
  return most;
}

/** @returns where it ends. @throws Error */
function put(target: Buffer, start: number, { status, headers, keptMs, chunked }: AnswerHead): number {
  const first = statusLine(status);
  target.set(first, start);
  let at = start + first.length;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    at = putText(target, at, headers[i] as string);
    target[at++] = COLON;
    target[at++] = SPACE;
    at = putText(target, at, headers[i + 1] as string);
    target[at++] = CR;
    target[at++] = LF;
  }
  const last = endOfHead(keptMs);
  if (chunked !== true) {
    target.set(last, at);
    return at + last.length;
  }
  // Behind what is said of the connection, where node:http says it.
  target.set(last.subarray(0, -2), at);
  at += last.length - 2;
  target.set(CHUNKED, at);
  at += CHUNKED.length;
  target[at++] = CR;
  target[at++] = LF;
  return at;
}

/** @returns where it ends. @throws Error */
function putText(target: Buffer, start: number, text: string): number {
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

interface Told {
  readonly second: number;
  readonly keptMs: number | undefined;
  readonly bytes: Buffer;
}

let told: Told = { second: 0, keptMs: 0, bytes: Buffer.alloc(0) };

/** The date, which is the same for a second, whether the connection is kept, and the empty line. */
function endOfHead(keptMs: number | undefined): Buffer {
  const second = Math.floor(Date.now() / 1000);
  if (told.second === second && told.keptMs === keptMs) return told.bytes;
  const date = `Date: ${new Date(second * 1000).toUTCString()}\r\n`;
  const kept = keptMs === undefined ? "Connection: close\r\n" : keepAlive(keptMs);
  told = { second, keptMs, bytes: Buffer.from(`${date}${kept}\r\n`, "latin1") };
  return told.bytes;
}

function keepAlive(keptMs: number): string {
  const seconds = keptMs > 0 ? `Keep-Alive: timeout=${Math.floor(keptMs / 1000)}\r\n` : "";
  return `Connection: keep-alive\r\n${seconds}`;
}
