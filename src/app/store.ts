/**
 * The store as the settings want it. Callers: serve.ts, and commands that work on the store without a server.
 */
import type { Log } from "#base/log.ts";
import { Secret } from "#base/secret.ts";
import { type StateDirectory, StateError } from "#policy/state.ts";
import { openStore, type Store } from "#policy/store/store.ts";
import { StoreError } from "#policy/store/store-error.ts";
import { databaseUrlOf } from "./given-urls.ts";
import { StartupError } from "./startup-error.ts";

/** @throws StartupError */
export async function openPolicyStore(
  settings: Parameters<typeof databaseUrlOf>[0],
  state: StateDirectory,
  log: Log,
): Promise<Store> {
  const databaseUrl = databaseUrlOf(settings);
  try {
    return await openStore({
      state,
      ...(databaseUrl === undefined ? {} : { databaseUrl: new Secret(databaseUrl) }),
      onError: (reason) => log("warn", "a connection to the database broke", { reason }),
    });
  } catch (error) {
    if (error instanceof StateError || error instanceof StoreError) throw new StartupError(error.message);
    throw error;
  }
}
