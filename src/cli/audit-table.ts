/**
 * Records of the audit log as lines of a table, for people.
 *
 * Invariants: one line a record, no wider than the terminal; control characters from wherever never reach it.
 */
import type { StoredRecord } from "#policy/audit/record.ts";

export interface TableOptions {
  /** Columns; undefined: as wide as the record is. */
  readonly width: number | undefined;
  readonly colour: boolean;
}

const [TIME, SEQ, KIND, WHO, STATUS] = [20, 8, 12, 36, 7];

export function tableHead(options: TableOptions): string {
  const head = `${"TIME".padEnd(TIME)} ${"RECORD".padStart(SEQ)} ${"KIND".padEnd(KIND)} ${"WHO".padEnd(WHO)} ${"STATUS".padEnd(STATUS)} WHAT`;
  return paint(cut(head, options.width), "1", options.colour);
}

export function tableLine(record: StoredRecord, options: TableOptions): string {
  const { time, seq, kind } = record;
  const cells = [
    `${time.slice(0, 19)}Z`.padEnd(TIME),
    String(seq).padStart(SEQ),
    kind.padEnd(KIND),
    cut(who(record), WHO).padEnd(WHO),
    statusOf(record).padEnd(STATUS),
    what(record),
  ];
  const text = cut(printable(cells.join(" ")), options.width).trimEnd();
  return paint(text, colourOf(record), options.colour);
}

type Fields = StoredRecord["fields"];

function who({ kind, fields }: StoredRecord): string {
  const person = (fields["principal"] ?? fields["actor"]) as Fields | null | undefined;
  if (person === undefined || person === null) return kind === "call" ? "nobody" : "";
  const tenant = person["tenant"] === undefined ? "" : `@${String(person["tenant"])}`;
  return `${String(person["id"])}${tenant}`;
}

function statusOf({ kind, fields }: StoredRecord): string {
  const { status, decision } = fields;
  if (typeof status !== "number") return "";
  return kind === "call" && decision === "deny" ? `${status} no` : String(status);
}

function what({ kind, fields }: StoredRecord): string {
  switch (kind) {
    case "call":
      return `${String(fields["method"])} ${fields["route"] === null ? "(no route)" : String(fields["route"])}${fault(fields)}${usage(fields)} from ${String(fields["peer"])}`;
    case "end":
      return `ends ${String(fields["call"])} after ${String(fields["milliseconds"])} ms${fault(fields)}${usage(fields)}`;
    case "event": {
      const subject = fields["subject"] === null ? "" : ` ${String(fields["subject"])}`;
      return `${String(fields["event"])}${subject}${details(fields["details"])}`;
    }
    case "checkpoint":
      return `signed by ${String(fields["key"])}`;
    case "segment":
      return `file ${String(fields["number"])} of log ${String(fields["chain"])}`;
    default:
      return details(fields).trim();
  }
}

function fault({ fault: kind }: Fields): string {
  return kind === null || kind === undefined ? "" : ` ${String(kind)}`;
}

function usage({ model, usage: used }: Fields): string {
  if (model === undefined || typeof used !== "object" || used === null || Array.isArray(used)) return "";
  return ` ${String(model)} ${String(used["prompt"])}+${String(used["completion"])} tokens`;
}

function details(value: unknown): string {
  if (typeof value !== "object" || value === null) return "";
  const printed = Object.entries(value).map(([name, one]) => {
    const text = typeof one === "object" && one !== null ? `{${details(one).trim()}}` : String(one);
    return `${name}=${text}`;
  });
  return printed.length === 0 ? "" : ` ${printed.join(" ")}`;
}

function colourOf({ kind, fields }: StoredRecord): string {
  if (kind === "damage" || kind === "gap") return "31";
  if (kind === "checkpoint" || kind === "segment") return "2";
  const { status } = fields;
  if (typeof status !== "number" || status < 400) return "";
  return status < 500 ? "33" : "31";
}

function paint(text: string, code: string, colour: boolean): string {
  return colour && code !== "" ? `\u001b[${code}m${text}\u001b[0m` : text;
}

function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");
}

function cut(text: string, width: number | undefined): string {
  return width === undefined || text.length <= width ? text : `${text.slice(0, Math.max(1, width - 1))}…`;
}
