/**
 * A batch's input, line by line, in bounded memory. Blank lines are none, as in vLLM.
 */
import { createReadStream } from "node:fs";

export interface InputLine {
  /** From 1, blank lines counted: what an editor shows. */
  readonly number: number;
  /** Without its end; undefined: longer than what is taken. */
  readonly text: Uint8Array | undefined;
  /** Where the next one begins. */
  readonly end: number;
}

const LINE_FEED = 0x0a;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** @param maxBytes of a line. @throws the system's error, with its code */
export async function* readLines(path: string, maxBytes: number): AsyncGenerator<InputLine> {
  let number = 0;
  let end = 0;
  let parts: Buffer[] = [];
  let size = 0;
  const take = (): InputLine | undefined => {
    number++;
    const text = size > maxBytes ? undefined : withoutMark(Buffer.concat(parts, size), number);
    const blank = size <= maxBytes && (text === undefined || isBlank(text));
    parts = [];
    size = 0;
    return blank ? undefined : { number, text, end };
  };
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let from = 0;
    for (let at = chunk.indexOf(LINE_FEED); at >= 0; at = chunk.indexOf(LINE_FEED, from)) {
      if (size <= maxBytes) parts.push(chunk.subarray(from, at));
      size += at - from;
      end += at + 1 - from;
      from = at + 1;
      const line = take();
      if (line !== undefined) yield line;
    }
    // A line that is too long already is not kept any more.
    if (size <= maxBytes) parts.push(chunk.subarray(from));
    size += chunk.length - from;
    end += chunk.length - from;
  }
  const last = take();
  if (last !== undefined) yield last;
}

function withoutMark(text: Buffer, number: number): Buffer {
  return number === 1 && text.subarray(0, 3).equals(BYTE_ORDER_MARK) ? text.subarray(3) : text;
}

function isBlank(text: Buffer): boolean {
  for (const byte of text) if (byte !== 0x20 && (byte < 0x09 || byte > 0x0d)) return false;
  return true;
}

/** Those behind the first so many. */
export async function* behind(lines: AsyncIterable<InputLine>, skipped: number): AsyncGenerator<InputLine> {
  let at = 0;
  for await (const line of lines) if (at++ >= skipped) yield line;
}
