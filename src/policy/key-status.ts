/**
 * What a stored key is good for at a moment. Pure. Callers: whoever shows keys, or says what one may do.
 */
import type { Asker } from "./explain.ts";
import { profileOf } from "./key-spec.ts";
import type { KeyRecord } from "./key-store.ts";

export type KeyStatus = "active" | "disabled" | "deleted" | "expired" | "not yet";

const SAYS: Readonly<Record<Exclude<KeyStatus, "active">, string>> = {
  disabled: "is disabled",
  deleted: "is deleted",
  expired: "has expired",
  "not yet": "is not valid yet",
};

/** @param now Unix milliseconds */
export function keyStatus(record: KeyRecord, now: number): KeyStatus {
  if (record.deletedAt !== undefined) return "deleted";
  if (record.disabledAt !== undefined) return "disabled";
  if (record.expiresAt !== undefined && record.expiresAt <= now) return "expired";
  if (record.notBefore !== undefined && record.notBefore > now) return "not yet";
  return "active";
}

/** The key as the corridor would take it. */
export function askerOfKey(record: KeyRecord, now: number): Asker {
  const { id, name, tenant, role } = record;
  const who = `${id}${name === "" ? "" : ` (${name})`}`;
  const principal = { ...profileOf(record), id };
  const status = keyStatus(record, now);
  return status === "active"
    ? { kind: "known", principal, says: `${who} of ${tenant}, with the role ${role}` }
    : { kind: "refused", status: 401, says: `${who} ${SAYS[status]}`, principal };
}
