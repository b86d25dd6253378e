/**
 * A hash table from digests to keys, for a million of them: rows in typed arrays, found by open addressing.
 *
 * Why not a Map: its entries, strings and objects take several times the memory, and the garbage collector walks them.
 * Digests are HMACs under a pepper that no client knows, so their first bytes are a hash that nobody can aim with, and
 * how long a probe takes says nothing about a key; they are compared in constant time all the same.
 * Caller: keys.ts.
 */
import { timingSafeEqual } from "node:crypto";

const DIGEST_BYTES = 32;
/** `key_` and what follows it, at most. */
export const MAX_ID_LENGTH = 24;
const ID_PREFIX = "key_";
const ID_BYTES = MAX_ID_LENGTH - ID_PREFIX.length;
const FIRST_ROWS = 16;
/** Slots for each row at least: probes stay short. */
const SPREAD = 1.5;

export type KeyState = "live" | "disabled" | "deleted";
const STATES: readonly KeyState[] = ["live", "disabled", "deleted"];
/** Beside the state: the key is one of the store's, which wants to know when it was used. */
const STORED = 0x80;

/** One way to open a key; several may have one id. */
export interface KeyRow<P> {
  readonly id: string;
  readonly profile: P;
  /** Unix milliseconds. */
  readonly notBefore: number;
  readonly expiresAt: number;
  readonly state: KeyState;
  readonly stored: boolean;
}

export class KeyTable<P> {
  #count = 0;
  /** Row + 1; 0: free. A power of two many. */
  #slots = new Int32Array(32);
  #digests = Buffer.alloc(0);
  /** Latin-1 behind the prefix, filled up with zeros. */
  #ids = Buffer.alloc(0);
  #notBefore = new Float64Array(0);
  #expiresAt = new Float64Array(0);
  #states = new Uint8Array(0);
  /** Minute in which the use of the row was noted last. */
  #minutes = new Uint32Array(0);
  readonly #profiles: P[] = [];

  get size(): number {
    return this.#count;
  }

  /** Bytes of the arrays, without what profiles hold. */
  get bytes(): number {
    const arrays = [
      this.#slots,
      this.#digests,
      this.#ids,
      this.#notBefore,
      this.#expiresAt,
      this.#states,
      this.#minutes,
    ];
    return arrays.reduce((sum, array) => sum + array.byteLength, 0) + 8 * this.#profiles.length;
  }

  /** @returns the row of this digest, or -1 */
  find(digest: Uint8Array): number {
    return (this.#slots[this.#slotOf(digest)] ?? 0) - 1;
  }

  /** Adds the row, or replaces that of the same digest. @returns its number, which stays */
  put(digest: Uint8Array, row: KeyRow<P>): number {
    if (digest.length !== DIGEST_BYTES) throw new Error("a digest has 32 bytes");
    let slot = this.#slotOf(digest);
    let at = (this.#slots[slot] ?? 0) - 1;
    if (at < 0) {
      if (this.#count === this.#states.length) {
        this.reserve(Math.max(FIRST_ROWS, Math.ceil(this.#count * 1.5)));
        slot = this.#slotOf(digest);
      }
      at = this.#count++;
      this.#slots[slot] = at + 1;
      this.#digests.set(digest, at * DIGEST_BYTES);
    }
    this.#write(at, row);
    return at;
  }

  /** Room for so many rows in all, so that filling it takes no larger arrays on the way. */
  reserve(rows: number): void {
    if (rows <= this.#states.length) return;
    this.#digests = grownBuffer(this.#digests, rows * DIGEST_BYTES);
    this.#ids = grownBuffer(this.#ids, rows * ID_BYTES);
    this.#notBefore = grown(this.#notBefore, new Float64Array(rows));
    this.#expiresAt = grown(this.#expiresAt, new Float64Array(rows));
    this.#states = grown(this.#states, new Uint8Array(rows));
    this.#minutes = grown(this.#minutes, new Uint32Array(rows));
    let slots = this.#slots.length;
    while (slots < rows * SPREAD) slots *= 2;
    if (slots === this.#slots.length) return;
    this.#slots = new Int32Array(slots);
    for (let row = 0; row < this.#count; row++) this.#slots[this.#slotOf(this.#digest(row))] = row + 1;
  }

  id(row: number): string {
    const from = row * ID_BYTES;
    let to = from + ID_BYTES;
    while (to > from && this.#ids[to - 1] === 0) to--;
    return ID_PREFIX + this.#ids.toString("latin1", from, to);
  }

  profile(row: number): P {
    return this.#profiles[row] as P;
  }

  state(row: number): KeyState {
    return STATES[(this.#states[row] ?? 0) & ~STORED] as KeyState;
  }

  /** Infinity: it does not end. */
  expiresAt(row: number): number {
    return this.#expiresAt[row] as number;
  }

  /** Whether its times let it be used. */
  times(row: number, now: number): "now" | "early" | "late" {
    if (now < (this.#notBefore[row] as number)) return "early";
    return now < (this.#expiresAt[row] as number) ? "now" : "late";
  }

  /** @returns whether this is the first use of a stored key in this minute */
  noteUse(row: number, now: number): boolean {
    if (((this.#states[row] ?? 0) & STORED) === 0) return false;
    const minute = Math.floor(now / 60_000);
    if (this.#minutes[row] === minute) return false;
    this.#minutes[row] = minute;
    return true;
  }

  #write(at: number, { id, profile, notBefore, expiresAt, state, stored }: KeyRow<P>): void {
    if (!id.startsWith(ID_PREFIX) || id.length > MAX_ID_LENGTH) throw new Error(`${id} is not an id of a key`);
    this.#ids.fill(0, at * ID_BYTES, (at + 1) * ID_BYTES);
    this.#ids.write(id.slice(ID_PREFIX.length), at * ID_BYTES, "latin1");
    this.#profiles[at] = profile;
    this.#notBefore[at] = notBefore;
    this.#expiresAt[at] = expiresAt;
    this.#states[at] = STATES.indexOf(state) | (stored ? STORED : 0);
  }

  #digest(row: number): Uint8Array {
    return this.#digests.subarray(row * DIGEST_BYTES, (row + 1) * DIGEST_BYTES);
  }

  /** The slot that has this digest, or the free one where it belongs. There always is a free one. */
  #slotOf(digest: Uint8Array): number {
    const mask = this.#slots.length - 1;
    const first =
      ((digest[0] ?? 0) | ((digest[1] ?? 0) << 8) | ((digest[2] ?? 0) << 16) | ((digest[3] ?? 0) << 24)) >>> 0;
    for (let slot = first & mask; ; slot = (slot + 1) & mask) {
      const row = (this.#slots[slot] ?? 0) - 1;
      if (row < 0 || timingSafeEqual(this.#digest(row), digest)) return slot;
    }
  }
}

function grown<A extends Float64Array | Uint8Array | Uint32Array>(from: A, to: A): A {
  to.set(from);
  return to;
}

function grownBuffer(from: Buffer<ArrayBuffer>, bytes: number): Buffer<ArrayBuffer> {
  const to = Buffer.alloc(bytes);
  to.set(from);
  return to;
}
