/**
 * What the routes of administration call. Made by the app.
 */
import type { AdminAudit } from "./admin-audit.ts";
import type { AdminKeys } from "./admin-keys.ts";
import type { AdminPolicy } from "./admin-policy.ts";
import type { AdminUsage } from "./admin-usage.ts";

export type { RecordEvent } from "./_administration.ts";

export interface Administration {
  readonly keys: AdminKeys;
  readonly usage: AdminUsage;
  readonly audit: AdminAudit;
  readonly policy: AdminPolicy;
}
