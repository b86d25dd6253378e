/**
 * A place that all connections share for bytes that are put together and written at once.
 *
 * Invariant: what was put there stays as it is until the kernel has it. Nearly always the kernel takes all of it at once,
 * and the place is free again; else it is left alone, and whoever needs it keeps it. Private to the writers.
 */
import type { Socket } from "node:net";

const BYTES = 64 * 1024;
/** Larger pieces get a place of their own. */
export const SHARED_MOST = 16 * 1024;

class Slab {
  bytes = Buffer.allocUnsafeSlow(BYTES);
  #free = 0;

  /** @param most bytes, SHARED_MOST at most. @returns from where on in `bytes` */
  room(most: number): number {
    if (this.#free + most > BYTES) {
      this.bytes = Buffer.allocUnsafeSlow(BYTES);
      this.#free = 0;
    }
    return this.#free;
  }

  /** @param start what `room` gave, and nobody else since. @returns whether the connection keeps up */
  write(socket: Socket, start: number, end: number): boolean {
    // Taken until it is known to be free: a listener of the connection may come back to here.
    this.#free = end;
    const { bytes } = this;
    const ready = socket.write(bytes.subarray(start, end));
    if (socket.writableLength === 0 && this.bytes === bytes && this.#free === end) this.#free = start;
    return ready;
  }
}

export const slab = new Slab();
