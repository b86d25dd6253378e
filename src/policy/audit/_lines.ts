/**
 * The lines of a log's files, forwards in pieces and backwards from the end, as bytes.
 *
 * Invariant: memory is bounded by a piece and the longest line that is ours; a longer one comes cut, so that it reads
 * as no record. Callers: verification, reading.
 */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { MAX_LINE } from "./record.ts";

const PIECE = 1 << 18;
const LINE_FEED = 0x0a;

export interface Line {
  readonly bytes: Buffer;
  /** Of its first byte in the file. */
  readonly offset: number;
  /** It ends with a line feed; false: the file ends in it. */
  readonly whole: boolean;
}

/** From `from` (the beginning of a line) up to byte `size`, in groups of lines. */
export async function* linesForward(path: string, from: number, size: number): AsyncGenerator<readonly Line[]> {
  const file = await openForReading(path);
  try {
    let rest: Buffer = Buffer.alloc(0);
    let restAt = from;
    let dropped = 0;
    for (let at = from; at < size; ) {
      const piece = await readAt(file, at, Math.min(PIECE, size - at));
      if (piece.length === 0) break;
      at += piece.length;
      const lines: Line[] = [];
      let bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
      for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED)) {
        lines.push({ bytes: bytes.subarray(0, end), offset: restAt, whole: true });
        bytes = bytes.subarray(end + 1);
        restAt += dropped + end + 1;
        dropped = 0;
      }
      // What is longer than a line can be is told once, and its end looked for without being kept.
      if (bytes.length > MAX_LINE + 1) {
        dropped += bytes.length - MAX_LINE - 1;
        bytes = bytes.subarray(0, MAX_LINE + 1);
      }
      rest = bytes;
      if (lines.length > 0) yield lines;
    }
    if (rest.length > 0) yield [{ bytes: rest, offset: restAt, whole: false }];
  } finally {
    await file.close();
  }
}

/** From byte `size` to the beginning; what stands behind the last line feed is left out. */
export async function* linesBackward(path: string, size: number): AsyncGenerator<Buffer> {
  const file = await openForReading(path);
  try {
    let tail: Buffer = Buffer.alloc(0);
    let seenEnd = false;
    for (let at = size; at > 0; ) {
      const length = Math.min(PIECE, at);
      at -= length;
      let bytes: Buffer = Buffer.concat([await readAt(file, at, length), tail]);
      for (let end = bytes.lastIndexOf(LINE_FEED); end >= 0; end = bytes.lastIndexOf(LINE_FEED)) {
        if (seenEnd) yield bytes.subarray(end + 1);
        seenEnd = true;
        bytes = bytes.subarray(0, end);
      }
      tail = bytes.length > MAX_LINE ? bytes.subarray(-MAX_LINE) : bytes;
    }
    if (seenEnd && tail.length > 0) yield tail;
  } finally {
    await file.close();
  }
}

function openForReading(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0));
}

async function readAt(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, at + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}
