/**
 * Pieces of a chunked answer, each as one write on the connection, behind a head that node:http has written.
 *
 * Why not ServerResponse.write: it writes a chunk's size, its bytes and two line ends as four pieces, a turn later. The
 * frame that is made here is RFC 9112's, of a length that is counted, so nothing in the bytes can end it. Private to the
 * writers.
 */
import type { Socket } from "node:net";
import { SHARED_MOST, slab } from "./_slab.ts";

/** Eight digits and two line ends. */
const AROUND = 12;
const CR = 0x0d;
const LF = 0x0a;
const DIGITS = Buffer.from("0123456789abcdef");

/** @param chunk not empty; it is not needed any more when this returns. @returns whether the connection keeps up */
export function writeChunk(socket: Socket, chunk: Uint8Array): boolean {
  const most = chunk.length + AROUND;
  if (most > SHARED_MOST) {
    const own = Buffer.allocUnsafeSlow(most);
    return socket.write(own.subarray(0, frame(own, 0, chunk)));
  }
  const start = slab.room(most);
  return slab.write(socket, start, frame(slab.bytes, start, chunk));
}

/** @returns where it ends */
function frame(target: Buffer, start: number, chunk: Uint8Array): number {
  const { length } = chunk;
  let shift = 0;
  while (length >>> shift > 0xf) shift += 4;
  let at = start;
  for (; shift >= 0; shift -= 4) target[at++] = DIGITS[(length >>> shift) & 0xf] as number;
  target[at++] = CR;
  target[at++] = LF;
  target.set(chunk, at);
  at += length;
  target[at++] = CR;
  target[at++] = LF;
  return at;
}
