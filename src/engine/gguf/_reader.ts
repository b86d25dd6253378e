/**
 * Reads little-endian values from a file descriptor in bounded pieces, never the whole file: models are large.
 *
 * Invariant: no length read from the file is believed before it is compared with what the file can still hold.
 */
import { readSync } from "node:fs";
import { GgufError } from "./errors.ts";

const CHUNK = 1 << 20;
const decoder = new TextDecoder("utf-8");

export class FileReader {
  private readonly fd: number;
  readonly size: number;
  private buffer = Buffer.alloc(0);
  /** The buffer as text, where that was asked for. */
  private latin: string | undefined;
  /** File offset of the buffer's first byte. */
  private base = 0;
  private at = 0;

  constructor(fd: number, size: number) {
    this.fd = fd;
    this.size = size;
  }

  get offset(): number {
    return this.base + this.at;
  }

  private need(bytes: number): void {
    if (this.at + bytes <= this.buffer.length) return;
    if (this.offset + bytes > this.size)
      throw new GgufError("truncated", "the file ends in the middle of its header: it is truncated");
    this.base = this.offset;
    this.at = 0;
    const wanted = Math.min(Math.max(CHUNK, bytes), this.size - this.base);
    const buffer = Buffer.allocUnsafe(wanted);
    let filled = 0;
    while (filled < wanted) {
      const got = readSync(this.fd, buffer, filled, wanted - filled, this.base + filled);
      if (got === 0) break;
      filled += got;
    }
    this.buffer = buffer.subarray(0, filled);
    this.latin = undefined;
    if (filled < bytes) throw new GgufError("truncated", "the file became shorter while it was read");
  }

  u8(): number {
    this.need(1);
    return this.buffer[this.at++] as number;
  }

  number(bytes: number, read: (buffer: Buffer, at: number) => number): number {
    this.need(bytes);
    const value = read(this.buffer, this.at);
    this.at += bytes;
    return value;
  }

  u32(): number {
    this.need(4);
    this.at += 4;
    return this.buffer.readUInt32LE(this.at - 4);
  }

  /** A 64-bit count or length. @throws GgufError malformed beyond 2^53 */
  u64(): number {
    this.need(8);
    // In two halves: a header has a length for each token, and big integers are slow.
    const value = this.buffer.readUInt32LE(this.at) + this.buffer.readUInt32LE(this.at + 4) * 2 ** 32;
    this.at += 8;
    if (!Number.isSafeInteger(value)) throw new GgufError("malformed", "a count in the header is absurd");
    return value;
  }

  text(limit: number): string {
    const length = this.length(limit);
    this.need(length);
    const value = decoder.decode(this.buffer.subarray(this.at, this.at + length));
    this.at += length;
    return value;
  }

  /** A text as it is, a character a byte. */
  bytes(limit: number): string {
    const length = this.length(limit);
    this.need(length);
    this.at += length;
    // Once for the whole buffer: a call for each of a vocabulary's texts takes longer than all of them.
    this.latin ??= this.buffer.toString("latin1");
    return this.latin.slice(this.at - length, this.at);
  }

  skipText(limit: number): void {
    this.skip(this.length(limit));
  }

  private length(limit: number): number {
    const length = this.u64();
    if (length > this.size - this.offset)
      throw new GgufError("truncated", "a text in the header is longer than the rest of the file");
    if (length > limit) throw new GgufError("malformed", "a text in the header is longer than any model needs");
    return length;
  }

  skip(bytes: number): void {
    if (this.offset + bytes > this.size)
      throw new GgufError("truncated", "the file ends in the middle of its header: it is truncated");
    if (this.at + bytes <= this.buffer.length) this.at += bytes;
    else {
      this.base = this.offset + bytes;
      this.buffer = Buffer.alloc(0);
      this.latin = undefined;
      this.at = 0;
    }
  }
}
