/**
 * Reads answers off a connection, one after another, as their bytes come.
 *
 * Invariants (Wall: T120): heads, sizes and what follows the last chunk are bounded; behind a byte that is wrong nothing is
 * looked at, and what came before it has been told. The bytes of one read come out as one piece: those of its chunks
 * are moved together, so whoever gives them gives them to be changed. A head that arrived in one read is read where it
 * lies.
 * Why a reader of our own: docs/decisions/0027-gateway.md. Callers: _connection.ts.
 */
import { type AnswerHead, type AnswerHeaders, readFields, readHead } from "./_head.ts";

export interface AnswerSink {
  /** Of the answer itself, never of one before it. */
  head(status: number, headers: AnswerHeaders): void;
  /** @param bytes good until it returns */
  data(bytes: Uint8Array): void;
}

type State =
  | "head"
  | "counted"
  | "size"
  | "extension"
  | "size end"
  | "chunk"
  | "chunk return"
  | "chunk end"
  | "trailer"
  | "done";

const MAX_HEAD_BYTES = 16 * 1024;
/** Those of one chunk. They say nothing to anybody here, and are read only to find their end. */
const MAX_EXTENSION = 256;
const EXTENSION =
  /^(?:;[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"))?)+$/;
const MAX_SIZE_DIGITS = 8;
const CR = 0x0d;
const LF = 0x0a;
const SWITCHING = 101;
const SEMICOLON = 0x3b;
const LINE_END = Buffer.from("\r\n");
const HEAD_END = Buffer.from("\r\n\r\n");
const START = "HTTP/1.";
const EMPTY = Buffer.alloc(0);

export class AnswerReader {
  /** What is wrong, as a word for the log: no more can be read. */
  problem: string | undefined;
  /** Of the answer whose head was told. */
  head: AnswerHead | undefined;
  readonly #sink: AnswerSink;
  #state: State = "head";
  /** Of the counted body, or of the chunk. */
  #left = 0;
  /** Digits of the chunk's size. */
  #digits = 0;
  #extension = "";
  /** Lines before a blank one that are not all there. */
  #held: Buffer = EMPTY;
  /** The piece that is being put together. */
  #from = 0;
  #to = 0;

  constructor(sink: AnswerSink) {
    this.#sink = sink;
  }

  /** What comes is another answer. */
  begin(): void {
    this.problem = undefined;
    this.head = undefined;
    this.#state = "head";
    this.#left = 0;
    this.#digits = 0;
    this.#held = EMPTY;
  }

  /** The answer is whole. */
  get done(): boolean {
    return this.#state === "done";
  }

  /** @returns how many bytes were looked at: all of them, unless there is a problem or the answer ends before */
  read(bytes: Buffer, length: number): number {
    this.#from = 0;
    this.#to = 0;
    let at = this.#state === "size" && this.#digits === 0 ? this.#oneChunk(bytes, length) : 0;
    while (at < length && this.problem === undefined && this.#state !== "done") at = this.#step(bytes, at, length);
    if (this.#to > this.#from) this.#sink.data(bytes.subarray(this.#from, this.#to));
    return at;
  }

  /**
   * A chunk and nothing else, as an event of a stream nearly always comes: it is taken without a step for each byte
   * around it.
   * @returns where it ends, which is where the read does; 0: it is something else, and nothing was looked at
   */
  #oneChunk(bytes: Buffer, length: number): number {
    let size = 0;
    let at = 0;
    for (; at < MAX_SIZE_DIGITS; at++) {
      const digit = digitOf(bytes[at] ?? 0);
      if (digit < 0) break;
      size = size * 16 + digit;
    }
    if (at === 0 || size === 0 || at + size + 2 * LINE_END.length !== length) return 0;
    if (!endsLine(bytes, at) || !endsLine(bytes, length - LINE_END.length)) return 0;
    this.#from = at + LINE_END.length;
    this.#to = this.#from + size;
    return length;
  }

  #step(bytes: Buffer, at: number, length: number): number {
    switch (this.#state) {
      case "chunk":
      case "counted":
        return this.#content(bytes, at, length);
      case "head":
      case "trailer":
        return this.#lines(bytes, at, length);
      default:
        this.#around(bytes[at] ?? 0);
        return at + 1;
    }
  }

  #content(bytes: Buffer, at: number, length: number): number {
    const n = Math.min(this.#left, length - at);
    if (this.#to === this.#from) {
      this.#from = at;
      this.#to = at + n;
    } else {
      bytes.copyWithin(this.#to, at, at + n);
      this.#to += n;
    }
    this.#left -= n;
    if (this.#left === 0) this.#state = this.#state === "chunk" ? "chunk return" : "done";
    return at + n;
  }

  /** A byte of what stands around chunks. */
  #around(byte: number): void {
    switch (this.#state) {
      case "size":
        this.#size(byte);
        break;
      case "extension":
        this.#extend(byte);
        break;
      case "size end":
        this.#expect(byte, LF, this.#left === 0 ? "trailer" : "chunk");
        // So that a blank line, which may come at once, is one as behind a head.
        if (this.#left === 0) this.#held = LINE_END;
        break;
      case "chunk return":
        this.#expect(byte, CR, "chunk end");
        break;
      default:
        this.#expect(byte, LF, "size");
        this.#digits = 0;
    }
  }

  #size(byte: number): void {
    const digit = digitOf(byte);
    if (digit >= 0 && this.#digits < MAX_SIZE_DIGITS) {
      this.#left = this.#left * 16 + digit;
      this.#digits++;
    } else if (this.#digits > 0 && byte === CR) this.#state = "size end";
    else if (this.#digits > 0 && byte === SEMICOLON) {
      this.#state = "extension";
      this.#extension = ";";
    } else this.problem = "chunk size";
  }

  #extend(byte: number): void {
    if (byte !== CR) this.#extension += String.fromCharCode(byte);
    if (this.#extension.length > MAX_EXTENSION || (byte === CR && !EXTENSION.test(this.#extension)))
      this.problem = "chunk extension";
    else if (byte === CR) this.#state = "size end";
  }

  #expect(byte: number, wanted: number, next: State): void {
    if (byte === wanted) this.#state = next;
    else this.problem = "chunk end";
  }

  /** A head, or what follows the last chunk: looked at when all of it is there. */
  #lines(bytes: Buffer, at: number, length: number): number {
    const before = this.#held.length;
    const to = Math.min(length, at + MAX_HEAD_BYTES);
    if (before === 0) return this.#block(bytes, at, to, 0) ?? length;
    const all = Buffer.concat([this.#held, bytes.subarray(at, to)]);
    const behind = this.#block(all, 0, all.length, before);
    return behind === undefined ? length : at + behind - before;
  }

  /** @param before bytes of it that were looked at. @returns the place behind it; undefined: not all of it is there */
  #block(bytes: Buffer, from: number, to: number, before: number): number | undefined {
    const found = bytes.indexOf(HEAD_END, from + Math.max(0, before - HEAD_END.length));
    // Behind what was read lies what was read before it.
    const end = found >= 0 && found + HEAD_END.length <= to ? found : undefined;
    const size = (end === undefined ? to : end + HEAD_END.length) - from;
    if (this.#state === "head" && !startsWell(bytes, from, to)) this.problem = "status line";
    else if (size > MAX_HEAD_BYTES || (end === undefined && size === MAX_HEAD_BYTES)) this.problem = "head size";
    else if (end !== undefined) this.#readBlock(bytes, from, end);
    else if (hasBareFeed(bytes, from + before, to)) this.problem = "line end";
    this.#held = end === undefined ? (before === 0 ? Buffer.from(bytes.subarray(from, to)) : bytes) : EMPTY;
    return end === undefined ? undefined : end + HEAD_END.length;
  }

  #readBlock(bytes: Buffer, from: number, end: number): void {
    if (this.#state === "head") this.#readHead(readHead(bytes, from, end));
    else if (readFields(bytes, from + LINE_END.length, end) !== undefined) this.problem = "trailer";
    else this.#state = "done";
  }

  #readHead(head: AnswerHead | string): void {
    if (typeof head === "string") {
      this.problem = head;
      return;
    }
    if (head.status === SWITCHING) this.problem = "another protocol";
    if (head.status < 200) return;
    this.head = head;
    const { length } = head;
    this.#left = typeof length === "number" ? length : 0;
    if (length === "chunked") this.#state = "size";
    else this.#state = this.#left === 0 ? "done" : "counted";
    this.#sink.head(head.status, head.headers);
  }
}

function startsWell(bytes: Buffer, from: number, to: number): boolean {
  const n = Math.min(to - from, START.length);
  for (let at = 0; at < n; at++) if (bytes[from + at] !== START.charCodeAt(at)) return false;
  return true;
}

/** A line feed that no carriage return precedes. */
function hasBareFeed(bytes: Buffer, from: number, to: number): boolean {
  for (let at = bytes.indexOf(LF, from); at >= 0 && at < to; at = bytes.indexOf(LF, at + 1))
    if (bytes[at - 1] !== CR) return true;
  return false;
}

function endsLine(bytes: Buffer, at: number): boolean {
  return bytes[at] === CR && bytes[at + 1] === LF;
}

/** -1: it is none. */
function digitOf(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const small = byte | 0x20;
  return small >= 0x61 && small <= 0x66 ? small - 0x61 + 10 : -1;
}
