/**
 * What a kept key is good for at a moment. Pure. Callers: policy, which judges by it, and whoever shows keys.
 */
export const KEY_STATUSES = ["active", "disabled", "deleted", "expired", "not yet"] as const;
export type KeyStatus = (typeof KEY_STATUSES)[number];

/** Unix milliseconds; absent: never. */
export interface KeyTimes {
  readonly notBefore?: number;
  readonly expiresAt?: number;
  readonly disabledAt?: number;
  readonly deletedAt?: number;
}

/** @param now Unix milliseconds */
export function keyStatus({ deletedAt, disabledAt, expiresAt, notBefore }: KeyTimes, now: number): KeyStatus {
  if (deletedAt !== undefined) return "deleted";
  if (disabledAt !== undefined) return "disabled";
  if (expiresAt !== undefined && expiresAt <= now) return "expired";
  if (notBefore !== undefined && notBefore > now) return "not yet";
  return "active";
}
