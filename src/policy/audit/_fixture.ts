/**
 * A log in a folder of its own for tests: with a clock and a disk that can be made to fail.
 */
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { Log } from "#base/log.ts";
import { openStateDirectory } from "#policy/state.ts";
import { segmentsIn } from "./_segments.ts";
import { DISK, type Disk } from "./_writer.ts";
import { keptHeads } from "./heads.ts";
import { AuditLog, type AuditLogOptions } from "./log.ts";
import { hashOf, parseRecord, type StoredRecord } from "./record.ts";
import { stateSigner } from "./signing.ts";

export interface Bench {
  readonly directory: string;
  readonly statePath: string;
  readonly logged: { readonly level: string; readonly message: string; readonly fields: unknown }[];
  /** Milliseconds that the clock says. */
  now: number;
  /** What the next writes do; absent: they write. */
  write: Disk["write"] | undefined;
  open(options?: Partial<AuditLogOptions>): AuditLog;
  /** Every line of every file. */
  lines(): string[];
  records(): StoredRecord[];
}

export function bench(t: TestContext): Bench {
  const root = mkdtempSync(join(tmpdir(), "castellan-audit-"));
  const statePath = join(root, "state");
  const state = openStateDirectory(statePath);
  const directory = openStateDirectory(join(statePath, "audit")).path;
  const opened: AuditLog[] = [];
  t.after(() => Promise.all(opened.map((log) => log.close())));
  const it: Bench = {
    directory,
    statePath,
    logged: [],
    now: Date.parse("2026-11-25T12:00:00Z"),
    write: undefined,
    open: (options = {}) => {
      const log: Log = (level, message, fields) => void it.logged.push({ level, message, fields });
      const audit = new AuditLog({
        directory,
        signer: stateSigner(state),
        heads: keptHeads({ state, directory, file: join(root, "heads"), failed: () => {} }),
        fileBytes: 1 << 20,
        keepFiles: 100,
        keepDays: undefined,
        disk: { ...DISK, write: (fd, bytes) => (it.write ?? DISK.write)(fd, bytes) },
        now: () => it.now,
        log,
        ...options,
      });
      opened.push(audit);
      return audit;
    },
    lines: () => segmentsIn(directory).flatMap(({ path }) => readFileSync(path, "utf8").split("\n").slice(0, -1)),
    records: () => it.lines().map((text) => parseRecord(text) as StoredRecord),
  };
  return it;
}

/** Whether numbers and links hold over all lines. */
export function isChained(lines: readonly string[]): boolean {
  return lines.every((text, i) => {
    const record = parseRecord(text);
    return record !== undefined && record.seq === i + 1 && (i === 0 || record.prev === hashOf(lines[i - 1] ?? ""));
  });
}
