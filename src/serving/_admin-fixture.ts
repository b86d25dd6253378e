/**
 * Administration over a real store, and callers of two tenants. Tests only.
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { UNMETERED } from "#core/metering.ts";
import type { Grant, Principal, Scope } from "#core/principal.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { AuditFailure } from "#policy/audit/log.ts";
import type { Actor } from "#policy/audit/record.ts";
import { authorize } from "#policy/authorize.ts";
import { KeyFeed } from "#policy/key-feed.ts";
import { KeyStore } from "#policy/key-store.ts";
import { KeySet } from "#policy/keys.ts";
import { type PrincipalSpec, principalOf } from "#policy/roles.ts";
import { openStateDirectory } from "#policy/state.ts";
import { openStore, type Store } from "#policy/store/store.ts";
import { AdminKeys } from "./admin-keys.ts";

export interface Recorded {
  readonly kind: string;
  readonly actor: Actor;
  readonly subject: string | undefined;
  readonly details: object | undefined;
}

export interface AdminScene {
  readonly store: Store;
  readonly keys: AdminKeys;
  readonly book: KeyStore;
  /** The keys in force, as a server has them; nobody refreshes them by time. */
  readonly set: KeySet;
  refresh(): Promise<void>;
  readonly events: Recorded[];
  /** From now on nothing can be recorded. */
  breakLog(): void;
}

export async function adminScene(t: TestContext): Promise<AdminScene> {
  const folder = mkdtempSync(join(tmpdir(), "castellan-admin-"));
  const store = await openStore({ state: openStateDirectory(join(folder, "state")) });
  const pepper = randomBytes(32);
  const [book, set] = [new KeyStore(store, pepper), new KeySet(pepper)];
  const feed = await KeyFeed.start({ store, keys: set, log: () => {}, intervalMs: 3_600_000 });
  const events: Recorded[] = [];
  let broken = false;
  const keys = new AdminKeys({
    keys: book,
    refresh: () => feed.refresh(),
    record: async (kind, actor, subject, details) => {
      if (broken) throw new AuditFailure("full");
      events.push({ kind, actor, subject, details });
    },
    caps: DEFAULT_CAPS,
  });
  t.after(async () => {
    await feed.close();
    await store.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    store,
    keys,
    book,
    set,
    refresh: () => feed.refresh(),
    events,
    breakLog: () => {
      broken = true;
    },
  };
}

export function caller(tenant: string, more: Partial<PrincipalSpec> = {}): Principal {
  return principalOf({ id: `key_of_${tenant}`, tenant, role: "admin", ...more });
}

/** Looks after keys and is no administrator. */
export function managerOf(tenant: string, more: Partial<PrincipalSpec> = {}): Principal {
  return caller(tenant, { scopes: ["keys:read", "keys:write"], ...more });
}

export function may<S extends Scope>(principal: Principal, scope: S): Grant<S> {
  return authorize(principal, scope, UNMETERED);
}
