/**
 * The newest records of a log, and those that come: for people who look at it. Nothing is verified here.
 *
 * Callers: cli, and app for the operations listener.
 */
import { setTimeout as wait } from "node:timers/promises";
import { linesBackward, linesForward } from "./_lines.ts";
import { look, segmentsIn } from "./_segments.ts";
import { snapshot } from "./_snapshot.ts";
import { parseRecord, type StoredRecord } from "./record.ts";

const POLL_MS = 300;

/** Absent: all. */
export interface RecordFilter {
  readonly tenant?: string;
  /** Id of a principal or actor, or the subject of an event. */
  readonly principal?: string;
  /** A declared path. */
  readonly route?: string;
  /** `404`, or `4xx`. */
  readonly status?: string;
  /** Unix milliseconds. */
  readonly since?: number;
}

export interface Newest {
  readonly records: readonly StoredRecord[];
  /** Where they end, for `recordsFrom`. */
  readonly end: LogPlace;
}

export interface LogPlace {
  readonly number: number;
  readonly offset: number;
}

/**
 * @param count at most. @param signal ends it
 * @throws system errors: the directory cannot be read; the signal's reason
 */
export async function newestRecords(
  directory: string,
  count: number,
  filter: RecordFilter,
  signal?: AbortSignal,
): Promise<Newest> {
  const segments = await snapshot(directory);
  const newest = segments.at(-1);
  const end = { number: newest?.number ?? 1, offset: newest?.size ?? 0 };
  const records: StoredRecord[] = [];
  for (const { path, size } of segments.toReversed()) {
    for await (const bytes of linesBackward(path, size)) {
      if (records.length >= count) break;
      signal?.throwIfAborted();
      const record = parseRecord(bytes);
      if (record === undefined) continue;
      if (isBefore(record, filter.since)) return { records: records.reverse(), end };
      if (matches(record, filter)) records.push(record);
    }
    if (records.length >= count) break;
  }
  return { records: records.reverse(), end };
}

/** Those that come after `place`, over all files, until the signal. */
export async function* recordsFrom(
  directory: string,
  place: LogPlace,
  filter: RecordFilter,
  signal: AbortSignal,
): AsyncGenerator<StoredRecord> {
  let { number, offset } = place;
  while (!signal.aborted) {
    const segments = segmentsIn(directory);
    for (const segment of segments.filter((one) => one.number >= number)) {
      const from = segment.number === number ? offset : 0;
      [number, offset] = [segment.number, from];
      for await (const lines of linesForward(segment.path, from, look(segment.path)?.size ?? 0)) {
        for (const { bytes, whole, offset: at } of lines) {
          if (!whole) break;
          offset = at + bytes.length + 1;
          const record = parseRecord(bytes);
          if (record !== undefined && matches(record, filter)) yield record;
        }
      }
    }
    await wait(POLL_MS, undefined, { signal }).catch(() => {});
  }
}

function isBefore({ time }: StoredRecord, since: number | undefined): boolean {
  return since !== undefined && Date.parse(time) < since;
}

export function matches(record: StoredRecord, filter: RecordFilter): boolean {
  const who = (record.fields["principal"] ?? record.fields["actor"] ?? {}) as Readonly<Record<string, unknown>>;
  const { tenant, principal, route, status, since } = filter;
  if (tenant !== undefined && who["tenant"] !== tenant) return false;
  if (principal !== undefined && who["id"] !== principal && record.fields["subject"] !== principal) return false;
  if (route !== undefined && record.fields["route"] !== route && record.fields["target"] !== route) return false;
  return statusMatches(record.fields["status"], status) && !isBefore(record, since);
}

function statusMatches(status: unknown, wanted: string | undefined): boolean {
  if (wanted === undefined) return true;
  const text = String(status ?? "");
  return wanted.endsWith("xx") ? text.length === 3 && text[0] === wanted[0] : text === wanted;
}
