/**
 * Verification: reads every record of a log and says whether it is the one that was written.
 *
 * Each line's hash is the next one's `prev`, numbers go up by one, checkpoints are signed over the head before them.
 * What is found is told with its place: the first finding is where it began. Records after the last checkpoint are
 * chained and not signed: whoever can write the file can make that end anew, which only a head kept elsewhere shows.
 * Callers: cli, and app for the operations listener.
 */
import type { KeyObject } from "node:crypto";
import { linesForward } from "./_lines.ts";
import { segmentOf } from "./_segments.ts";
import { type SizedSegment, snapshot } from "./_snapshot.ts";
import { hashOf, MAX_LINE, NO_HASH, parseRecord, type StoredRecord } from "./record.ts";
import { fingerprintOf, type Head, readPublicKey, signatureHolds } from "./signing.ts";

export const FINDINGS = {
  altered: "a record is not the one that was written",
  missing: "records are not there",
  reordered: "a record stands in a wrong place",
  inserted: "a record was put in",
  truncated: "the end of the log is not there",
  torn: "the last line has no end: a crash, or a cut",
  unreadable: "a line is no record",
  signature: "a checkpoint is not signed by the log's key",
  damage: "the server itself found records missing or changed",
} as const;
export type FindingKind = keyof typeof FINDINGS;

export interface Finding {
  readonly kind: FindingKind;
  readonly file: string;
  /** From 1; 0: the file as a whole. */
  readonly line: number;
  readonly text: string;
}

export interface Verification {
  readonly findings: readonly Finding[];
  /** More than are listed. */
  readonly moreFindings: number;
  /** What was recorded of gaps and repairs: no alteration, but worth reading. */
  readonly notes: readonly string[];
  readonly chain: string | undefined;
  readonly files: number;
  readonly records: number;
  readonly first: { readonly seq: number; readonly time: string } | undefined;
  readonly last: { readonly seq: number; readonly time: string; readonly hash: string } | undefined;
  readonly checkpoints: number;
  /** Fingerprint of the key that they were checked with. */
  readonly key: string | undefined;
  /** Where the key came from. */
  readonly keySource: "given" | "the log";
  /** Records behind the last checkpoint. */
  readonly unsigned: number;
}

export interface VerifyOptions {
  /** Absent: the key that the log names, which proves only that the log agrees with itself. */
  readonly publicKey?: KeyObject;
  /** Places that the log must hold. */
  readonly heads?: readonly Pick<Head, "hash">[];
  /** Ends it. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (file: string, done: number, total: number) => void;
}

const MOST_FINDINGS = 100;
const MOST_NOTES = 100;
/** Numbers that are kept to tell a moved record from an inserted one. */
const MOST_MISSING = 100_000;

/** @throws system errors: the directory cannot be read; the signal's reason */
export async function verifyLog(directory: string, options: VerifyOptions = {}): Promise<Verification> {
  const segments = await snapshot(directory);
  const total = segments.reduce((sum, { size }) => sum + size, 0);
  const check = new Check(options);
  let done = 0;
  for (const segment of segments) {
    check.begin(segment);
    for await (const lines of linesForward(segment.path, 0, segment.size)) {
      options.signal?.throwIfAborted();
      for (const { bytes, whole } of lines) check.line(bytes, whole);
      const last = lines.at(-1);
      options.onProgress?.(segment.name, done + (last === undefined ? 0 : last.offset + last.bytes.length), total);
    }
    done += segment.size;
    options.onProgress?.(segment.name, done, total);
  }
  return check.result(segments);
}

interface Place {
  readonly seq: number;
  readonly hash: string;
  readonly time: string;
}

class Check {
  readonly #options: VerifyOptions;
  readonly #findings: Finding[] = [];
  #moreFindings = 0;
  readonly #notes: string[] = [];
  #file = "";
  /** The file before the first one that is there. */
  #before = "";
  #number = 0;
  #line = 0;
  #records = 0;
  #checkpoints = 0;
  #unsigned = 0;
  #chain: string | undefined;
  #key: KeyObject | undefined;
  #first: { readonly seq: number; readonly prev: string; readonly time: string } | undefined;
  #last: Place | undefined;
  /** The record before could not be read, so the next link cannot be checked. */
  #broken = false;
  readonly #missing = new Set<number>();
  readonly #wanted: Set<string>;
  readonly #pruned: { readonly through: number; readonly hash: string; readonly files: readonly unknown[] }[] = [];

  constructor(options: VerifyOptions) {
    this.#options = options;
    this.#key = options.publicKey;
    this.#wanted = new Set(options.heads?.map(({ hash }) => hash));
  }

  begin({ name, number }: SizedSegment): void {
    if (this.#number === 0) this.#before = segmentOf("", number - 1).name;
    if (this.#number !== 0 && number !== this.#number + 1)
      this.#find("missing", `files between ${this.#file} and ${name} are not there`, name, 0);
    this.#file = name;
    this.#number = number;
    this.#line = 0;
  }

  line(bytes: Buffer, whole: boolean): void {
    this.#line++;
    const record = whole && bytes.length <= MAX_LINE ? parseRecord(bytes) : undefined;
    if (record === undefined) {
      if (whole)
        this.#find("unreadable", this.#last === undefined ? "no record" : `no record, after record ${this.#last.seq}`);
      else
        this.#find(
          "torn",
          `${bytes.length} bytes without an end after record ${this.#last?.seq ?? 0}; the next start takes them away and says so`,
        );
      this.#broken = true;
      return;
    }
    const hash = hashOf(bytes);
    this.#records++;
    this.#wanted.delete(hash);
    this.#place(record);
    this.#unsigned++;
    this.#judge(record);
    if (this.#last === undefined || record.seq > this.#last.seq || !this.#isStray(record))
      this.#last = { seq: record.seq, hash, time: record.time };
    this.#broken = false;
  }

  result(segments: readonly SizedSegment[]): Verification {
    this.#beginning(segments[0]?.name ?? "");
    if (this.#wanted.size > 0)
      this.#find(
        "truncated",
        `the log ends with record ${this.#last?.seq ?? 0} and does not hold ${[...this.#wanted].join(", ")}`,
        segments.at(-1)?.name ?? "",
        0,
      );
    const { publicKey } = this.#options;
    return {
      findings: this.#findings,
      moreFindings: this.#moreFindings,
      notes: this.#notes,
      chain: this.#chain,
      files: segments.length,
      records: this.#records,
      first: this.#first,
      last: this.#last,
      checkpoints: this.#checkpoints,
      key: this.#key === undefined ? undefined : fingerprintOf(this.#key),
      keySource: publicKey === undefined ? "the log" : "given",
      unsigned: this.#unsigned,
    };
  }

  /** Number and link. */
  #place({ seq, prev, time }: StoredRecord): void {
    const last = this.#last;
    if (last === undefined) {
      this.#first ??= { seq, prev, time };
      return;
    }
    const expected = last.seq + 1;
    if (seq === expected) {
      if (prev !== last.hash && !this.#broken)
        this.#find("altered", `record ${last.seq}, or the link to it in record ${seq}`);
      return;
    }
    if (seq > expected) {
      this.#find("missing", `records ${expected} to ${seq - 1}`);
      for (let n = expected; n < seq && this.#missing.size < MOST_MISSING; n++) this.#missing.add(n);
    } else if (this.#missing.delete(seq)) this.#find("reordered", `record ${seq} stands after record ${last.seq}`);
    else this.#find("inserted", `there is a second record ${seq}, after record ${last.seq}`);
  }

  /** One that was moved or put in: the chain goes on behind what stood before it. */
  #isStray({ prev }: StoredRecord): boolean {
    return prev !== this.#last?.hash;
  }

  #judge(record: StoredRecord): void {
    const { kind, fields, seq } = record;
    switch (kind) {
      case "segment":
        this.#segment(record);
        break;
      case "checkpoint":
        this.#checkpoint(record);
        break;
      case "damage":
        this.#find("damage", `record ${seq}: ${words(fields)}`);
        break;
      case "repair":
      case "gap":
        this.#note(`record ${seq}, ${record.time}: ${kind}, ${words(fields)}`);
        break;
      case "prune":
        this.#pruned.push({
          through: Number(fields["through"]),
          hash: String(fields["hash"]),
          files: Array.isArray(fields["files"]) ? fields["files"] : [],
        });
        break;
    }
    if (this.#line === 1 && kind !== "segment") this.#find("missing", "the first record of the file");
  }

  #segment({ seq, fields }: StoredRecord): void {
    const { chain, number, publicKey } = fields;
    if (this.#line !== 1) this.#find("inserted", `record ${seq} belongs at the beginning of a file`);
    if (number !== this.#number) this.#find("reordered", `the file says that it is number ${String(number)}`);
    if (this.#chain !== undefined && chain !== this.#chain) this.#find("inserted", `record ${seq} is of another log`);
    this.#chain ??= String(chain);
    if (this.#options.publicKey === undefined) {
      const key = readPublicKey(String(publicKey));
      const changed = this.#key !== undefined && key !== undefined && fingerprintOf(key) !== fingerprintOf(this.#key);
      if (changed) this.#note(`record ${seq}: from here on another key signs, ${fingerprintOf(key)}`);
      this.#key = key ?? this.#key;
    }
  }

  #checkpoint({ seq, prev, time, fields }: StoredRecord): void {
    this.#checkpoints++;
    const head: Head = { chain: this.#chain ?? "", seq: seq - 1, hash: prev, time };
    const { signature } = fields;
    const holds =
      this.#key !== undefined && typeof signature === "string" && signatureHolds(this.#key, head, signature);
    if (holds) this.#unsigned = 0;
    else
      this.#find(
        "signature",
        `record ${seq}: ${this.#key === undefined ? "there is no key to check it with" : "its signature does not hold"}`,
      );
  }

  #beginning(file: string): void {
    const first = this.#first;
    if (first === undefined) this.#find("missing", "there is no record", file, 0);
    else if (first.seq > 1 && this.#wasPruned(first.seq - 1, first.prev))
      this.#note(`records 1 to ${first.seq - 1} were removed because of their number or age`);
    else if (first.seq > 1) this.#find("missing", `records 1 to ${first.seq - 1}`, file, 0);
    else if (first.prev !== NO_HASH) this.#find("altered", "the first record has one before it", file, 1);
  }

  #wasPruned(seq: number, hash: string): boolean {
    const before = this.#before;
    return this.#pruned.some(
      // A process may have died when it had removed some of the files that it meant to.
      (prune) => (prune.through === seq ? prune.hash === hash : prune.through > seq && prune.files.includes(before)),
    );
  }

  #find(kind: FindingKind, text: string, file = this.#file, line = this.#line): void {
    if (this.#findings.length < MOST_FINDINGS) this.#findings.push({ kind, file, line, text });
    else this.#moreFindings++;
  }

  #note(text: string): void {
    if (this.#notes.length < MOST_NOTES) this.#notes.push(text);
  }
}

function words(fields: StoredRecord["fields"]): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name} ${String(value)}`)
    .join(", ");
}
