/**
 * A stored key as somebody who asks. Pure. Callers: whoever says what one may do.
 */
import { type KeyStatus, keyStatus } from "#core/key-status.ts";
import type { Asker } from "./explain.ts";
import { profileOf } from "./key-spec.ts";
import type { KeyRecord } from "./key-store.ts";

const SAYS: Readonly<Record<Exclude<KeyStatus, "active">, string>> = {
  disabled: "is disabled",
  deleted: "is deleted",
  expired: "has expired",
  "not yet": "is not valid yet",
};

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
