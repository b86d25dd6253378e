/**
 * Where the next record goes: found from the files, and held against what was known before.
 *
 * Invariant: nothing is taken away but bytes that never were a whole line. Whatever else is not as it was left is
 * noted in the log as damage, a new file is begun behind it, and the numbers go on where they were known to be, so that
 * verification finds the place. Called by the writer under the lock.
 */
import { createHash, randomUUID } from "node:crypto";
import { type FileEnd, readEnd, readFirst, type Segment, segmentsIn } from "./_segments.ts";
import type { Known } from "./heads.ts";
import { NO_HASH } from "./record.ts";

export interface Position {
  readonly chain: string;
  /** Of the file to append to. */
  readonly number: number;
  /** The file has to be begun. */
  readonly begin: boolean;
  readonly ino: number;
  readonly size: number;
  /** Of the last record; 0: there is none. */
  readonly seq: number;
  readonly hash: string;
  /** UTC day on which the file was begun. */
  readonly day: string;
}

export interface Note {
  readonly kind: "repair" | "damage";
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface Found {
  readonly position: Position;
  readonly notes: readonly Note[];
  /** The file's unfinished last line begins here; it goes before anything is appended. */
  readonly cut: { readonly segment: Segment; readonly size: number } | undefined;
}

/** @throws system errors */
export function findPosition(directory: string, known: Known | undefined): Found {
  const segments = segmentsIn(directory);
  const notes: Note[] = [];
  const newest = segments.at(-1);
  const end = newest === undefined ? undefined : readEnd(newest.path);
  if (newest === undefined || end === undefined) return emptyDirectory(known);
  if (end.torn.length > 0) notes.push(tornNote(newest, end));
  const size = end.size - end.torn.length;
  const cut = end.torn.length === 0 ? undefined : { segment: newest, size };
  const { last, chain, day, unreadable } = lastRecord(segments);
  for (const name of unreadable) notes.push({ kind: "damage", fields: { reason: "unreadable", file: name } });
  // Behind an end that cannot be read it is not known what is missing.
  const problem =
    unreadable.length > 0 ? undefined : compare({ chain, seq: last?.seq ?? 0, hash: last?.hash ?? NO_HASH }, known);
  if (problem !== undefined) notes.push({ kind: "damage", fields: problem });
  const whole = unreadable.length === 0 && problem === undefined;
  const position = {
    chain: chain ?? known?.chain ?? randomUUID(),
    number: whole ? newest.number : Math.max(newest.number, known?.number ?? 0) + 1,
    begin: !whole || size === 0,
    ino: end.ino,
    size,
    seq: Math.max(last?.seq ?? 0, known?.chain === chain || chain === undefined ? (known?.seq ?? 0) : 0),
    hash: (unreadable.length > 0 ? known?.hash : undefined) ?? last?.hash ?? NO_HASH,
    day,
  };
  return { position, notes, cut };
}

function emptyDirectory(known: Known | undefined): Found {
  const fresh = { begin: true, ino: 0, size: 0, day: "" };
  if (known === undefined)
    return { position: { ...fresh, chain: randomUUID(), number: 1, seq: 0, hash: NO_HASH }, notes: [], cut: undefined };
  const { chain, number, seq, hash } = known;
  return {
    position: { ...fresh, chain, number: number + 1, seq, hash },
    notes: [{ kind: "damage", fields: { reason: "missing", from: 1, to: seq } }],
    cut: undefined,
  };
}

function tornNote({ name }: Segment, { torn }: FileEnd): Note {
  const sha256 = createHash("sha256").update(torn).digest("hex");
  return { kind: "repair", fields: { file: name, bytes: torn.length, sha256 } };
}

interface Last {
  readonly last: { readonly seq: number; readonly hash: string } | undefined;
  readonly chain: string | undefined;
  readonly day: string;
  /** Files behind it whose end is no record. */
  readonly unreadable: readonly string[];
}

/** From the newest file back: a file may have been begun and not written to, or be unreadable at its end. */
function lastRecord(segments: readonly Segment[]): Last {
  const unreadable: string[] = [];
  for (const { path, name } of segments.toReversed()) {
    const end = readEnd(path);
    const first = readFirst(path);
    const chain = first?.fields["chain"];
    if (end.unreadable || (end.last !== undefined && typeof chain !== "string")) unreadable.push(name);
    else if (end.last !== undefined && first !== undefined)
      return {
        last: { seq: end.last.record.seq, hash: end.last.hash },
        chain: chain as string,
        day: first.time.slice(0, 10),
        unreadable,
      };
  }
  return { last: undefined, chain: undefined, day: "", unreadable };
}

function compare(
  found: { readonly chain: string | undefined; readonly seq: number; readonly hash: string },
  known: Known | undefined,
): Note["fields"] | undefined {
  if (known === undefined) return undefined;
  if (found.chain !== undefined && found.chain !== known.chain) return { reason: "another log", chain: known.chain };
  if (known.seq > found.seq) return { reason: "missing", from: found.seq + 1, to: known.seq };
  if (known.seq === found.seq && known.hash !== found.hash) return { reason: "altered", seq: known.seq };
  return undefined;
}
