/**
 * A body while it comes: in one place, into which each piece is copied as it comes.
 *
 * Why not a list that is joined at the end: a long prompt is many pieces of 64 KiB, each of them garbage that waits for the
 * collector. Here the memory of a piece is given back at once. Invariant: room is made for no more than a multiple of
 * what came, as a length that is only announced costs nothing to say. Private to the readers of bodies.
 */
import { giveBack } from "#base/give-back.ts";

/** Of what came, how much more may be made room for. */
const AHEAD = 16;
/** Fewer bytes are copied sooner than read to a place of their own. */
const WORTH_ROOM = 16 * 1024;

/** @param announced bytes. @param size of which came. @returns how much room may be made for them */
export function roomFor(announced: number, size: number): number {
  return Math.min(announced, size * AHEAD);
}

export class Gathered {
  readonly #announced: number;
  /** A body of one piece is that piece. */
  #only: Buffer | undefined;
  #place: Buffer | undefined;
  #size = 0;

  /** @param announced bytes; 0: not known */
  constructor(announced: number) {
    this.#announced = announced;
  }

  /** @param place nobody else has it; the body begins with its first `size` bytes, and nothing was added before */
  begin(place: Buffer, size: number): void {
    this.#place = place;
    this.#size = size;
  }

  /** Where the rest of the body may be read to, up to its end; undefined: pieces are to be added. */
  room(): Buffer | undefined {
    const place = this.#place;
    if (place?.length !== this.#announced || this.#announced - this.#size < WORTH_ROOM) return undefined;
    return place.subarray(this.#size);
  }

  /** @param size bytes were read to `room` */
  filled(size: number): void {
    this.#size += size;
  }

  /** @param piece nobody else has it, now or later */
  add(piece: Buffer): void {
    if (this.#size === 0) {
      this.#only = piece;
      this.#size = piece.length;
      return;
    }
    if (this.#only !== undefined) {
      const only = this.#only;
      this.#only = undefined;
      this.#size = 0;
      this.#take(only);
    }
    this.#take(piece);
  }

  bytes(): Buffer {
    return this.#only ?? this.#place?.subarray(0, this.#size) ?? Buffer.alloc(0);
  }

  #take(piece: Buffer): void {
    const size = this.#size + piece.length;
    const place = this.#placeFor(size);
    place.set(piece, this.#size);
    this.#size = size;
    giveBack(piece);
  }

  #placeFor(size: number): Buffer {
    const place = this.#place;
    if (place !== undefined && place.length >= size) return place;
    const next = Buffer.allocUnsafeSlow(this.#announced >= size ? roomFor(this.#announced, size) : size * 2);
    if (place !== undefined) {
      next.set(place.subarray(0, this.#size));
      giveBack(place);
    }
    this.#place = next;
    return next;
  }
}
