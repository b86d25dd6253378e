/**
 * What the routes of administration call. Made by the app.
 */
import type { AdminKeys } from "./admin-keys.ts";

export interface Administration {
  readonly keys: AdminKeys;
}
