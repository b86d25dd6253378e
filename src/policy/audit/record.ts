/**
 * What stands in the audit log: kinds of records, and how one is a line.
 *
 * A line is `{"seq":N,"prev":"<hash>",` and the body: `"time":…,"kind":…}`. A record's hash is SHA-256 over the bytes of
 * its line, without the line feed; `prev` is the hash of the record before it. So the canonical form of a record is
 * what stands in the file, and nobody has to print it again to check it. Pure. Callers: all of audit/, cli.
 */
import { hash } from "node:crypto";
import { type JsonValue, stringifyJson, tryParseJson } from "#base/json.ts";

export const FORMAT = 1;
/** `prev` of a chain's first record. */
export const NO_HASH = "0".repeat(64);
/** Bytes of a line at most; a longer one is not ours. */
export const MAX_LINE = 256 * 1024;

/** kind → what it says. The keys are the closed list. */
export const RECORD_KINDS = {
  segment: "the first record of each file: which log this is and who signs it",
  call: "a call, written before the first byte of its answer",
  end: "how a recorded call ended, where that was not yet known: its usage, a failure in the middle of a stream",
  anonymous: "calls without a principal beyond the rate at which each gets a record of its own, counted",
  event: "something that happened to the server, its keys or its policy",
  checkpoint: "a signature over the head of the chain",
  repair: "a line that a crash had left unfinished was taken away",
  damage: "records that should have been there were not, or could not be read",
  gap: "calls that could not be recorded, while the log could not be written",
  prune: "files that were removed because of their number or age",
} as const;
export type RecordKind = keyof typeof RECORD_KINDS;
export const KINDS = Object.keys(RECORD_KINDS) as readonly RecordKind[];

/** event → what it says. The keys are the closed list. */
export const EVENT_KINDS = {
  "server.start": "a server began to take calls",
  "server.stop": "a server ended in order",
  "config.finding": "a setting loosens a wall, or was not understood",
  "key.create": "a key was made",
  "key.rotate": "a key got a successor",
  "key.change": "what a key may do was changed",
  "key.disable": "a key was disabled",
  "key.enable": "a disabled key was enabled",
  "key.delete": "a key was deleted",
  "adapter.load": "a LoRA adapter was loaded, or is about to be: which one, by its digest",
  "adapter.unload": "a LoRA adapter was unloaded",
  "weights.change": "a running model was given other weights",
  "policy.change": "tenants, limits or rules were changed",
  "egress.refuse": "a fetch that a request named was refused for where it leads",
} as const;
export type EventKind = keyof typeof EVENT_KINDS;

export interface Actor {
  /** As a principal's, or who works at the machine itself. */
  readonly kind: "key" | "token" | "certificate" | "server" | "operator";
  readonly id: string;
  readonly tenant?: string;
}

/** Who works on the command line: a user of the operating system. */
export function operatorActor(user: string): Actor {
  return { kind: "operator", id: user };
}

/** @param fields in the order in which they shall stand; or as they are printed, a comma before each */
export function body(kind: RecordKind, at: number, fields: object | string): string {
  const time = timeText(at);
  if (typeof fields === "string") return `"time":"${time}","kind":"${kind}"${fields}}`;
  return stringifyJson({ time, kind, ...fields }).slice(1);
}

/** The second that was asked for last, up to its point: records come by the thousand in one. */
let known = { second: 0, text: "1970-01-01T00:00:00." };

/** As Date prints it. @param at a whole number */
function timeText(at: number): string {
  const second = Math.floor(at / 1000);
  if (second !== known.second) known = { second, text: new Date(at).toISOString().slice(0, -4) };
  const milliseconds = at - second * 1000;
  return `${known.text}${milliseconds < 10 ? "00" : milliseconds < 100 ? "0" : ""}${milliseconds}Z`;
}

export function line(seq: number, prev: string, text: string): string {
  return `{"seq":${seq},"prev":"${prev}",${text}`;
}

export function hashOf(recordLine: string | Uint8Array): string {
  return hash("sha256", recordLine, "hex");
}

/** A record as it is read back; what the kind adds is in `fields`. */
export interface StoredRecord {
  readonly seq: number;
  readonly prev: string;
  readonly time: string;
  readonly kind: RecordKind;
  readonly fields: Readonly<Record<string, JsonValue>>;
}

const HASH = /^[0-9a-f]{64}$/;

/** Undefined: not a record. */
export function parseRecord(recordLine: string | Uint8Array): StoredRecord | undefined {
  const value = tryParseJson(recordLine);
  if (value === undefined || value === null || typeof value !== "object" || Array.isArray(value)) return undefined;
  const { seq, prev, time, kind, ...fields } = value;
  if (typeof seq !== "number" || !Number.isSafeInteger(seq) || seq < 1) return undefined;
  if (typeof prev !== "string" || !HASH.test(prev) || typeof time !== "string") return undefined;
  if (!KINDS.includes(kind as RecordKind)) return undefined;
  return { seq, prev, time, kind: kind as RecordKind, fields };
}
