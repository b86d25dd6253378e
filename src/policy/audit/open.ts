/**
 * Opens the log of a directory: private files, the log's key, the heads kept in the state directory.
 *
 * Callers: app, for the server and for commands that have something to record.
 */
import { join, resolve } from "node:path";
import type { Log } from "#base/log.ts";
import { openStateDirectory, type StateDirectory } from "#policy/state.ts";
import { keptHeads } from "./heads.ts";
import { AuditLog } from "./log.ts";
import { stateSigner } from "./signing.ts";

export interface AuditPlace {
  readonly state: StateDirectory;
  /** Absent: `audit` in the state directory. */
  readonly directory: string | undefined;
}

export interface AuditOptions extends AuditPlace {
  readonly fileBytes: number;
  readonly keepFiles: number;
  readonly keepDays: number | undefined;
  readonly checkpointFile: string | undefined;
  readonly log: Log;
}

export function auditDirectory(statePath: string, directory: string | undefined): string {
  return resolve(directory ?? join(statePath, "audit"));
}

/** @throws StateError the directory or the key is not as it should be */
export function openAuditLog({ state, directory, checkpointFile, log, ...limits }: AuditOptions): AuditLog {
  const path = openStateDirectory(auditDirectory(state.path, directory), "audit directory").path;
  const heads = keptHeads({
    state,
    directory: path,
    file: checkpointFile === undefined ? undefined : resolve(checkpointFile),
    failed: (error) =>
      log("error", "the head of the audit log cannot be kept", {
        code: (error as NodeJS.ErrnoException).code ?? String(error),
      }),
  });
  return new AuditLog({ ...limits, directory: path, signer: stateSigner(state), heads, log });
}
