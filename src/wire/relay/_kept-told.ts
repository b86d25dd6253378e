/**
 * Bodies whose small fields say the same, byte for byte, and whose others are of one shape, by a hash of both: what was
 * found of one is found again without a text being made.
 *
 * Invariant: a hash only says where to look; what is found there is compared in full, so that nobody who makes two bodies
 * of one hash gets more than a body that is judged anew. Used by _told.ts.
 */
import type { JsonMember } from "#base/json-scan.ts";
import { type RelayRule, SIZED } from "./rules.ts";

/** Small fields beside numbers and switches that may be part of a body of which something is kept. */
const NAMED: ReadonlySet<string> = new Set(["model", "stream_options"]);
/** Bytes of a small field, and of all of them. */
const MOST_BYTES = 512;
const MOST_KEPT = 256;
/** Members of a body of which something is kept. */
const MOST_MEMBERS = 64;

interface Sign {
  readonly member: JsonMember;
  /** From its key to its end; undefined: its shape is enough. */
  readonly text: Uint8Array | undefined;
}

interface Kept<T> {
  readonly signs: readonly Sign[];
  readonly value: T;
}

export class KeptBodies<T> {
  readonly #rule: RelayRule;
  readonly #kept = new Map<number, Kept<T>>();

  constructor(rule: RelayRule) {
    this.#rule = rule;
  }

  /** @returns of the body, to be found and kept by; undefined: nothing is kept of it */
  hashOf(bytes: Buffer, members: readonly JsonMember[]): number | undefined {
    if (members.length > MOST_MEMBERS) return undefined;
    const { fields, big } = this.#rule;
    let left = MOST_BYTES;
    let hash = 0;
    for (const member of members) {
      const { name, kind, keyStart, end } = member;
      if (big.has(name)) {
        hash = Math.imul(hash ^ (name.length + member.count * 31 + member.depth * 1021), PRIME);
        continue;
      }
      left -= end - keyStart;
      if (left < 0 || !fields.has(name) || (isWorded(kind) && !NAMED.has(name))) return undefined;
      for (let at = keyStart; at < end; at++) hash = Math.imul(hash ^ (bytes[at] as number), PRIME);
    }
    return hash;
  }

  find(hash: number, bytes: Buffer, members: readonly JsonMember[]): T | undefined {
    const kept = this.#kept.get(hash);
    if (kept === undefined || kept.signs.length !== members.length) return undefined;
    for (let i = 0; i < members.length; i++)
      if (!isSame(kept.signs[i] as Sign, members[i] as JsonMember, bytes)) return undefined;
    return kept.value;
  }

  keep(hash: number, bytes: Buffer, members: readonly JsonMember[], value: T): void {
    if (this.#kept.size >= MOST_KEPT) this.#kept.clear();
    const signs = members.map((member) => {
      const { name, keyStart, end } = member;
      return { member, text: this.#rule.big.has(name) ? undefined : Uint8Array.from(bytes.subarray(keyStart, end)) };
    });
    this.#kept.set(hash, { signs, value });
  }
}

/** FNV's, of 32 bits. */
const PRIME = 0x01000193;

function isWorded(kind: JsonMember["kind"]): boolean {
  return kind === "string" || kind === "array" || kind === "object";
}

/** Whether a judgement of one is that of the other: as `Shape` says what it may depend on. */
function isSame({ member: one, text }: Sign, other: JsonMember, bytes: Buffer): boolean {
  if (one.name !== other.name) return false;
  if (text !== undefined) {
    const { keyStart, end } = other;
    if (end - keyStart !== text.length) return false;
    let at = 0;
    while (at < text.length && text[at] === bytes[keyStart + at]) at++;
    return at === text.length;
  }
  const [length, otherLength] = [one.end - one.start, other.end - other.start];
  return (
    one.kind === other.kind &&
    one.first === other.first &&
    one.count === other.count &&
    one.depth === other.depth &&
    (length === 2) === (otherLength === 2) &&
    (length === otherLength || !SIZED.has(one.name)) &&
    isEqual(one.widest, other.widest)
  );
}

function isEqual(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}
