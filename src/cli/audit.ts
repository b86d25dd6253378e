/**
 * `castellan audit verify|tail|head|key`: the audit log of this machine, or a copy of one, without a server.
 */
import { type AuditFilesOptions, auditFiles, evidence } from "#app/audit-files.ts";
import { StartupError } from "#app/startup-error.ts";
import { stringifyJson } from "#base/json.ts";
import { environment } from "#config/environment.ts";
import { SettingError } from "#config/kinds.ts";
import { newestRecords, type RecordFilter, recordsFrom } from "#policy/audit/read.ts";
import type { StoredRecord } from "#policy/audit/record.ts";
import { type Verification, verifyLog } from "#policy/audit/verify.ts";
import { encodeRecord, encodeVerification } from "#wire/admin/audit.ts";
import { type TableOptions, tableHead, tableLine } from "./audit-table.ts";
import { createProgress } from "./progress.ts";
import { FAILURE, fail, USAGE } from "./serve.ts";

interface VerifyArguments {
  readonly stateDir?: string;
  readonly publicKey?: string;
  readonly head?: string;
  readonly json?: boolean;
}

/** @returns 0: whole; 1: not, or it cannot be read; 2: a wrong call */
export function runVerify(directory: string | undefined, options: VerifyArguments): Promise<number> {
  return reading(async () => {
    const files = auditFiles({ directory, stateDir: options.stateDir }, environment());
    const progress = createProgress(process.stderr);
    const found = await verifyLog(files.directory, {
      ...evidence(files, options),
      onProgress: (_, done, total) => {
        if (total > LONG_BYTES) progress.update("Verifying", done, total);
      },
    });
    progress.stop();
    print(
      options.json === true
        ? stringifyJson({ directory: files.directory, ...encodeVerification(found) })
        : report(files.directory, found),
    );
    return found.findings.length === 0 ? 0 : FAILURE;
  });
}

/** Below this it is over before a bar could be read. */
const LONG_BYTES = 64 << 20;

function report(directory: string, found: Verification): string {
  const { first, last, checkpoints, key, keySource, unsigned } = found;
  const span =
    first === undefined || last === undefined ? "" : `, ${first.seq} to ${last.seq}, ${first.time} to ${last.time}`;
  const trust = keySource === "given" ? "" : " (named by the log itself; --public-key says which it has to be)";
  const lines = [
    `log          ${directory}`,
    `chain        ${found.chain ?? "-"}`,
    `records      ${found.records} in ${found.files} files${span}`,
    `head         ${last?.hash ?? "-"}`,
    `checkpoints  ${checkpoints}, key ${key ?? "-"}${trust}`,
    `unsigned     ${unsigned} ${unsigned === 1 ? "record" : "records"} after the last checkpoint`,
    ...found.notes.map((note) => `note         ${note}`),
    ...found.findings.map(
      ({ kind, file, line, text }) => `${kind.toUpperCase().padEnd(12)} ${file}${line > 0 ? `:${line}` : ""}: ${text}`,
    ),
  ];
  if (found.moreFindings > 0) lines.push(`             and ${found.moreFindings} more`);
  lines.push(found.findings.length === 0 ? "The log is whole." : "The log is not what was written.");
  return lines.join("\n");
}

interface TailArguments {
  readonly dir?: string;
  readonly stateDir?: string;
  readonly lines: number;
  readonly follow?: boolean;
  readonly tenant?: string;
  readonly key?: string;
  readonly route?: string;
  readonly status?: string;
  readonly since?: string;
  readonly json?: boolean;
}

export function runTail(options: TailArguments): Promise<number> {
  return reading(async () => {
    const filter = filterOf(options);
    if (typeof filter === "string") return fail(filter, USAGE);
    const { directory } = auditFiles({ directory: options.dir, stateDir: options.stateDir }, environment());
    const table: TableOptions = {
      width: process.stdout.isTTY ? process.stdout.columns : undefined,
      colour: process.stdout.isTTY === true && environment()["NO_COLOR"] === undefined,
    };
    const show = (record: StoredRecord): void =>
      print(options.json === true ? stringifyJson(encodeRecord(record)) : tableLine(record, table));
    const { records, end } = await newestRecords(directory, options.lines, filter);
    if (options.json !== true) print(tableHead(table));
    for (const record of records) show(record);
    if (options.follow !== true) return 0;
    const stop = new AbortController();
    process.once("SIGINT", () => stop.abort());
    process.once("SIGTERM", () => stop.abort());
    for await (const record of recordsFrom(directory, end, filter, stop.signal)) show(record);
    return 0;
  });
}

/** @returns the filter, or what is wrong */
function filterOf({ tenant, key, route, status, since, lines }: TailArguments): RecordFilter | string {
  if (!Number.isSafeInteger(lines) || lines < 0) return "-n takes a number of records";
  if (status !== undefined && !/^[1-5](\d\d|xx)$/.test(status)) return "--status takes a status such as 403, or 4xx";
  const from = since === undefined ? undefined : momentOf(since);
  if (Number.isNaN(from)) return "--since takes a time such as 2026-11-25T10:00Z, or an age such as 90s, 10m, 2h, 1d";
  return {
    ...(tenant === undefined ? {} : { tenant }),
    ...(key === undefined ? {} : { principal: key }),
    ...(route === undefined ? {} : { route }),
    ...(status === undefined ? {} : { status }),
    ...(from === undefined ? {} : { since: from }),
  };
}

const UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Unix milliseconds; NaN: neither a time nor an age. */
function momentOf(text: string): number {
  const age = /^(\d{1,9})([smhd])$/.exec(text);
  return age === null ? Date.parse(text) : Date.now() - Number(age[1]) * (UNITS[age[2] ?? ""] ?? Number.NaN);
}

/** The head that the server kept at its last checkpoint, for somebody else to hold. */
export function runHead(options: AuditFilesOptions): Promise<number> {
  return reading(async () => {
    const { head, directory } = auditFiles(options, environment());
    if (head === undefined) return fail(`no head of ${directory} is kept here`, FAILURE);
    print(stringifyJson(head));
    return 0;
  });
}

export function runKey(options: AuditFilesOptions): Promise<number> {
  return reading(async () => {
    const { publicKey } = auditFiles(options, environment());
    if (publicKey === undefined) return fail("the state directory holds no key of an audit log", FAILURE);
    process.stdout.write(publicKey);
    return 0;
  });
}

async function reading(work: () => Promise<number>): Promise<number> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof StartupError) return fail(error.message, FAILURE);
    if (error instanceof SettingError) return fail(error.message, USAGE);
    const { code, path } = error as NodeJS.ErrnoException;
    if (code !== undefined && path !== undefined) return fail(`${path} cannot be read (${code})`, FAILURE);
    throw error;
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
