/**
 * Cuts a stream of server-sent events at the ends of frames, wherever the network has cut it.
 *
 * What ends with a frame, which is nearly everything, passes as it is; the beginning of a frame waits for its end. One
 * that grows too long passes in pieces; until its end nothing may come between. Linear in what comes, but for a frame
 * in many pieces, whose joining the bound bounds.
 */

/** Bytes of an unfinished frame that are held at most. */
const MOST = 64 * 1024;
const LF = 0x0a;
const CR = 0x0d;
const BLANK = Buffer.from("\n\n");
const BLANK_CRLF = Buffer.from("\r\n\r\n");

export class WholeFrames {
  #held: Buffer | undefined;
  #between = true;

  /** Whether what was passed on so far ends with a frame. */
  get between(): boolean {
    return this.#between;
  }

  /** @returns what may go on: the chunk itself, or a copy of it and of what was held. Undefined: nothing yet */
  take(chunk: Uint8Array): Uint8Array | undefined {
    if (this.#held === undefined && endsFrame(chunk)) {
      this.#between = true;
      return chunk;
    }
    const all = this.#held === undefined ? Buffer.from(chunk) : Buffer.concat([this.#held, chunk]);
    this.#held = undefined;
    const end = lastEnd(all);
    if (end > 0) this.#between = true;
    const rest = all.subarray(Math.max(end, 0));
    // In the middle of a frame that was too long to be held there is nothing to protect.
    if (end <= 0 && (!this.#between || rest.length > MOST)) {
      this.#between = false;
      return all;
    }
    if (rest.length > 0) this.#held = rest;
    return end > 0 ? all.subarray(0, end) : undefined;
  }

  /** A frame that never ended. */
  rest(): Buffer | undefined {
    const rest = this.#held;
    this.#held = undefined;
    return rest;
  }
}

function endsFrame(chunk: Uint8Array): boolean {
  const n = chunk.length;
  if (n < 2 || chunk[n - 1] !== LF) return false;
  return chunk[n - 2] === LF || (n >= 4 && chunk[n - 2] === CR && chunk[n - 3] === LF && chunk[n - 4] === CR);
}

/** Behind the last blank line; -1: there is none. */
function lastEnd(all: Buffer): number {
  const lf = all.lastIndexOf(BLANK);
  const crlf = all.lastIndexOf(BLANK_CRLF);
  return Math.max(lf < 0 ? -1 : lf + BLANK.length, crlf < 0 ? -1 : crlf + BLANK_CRLF.length);
}
