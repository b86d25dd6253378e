/**
 * Changes to a JSON object in its bytes, as pieces of what was there and of what is new: nothing that stays is copied,
 * unless it is small.
 *
 * Invariant: a valid object in, a valid object out; what is not named stays, byte for byte and in its place. What is set
 * stands once afterwards, whether it stood there before or not.
 *
 * Callers: wire/relay.
 */
import type { JsonMember, JsonScan } from "./json-scan.ts";

/** A range of the body and what stands there instead, in the order of the body. */
export interface Cut {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array;
}

/** name → JSON text of the value; undefined: the member goes. A name that is not there is set, or gone, already. */
export type MemberEdits = ReadonlyMap<string, string | undefined>;

const NOTHING = new Uint8Array(0);

/** What the edits come to, for `spliced`. @param scan of the object */
export function cutsOf({ start, members }: JsonScan, edits: MemberEdits): readonly Cut[] {
  const gone = (member: JsonMember): boolean => edits.has(member.name) && edits.get(member.name) === undefined;
  const cuts: Cut[] = [];
  const added = addition(members, edits);
  const stays = members.some((member) => !gone(member));
  if (added !== "") cuts.push(cut(start + 1, start + 1, stays ? `${added},` : added));
  // Wherever a member has one that stays before it, it takes the comma in front with it; else the one behind.
  let before: JsonMember | undefined;
  for (const [i, member] of members.entries()) {
    if (gone(member)) {
      const from = before === undefined ? member.keyStart : (members[i - 1] ?? member).end;
      const to = before === undefined ? (members[i + 1]?.keyStart ?? member.end) : member.end;
      cuts.push({ start: from, end: to, bytes: NOTHING });
      continue;
    }
    before = member;
    const value = edits.get(member.name);
    if (value !== undefined) cuts.push(cut(member.start, member.end, value));
  }
  return cuts;
}

/** Bytes of a body up to which its copy is cheaper than pieces of it. */
const SMALL = 64 * 1024;

/**
 * The object with members that are not there yet.
 * @param text of them, commas between; "": none
 */
export function inserted(body: Uint8Array, { start, members }: JsonScan, text: string): readonly Uint8Array[] {
  if (text === "") return [body];
  const added = members.length === 0 ? text : `${text},`;
  const at = start + 1;
  if (body.length > SMALL) return [body.subarray(0, at), Buffer.from(added), body.subarray(at)];
  const length = Buffer.byteLength(added);
  const whole = Buffer.allocUnsafe(body.length + length);
  whole.set(body, length);
  for (let i = 0; i < at; i++) whole[i] = body[i] as number;
  whole.write(added, at);
  return [whole];
}

/** The members that are not there yet, as text. */
export function addition(members: readonly JsonMember[], edits: MemberEdits): string {
  const known = new Set(members.map(({ name }) => name));
  const added: string[] = [];
  for (const [name, value] of edits)
    if (value !== undefined && !known.has(name)) added.push(`${JSON.stringify(name)}:${value}`);
  return added.join();
}

/** @param text what stands there instead */
export function cut(start: number, end: number, text: string): Cut {
  return { start, end, bytes: Buffer.from(text) };
}

/**
 * The body with the cuts made, in pieces that share its memory.
 * @param cuts in any order; none overlaps another
 * @throws RangeError they do
 */
export function spliced(body: Uint8Array, cuts: readonly Cut[]): readonly Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const { start, end, bytes } of cuts.toSorted((a, b) => a.start - b.start || a.end - b.end)) {
    if (start < at || end < start || end > body.length) throw new RangeError("cuts lie within the body and apart");
    if (start > at) pieces.push(body.subarray(at, start));
    if (bytes.length > 0) pieces.push(bytes);
    at = end;
  }
  if (at < body.length) pieces.push(body.subarray(at));
  return pieces;
}
