/**
 * The audit log as the app sees it: opened from settings, around the gate, told of start and end; and the same log for
 * a command that changes something. Without `--audit` all of it does nothing.
 */
import { statSync } from "node:fs";
import { userInfo } from "node:os";
import { type Log, silentLog } from "#base/log.ts";
import type { Registry } from "#base/metrics.ts";
import type { Redact } from "#base/redact.ts";
import type { Environment } from "#config/environment.ts";
import type { Settings } from "#config/settings.ts";
import { auditedGate } from "#policy/audit/gate.ts";
import { AuditFailure, type AuditLog } from "#policy/audit/log.ts";
import { registerAuditMetrics } from "#policy/audit/metrics.ts";
import { auditDirectory, openAuditLog } from "#policy/audit/open.ts";
import { type Actor, type EventKind, operatorActor } from "#policy/audit/record.ts";
import type { Gate } from "#policy/gate.ts";
import { openStateDirectory, type StateDirectory } from "#policy/state.ts";
import type { Disk } from "#policy/store/disk.ts";
import { stateDirectory, version } from "./paths.ts";
import { StartupError } from "./startup-error.ts";

const SERVER: Actor = { kind: "server", id: "server" };

export interface Audit {
  /** The gate that records what the given one decides. */
  around(gate: Gate): Gate;
  /** False: calls cannot be recorded and are refused. */
  healthy(): boolean;
  register(registry: Registry): void;
  /** Groups are appended by it where it waits for the same disk: what stands still for one log stands still for both. */
  appendBy(disk: Disk | undefined): void;
  /** @param findings warnings of the configuration. @throws StartupError it cannot be recorded */
  started(facts: object, findings: readonly string[]): Promise<void>;
  /** For whoever changes keys or policy while the server runs. @throws AuditFailure */
  event(kind: EventKind, actor: Actor, subject: string | undefined, details?: object): Promise<void>;
  /** The last record, and the signature under it. */
  stopped(facts: object): Promise<void>;
}

const NO_AUDIT: Audit = {
  around: (gate) => gate,
  healthy: () => true,
  register: () => {},
  appendBy: () => {},
  started: async () => {},
  event: async () => {},
  stopped: async () => {},
};

/** @throws StateError | StartupError */
export function openAudit(settings: Settings, state: StateDirectory, redact: Redact, log: Log): Audit {
  if (settings.audit === "off") return NO_AUDIT;
  const audit = open(settings, state, log);
  const refuses = settings.auditOnFailure === "refuse";
  let close = (): void => {};
  return {
    around: (gate) => {
      const onFailure = settings.auditOnFailure;
      const audited = auditedGate(gate, audit, { onFailure, ...(settings.auditContent ? { content: redact } : {}) });
      close = () => audited.close();
      return audited;
    },
    healthy: () => audit.healthy || !refuses,
    register: (registry) => registerAuditMetrics(registry, audit),
    appendBy: (disk) => {
      if (disk === undefined) return;
      const directory = auditDirectory(state.path, settings.auditDir);
      if (statSync(directory).dev === statSync(state.path).dev) audit.appendBy((group) => disk.append(group));
    },
    started: async (facts, findings) => {
      try {
        await audit.event("server.start", SERVER, undefined, { version: version(), pid: process.pid, ...facts });
        for (const finding of findings)
          await audit.event("config.finding", SERVER, undefined, { finding: redact(finding) });
      } catch (error) {
        if (!(error instanceof AuditFailure)) throw error;
        if (refuses) throw new StartupError(`${error.message}: ${auditDirectory(state.path, settings.auditDir)}`);
      }
    },
    event: (kind, actor, subject, details) => audit.event(kind, actor, subject, details),
    stopped: async (facts) => {
      close();
      await audit.event("server.stop", SERVER, undefined, facts).catch(() => {});
      await audit.close();
    },
  };
}

function open(settings: Settings, state: StateDirectory, log: Log): AuditLog {
  return openAuditLog({
    state,
    directory: settings.auditDir,
    fileBytes: settings.auditFileBytes,
    keepFiles: settings.auditKeep,
    keepDays: settings.auditKeepDays,
    checkpointFile: settings.auditCheckpointFile,
    log,
  });
}

/** Records a change by a command, then lets `work` do it: what cannot be recorded is not done. */
export interface CommandAudit {
  event(kind: EventKind, subject: string | undefined, details?: object): Promise<void>;
}

/**
 * For commands besides the server, which may be running: both append to one log.
 * @throws StateError | AuditFailure, and what the work throws
 */
export async function withCommandAudit<T>(
  settings: Settings,
  env: Environment,
  work: (audit: CommandAudit) => Promise<T>,
): Promise<T> {
  if (settings.audit === "off") return work({ event: async () => {} });
  const state = openStateDirectory(stateDirectory(settings.stateDir, env));
  const audit = open(settings, state, silentLog);
  const actor = operatorActor(userName());
  try {
    return await work({ event: (kind, subject, details) => audit.event(kind, actor, subject, details) });
  } finally {
    await audit.close();
  }
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? "unknown");
  }
}
