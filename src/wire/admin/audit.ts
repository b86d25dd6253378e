/**
 * The audit log over the admin routes: what is asked, and how records and findings are printed, by `castellan audit
 * --json` too. Pure.
 */
import { z } from "zod";
import type { JsonValue } from "#base/json.ts";
import { count, given, printedTime, queryCount, timestamp } from "./_fields.ts";

const MOST_RECORDS = 1000;
const name = z.string().max(256);

export const ListRecordsQuery = z.strictObject({
  limit: queryCount(1, MOST_RECORDS, 100, "Records at most: the newest."),
  tenant: name.optional().meta({ description: "Of whoever did it." }),
  key: name.optional().meta({ description: "Id of whoever did it, or of what it was done to." }),
  route: name.optional().meta({ description: "A declared path: /v1/chat/completions." }),
  status: z
    .string()
    .regex(/^[1-5](\d\d|xx)$/, "takes a status such as 403, or 4xx")
    .optional(),
  since: timestamp.optional(),
});

export interface ListRecordsCall {
  readonly limit: number;
  readonly tenant?: string;
  readonly principal?: string;
  readonly route?: string;
  readonly status?: string;
  /** Unix milliseconds. */
  readonly since?: number;
}

export function decodeListRecords(query: z.infer<typeof ListRecordsQuery>): ListRecordsCall {
  const { limit, tenant, key: principal, route, status, since } = query;
  const time = since === undefined ? undefined : Date.parse(since);
  return { limit, ...given({ tenant, principal, route, status, since: time }) };
}

const RecordReply = z.looseObject({ seq: count, prev: z.string(), time: z.string(), kind: z.string() });
export const RecordListReply = z.object({ data: z.array(RecordReply) });

/** A record as it is read back. */
export interface PrintedRecord {
  readonly seq: number;
  readonly prev: string;
  readonly time: string;
  readonly kind: string;
  readonly fields: Readonly<Record<string, JsonValue>>;
}

/** In the order of the line that it was. */
export function encodeRecord({ fields, ...record }: PrintedRecord): z.infer<typeof RecordReply> {
  return { ...record, ...fields };
}

export function encodeRecords(records: readonly PrintedRecord[]): z.infer<typeof RecordListReply> {
  return { data: records.map(encodeRecord) };
}

const place = z.object({ seq: count, time: printedTime, hash: z.string().optional() });

export const VerificationReply = z.object({
  findings: z.array(z.object({ kind: z.string(), file: z.string(), line: count, text: z.string() })),
  more_findings: count.meta({ description: "Beyond those that are listed." }),
  notes: z.array(z.string()),
  chain: z.string().nullable(),
  files: count,
  records: count,
  first: place.nullable(),
  last: place.nullable(),
  checkpoints: count,
  key: z.string().nullable().meta({ description: "Fingerprint of the key that the checkpoints were checked with." }),
  key_source: z.enum(["given", "the log"]),
  unsigned: count.meta({ description: "Records behind the last checkpoint." }),
});

type Verified = z.infer<typeof VerificationReply>;

/** What was found, as it is told within the program. */
export interface PrintedVerification {
  readonly findings: readonly Verified["findings"][number][];
  readonly moreFindings: number;
  readonly notes: readonly string[];
  readonly chain: string | undefined;
  readonly files: number;
  readonly records: number;
  readonly first: { readonly seq: number; readonly time: string } | undefined;
  readonly last: { readonly seq: number; readonly time: string; readonly hash: string } | undefined;
  readonly checkpoints: number;
  readonly key: string | undefined;
  readonly keySource: Verified["key_source"];
  readonly unsigned: number;
}

export function encodeVerification(found: PrintedVerification): Verified {
  const { first, last } = found;
  return {
    findings: [...found.findings],
    more_findings: found.moreFindings,
    notes: [...found.notes],
    chain: found.chain ?? null,
    files: found.files,
    records: found.records,
    first: first === undefined ? null : { seq: first.seq, time: first.time },
    last: last ?? null,
    checkpoints: found.checkpoints,
    key: found.key ?? null,
    key_source: found.keySource,
    unsigned: found.unsigned,
  };
}

const head = z.looseObject({
  chain: z.string(),
  seq: count,
  hash: z.string(),
  time: z.string(),
  signature: z.string(),
  key: z.string().meta({ description: "Fingerprint of the key." }),
});

export const HeadReply = z.object({
  head: head.nullable().meta({ description: "As it was signed last." }),
  public_key: z.string().nullable().meta({ description: "PEM, Ed25519." }),
});

export function encodeHead(
  signed: z.infer<typeof head> | undefined,
  publicKey: string | undefined,
): z.infer<typeof HeadReply> {
  return { head: signed ?? null, public_key: publicKey ?? null };
}
