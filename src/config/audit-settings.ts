/**
 * The rows of the settings table that are about the audit log. Spread into SETTINGS, under its rules.
 */
import { bytes, choice, integer, string, switched } from "./kinds.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const section = "Audit log";

export const AUDIT_SETTINGS = {
  audit: choice("on", ["on", "off"], {
    section,
    doc: "A chained record of each call before its answer leaves, and of what happens to keys and server.",
    loosens: "nobody can tell afterwards who did what",
  }),
  auditDir: string(undefined, "path", {
    section,
    doc: "Folder of the log (mode 0700).",
    fallbackDoc: "audit in the state directory",
  }),
  auditOnFailure: choice("refuse", ["refuse", "allow"], {
    section,
    doc: "What becomes of a call that cannot be recorded: 503, or an answer, and a count.",
    loosens: "who can fill the disk can call without a trace",
  }),
  auditFileBytes: bytes(16 * MIB, [64 * KIB, 4096 * MIB], {
    section,
    doc: "A new file begins at this size, and with each day (UTC).",
  }),
  auditKeep: integer(400, [2, 1_000_000], {
    section,
    doc: "Files at most; the oldest goes, and the log says so. Times the size of a file: room that the log takes at most.",
  }),
  auditKeepDays: integer(undefined, [1, 36_500], {
    section,
    doc: "Days after which a file goes.",
    fallbackDoc: "as long as there is room",
  }),
  auditCheckpointFile: string(undefined, "path", {
    section,
    doc: "File to which each signed head of the log is appended as a line, for somebody else to hold.",
  }),
  auditContent: switched(false, {
    section,
    doc: "Also keep the first 16,384 characters of each request and each answer of the public listener.",
    loosens: "prompts and answers are kept on disk",
  }),
} as const;
