/**
 * Administration as the settings want it: over the store, the keys in force and the audit log. Called by serve.ts.
 */
import { capSettingOf, type Settings } from "#config/settings.ts";
import { capsOf } from "#core/request-caps.ts";
import { AdminKeys } from "#serving/admin-keys.ts";
import type { Administration } from "#serving/administration.ts";
import type { Audit } from "./audit.ts";
import type { Keys } from "./keys.ts";

export interface AdminParts {
  readonly settings: Settings;
  readonly keys: Pick<Keys, "book" | "refresh">;
  readonly audit: Pick<Audit, "event">;
}

export function openAdministration({ settings, keys, audit }: AdminParts): Administration {
  return {
    keys: new AdminKeys({
      keys: keys.book,
      refresh: keys.refresh,
      record: audit.event,
      caps: capsOf((_row, name) => settings[capSettingOf(name)]),
    }),
  };
}
