/**
 * Keys of JSON objects, in their bytes: those that a scan watches for, and the text of the others.
 */

const MAX_WATCHED = 30;
const PROTO = "__proto__";

/** Keys that are told of wherever they stand; each has a bit, in the order given. */
export class WatchedKeys {
  private readonly bits: ReadonlyMap<string, number>;
  private readonly byLength: readonly (readonly { readonly bytes: Uint8Array; readonly bit: number }[] | undefined)[];

  /** @throws RangeError more names than there are bits, or one that is not ASCII */
  constructor(names: readonly string[]) {
    if (names.length > MAX_WATCHED || names.some((name) => !/^[\x20-\x7e]+$/.test(name)))
      throw new RangeError(`at most ${MAX_WATCHED} keys of ASCII can be watched`);
    const bits = new Map([...names.map((name, at) => [name, 1 << at] as const), [PROTO, FORBIDDEN] as const]);
    const table: { readonly bytes: Uint8Array; readonly bit: number }[][] = [];
    for (const [name, bit] of bits) {
      const entry = { bytes: Buffer.from(name), bit };
      table[name.length] = [...(table[name.length] ?? []), entry];
    }
    this.bits = bits;
    this.byLength = table;
  }

  /** @returns 0: no such key is watched */
  bit(name: string): number {
    return this.bits.get(name) ?? 0;
  }

  /** The bit of the key at [from, to), which has no escape. */
  bitAt(bytes: Uint8Array, from: number, to: number): number {
    const candidates = this.byLength[to - from];
    if (candidates === undefined) return 0;
    for (const { bytes: name, bit } of candidates) {
      let at = 0;
      while (at < name.length && name[at] === bytes[from + at]) at++;
      if (at === name.length) return bit;
    }
    return 0;
  }
}

/** The bit of the key that is refused wherever it stands. */
export const FORBIDDEN = 1 << MAX_WATCHED;
export const NOTHING_WATCHED = new WatchedKeys([]);

/** Names of members that were met before, by their length and ends: their text is made once. */
const met = new Map<number, { readonly bytes: Uint8Array; readonly name: string }>();
const MET = 512;
const MET_LENGTH = 48;

/** The text of the key at [from, to), which has no escape. */
export function nameAt(bytes: Buffer, from: number, to: number): string {
  const length = to - from;
  if (length === 0 || length > MET_LENGTH) return bytes.toString("utf8", from, to);
  const hash = (length << 16) | ((bytes[from] ?? 0) << 8) | (bytes[to - 1] ?? 0);
  const entry = met.get(hash);
  if (entry !== undefined) {
    let at = 0;
    while (at < length && entry.bytes[at] === bytes[from + at]) at++;
    if (at === length) return entry.name;
  }
  const name = bytes.toString("utf8", from, to);
  if (entry === undefined && met.size < MET) met.set(hash, { bytes: Buffer.from(name), name });
  return name;
}
