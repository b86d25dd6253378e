/**
 * The memory of a long buffer, given back at once in place of being garbage: V8 starts to mark the whole heap whenever
 * some tens of megabytes of such garbage have come, whatever it is of.
 *
 * Whoever has the buffer still sees an empty one, and never what comes to lie there; but a write to a socket that has not
 * ended reads the memory itself, so that nobody may write from it any more (Wall: T127). Callers: http.
 */

/** Buffers of less are not worth it. */
const LONG = 16 * 1024;

/** @param bytes nobody writes them out any more. Unless others' bytes lie in the same memory */
export function giveBack({ length, buffer }: Buffer): void {
  if (length >= LONG && buffer.byteLength === length && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
