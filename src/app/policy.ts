/**
 * What the operator's policy says at the moment: that of the file of --policy, or nothing. The reading of the file is in
 * policy-file.ts, which loads where there is one. Called by serve.ts; its parts ask `current()` at every call.
 */
import type { Log } from "#base/log.ts";
import type { Settings } from "#config/settings.ts";
import type { Actor } from "#policy/audit/record.ts";
import type { PolicyFile } from "#policy/file/schema.ts";
import { TenantRules } from "#policy/file/tenants.ts";
import { StartupError } from "./startup-error.ts";

export interface PolicyInForce {
  readonly file: PolicyFile;
  readonly tenants: TenantRules;
  /** Of the file's bytes, hex; undefined: there is no file. */
  readonly sha256: string | undefined;
}

/** A part of the server that the file says something to. @returns puts it in force; must not throw */
export type Prepare = (next: PolicyFile) => (() => void) | Promise<() => void>;
export type RecordChange = (actor: Actor, details: object) => Promise<void>;

export interface Policy {
  readonly path: string | undefined;
  current(): PolicyInForce;
  /** Asked at each reload, before anything changes. */
  onReload(prepare: Prepare): void;
  /** Where a reload is recorded before it holds. */
  recordIn(record: RecordChange): void;
  /** @throws StartupError the file is not right, or there is none, and everything stays as it was | AuditFailure */
  reload(actor: Actor): Promise<PolicyInForce>;
}

/** @throws StartupError */
export async function openPolicy(settings: Settings): Promise<Policy> {
  return settings.policy === undefined ? NO_POLICY : (await import("./policy-file.ts")).openPolicyFile(settings);
}

const NOTHING: PolicyInForce = { file: { version: 1 }, tenants: new TenantRules(), sha256: undefined };

const NO_POLICY: Policy = {
  path: undefined,
  current: () => NOTHING,
  onReload: () => {},
  recordIn: () => {},
  reload: () => Promise.reject(new StartupError("the server has no policy file: --policy names one")),
};

/** Reads the file anew at SIGHUP, for as long as the process lives. */
export function reloadOnHangup(policy: Policy, log: Log): void {
  if (policy.path === undefined) return;
  process.on("SIGHUP", () => {
    policy.reload({ kind: "operator", id: "SIGHUP" }).then(
      ({ sha256 }) => log("info", "the policy file was read anew", { sha256 }),
      (error: unknown) => {
        const reason = error instanceof Error ? error.message : String(error);
        log("error", "the policy file is not right, and what held goes on", { reason });
      },
    );
  });
}
