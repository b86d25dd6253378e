/**
 * A TLS client that has said its last word: what it does not take from now on, it does not take slowly.
 *
 * Over TLS a reset reads as the end of the client's bytes, and Node does not tell that writing fails from then on; a
 * client of good will that half-closes reads on. So from that end on a standstill is the end of the connection, long
 * before the patience with slow readers is over. Callers: listener.ts.
 */
import type { Socket } from "node:net";

const STANDSTILL_MS = 1000;

export function cutWhenStill(socket: Socket): void {
  socket.once("end", () => {
    let delivered = -1;
    const look = setInterval(() => {
      const now = socket.bytesWritten - socket.writableLength;
      if (socket.writableLength > 0 && now === delivered) socket.destroy();
      delivered = now;
    }, STANDSTILL_MS);
    socket.once("close", () => clearInterval(look));
  });
}
