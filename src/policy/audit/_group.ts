/**
 * Lines on their way to a file of the log: chained, numbered and as bytes.
 *
 * Invariant: their bytes are one commit's alone, as there is one at a time. Caller: _writer.ts.
 */
import type { Position } from "./_position.ts";
import { hashOf, line } from "./record.ts";

const FEED = 0x0a;
/** Bytes that are kept for every group; one that needs more has its own. */
const KEPT_BYTES = 1 << 18;
/** Of a UTF-16 code unit in UTF-8, at most. */
const WIDEST = 3;
/** Characters that stand in a line besides its body: number and hash. */
const AROUND = 120;

export class Group {
  seq = 0;
  hash = "";
  /** Made once: what threads share is given back when the last of them has collected its view of it. */
  readonly #kept = Buffer.from(new SharedArrayBuffer(KEPT_BYTES));
  #bytes: Buffer = this.#kept;
  #size = 0;

  begin({ seq, hash }: Position): void {
    this.seq = seq;
    this.hash = hash;
    this.#size = 0;
    this.#bytes = this.#kept;
  }

  add(text: string): void {
    const full = line(this.seq + 1, this.hash, text);
    const most = this.#size + full.length * WIDEST + 1;
    if (most > this.#bytes.length) this.#grow(most);
    const end = this.#size + this.#bytes.write(full, this.#size);
    this.seq++;
    this.hash = hashOf(this.#bytes.subarray(this.#size, end));
    this.#bytes[end] = FEED;
    this.#size = end + 1;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#size);
  }

  /** The bytes lie where another thread sees them, from the first byte there on. */
  get shared(): boolean {
    return this.#bytes === this.#kept;
  }

  #grow(most: number): void {
    const bytes = Buffer.allocUnsafeSlow(Math.max(most, 2 * this.#bytes.length));
    bytes.set(this.bytes);
    this.#bytes = bytes;
  }
}

/** Whether a group will not be larger than what is kept, as far as its characters tell. */
export function fits(bodies: readonly string[]): boolean {
  let size = 0;
  for (const { length } of bodies) size += length + AROUND;
  return size < KEPT_BYTES;
}
