/** Ids that nobody can guess: 128 random bits as 32 hexadecimal digits. */
import { randomFillSync } from "node:crypto";

const ID_BYTES = 16;
/** Random bytes for many ids at once: asking for a few costs as much as asking for many. */
const random = Buffer.allocUnsafeSlow(256 * ID_BYTES);
let unused = random.length;

export function newId(): string {
  if (unused === random.length) {
    randomFillSync(random);
    unused = 0;
  }
  unused += ID_BYTES;
  return random.toString("hex", unused - ID_BYTES, unused);
}
