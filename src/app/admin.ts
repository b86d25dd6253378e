/**
 * Administration as the settings want it: over the store, the keys in force and the audit log. Called by serve.ts.
 */
import { capSettingOf, type Settings } from "#config/settings.ts";
import { capsOf } from "#core/request-caps.ts";
import { auditDirectory } from "#policy/audit/open.ts";
import { newestRecords } from "#policy/audit/read.ts";
import { verifyLog } from "#policy/audit/verify.ts";
import type { Store } from "#policy/store/store.ts";
import { readUsage } from "#policy/usage/table.ts";
import { routes } from "#routes/index.ts";
import { AdminAudit, type AuditReader } from "#serving/admin-audit.ts";
import { AdminKeys } from "#serving/admin-keys.ts";
import { AdminPolicy } from "#serving/admin-policy.ts";
import { AdminUsage } from "#serving/admin-usage.ts";
import type { Administration } from "#serving/administration.ts";
import type { Audit } from "./audit.ts";
import { evidence, filesOf } from "./audit-files.ts";
import type { Keys } from "./keys.ts";
import type { Policy } from "./policy.ts";
import { routeFacts } from "./switches.ts";

export interface AdminParts {
  readonly settings: Settings;
  /** Of the state directory. */
  readonly statePath: string;
  readonly store: Store;
  readonly keys: Pick<Keys, "book" | "refresh">;
  readonly audit: Pick<Audit, "event">;
  readonly rules: Policy;
}

export function openAdministration({ settings, statePath, store, keys, audit, rules }: AdminParts): Administration {
  return {
    keys: new AdminKeys({
      keys: keys.book,
      refresh: keys.refresh,
      record: audit.event,
      caps: capsOf((_row, name) => settings[capSettingOf(name)]),
    }),
    usage: new AdminUsage({ read: (query) => readUsage(store.db, query) }),
    audit: new AdminAudit(settings.audit === "off" ? undefined : auditReader(settings, statePath)),
    policy: new AdminPolicy({
      current: rules.current,
      words: async () => (await import("./caller-words.ts")).callerWords(settings, rules.current().file),
      reload: rules.reload,
      test: async (text) => (await import("./policy-file.ts")).testPolicyText(text),
      keys: keys.book,
      routes: routeFacts(routes, settings),
    }),
  };
}

function auditReader({ auditDir }: Pick<Settings, "auditDir">, statePath: string): AuditReader {
  const directory = auditDirectory(statePath, auditDir);
  const files = () => filesOf(directory, statePath);
  return {
    newest: async (count, filter, signal) => (await newestRecords(directory, count, filter, signal)).records,
    // The head is read before the files, so that they hold it.
    verify: (signal) => verifyLog(directory, { ...evidence(files(), {}), signal }),
    head: files,
  };
}
