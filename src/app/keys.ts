/**
 * Which keys may call: those of the store, and besides them those that the operator gave (flag, variable, file), which
 * are users of the default tenant and are never stored.
 */
import { createHmac } from "node:crypto";
import type { Log } from "#base/log.ts";
import { Secret } from "#base/secret.ts";
import type { Settings } from "#config/settings.ts";
import { Fault } from "#core/fault.ts";
import { OPERATOR_TENANT } from "#core/principal.ts";
import { ensureFirstKey, importOldKeys } from "#policy/first-key.ts";
import type { Provers } from "#policy/identify.ts";
import { KeyFeed } from "#policy/key-feed.ts";
import { KeyStore } from "#policy/key-store.ts";
import { KeySet, type KnownKey, keyDigest, mintKey, operatorKey, type Pepper } from "#policy/keys.ts";
import { openPepper, readPepper } from "#policy/pepper.ts";
import { principalOf } from "#policy/roles.ts";
import { type StateDirectory, StateError } from "#policy/state.ts";
import type { Store } from "#policy/store/store.ts";
import { readSecretFile } from "./secret-file.ts";
import { StartupError } from "./startup-error.ts";

export interface Keys {
  readonly find: Provers["keys"];
  /** Keys that the operator gave with this start. */
  readonly given: number;
  /** Whether one of them has this id. */
  isGiven(id: string): boolean;
  /**
   * Makes a key if there is none anywhere and never was: for the moment when it can be printed, since a start that
   * fails in between would burn it. @returns the key, which cannot be had again
   */
  ensureOne(): Promise<Secret | undefined>;
  /** Keys of the store that are not deleted. */
  stored(): Promise<number>;
  /** Those of the store. */
  readonly book: KeyStore;
  /** Takes over what changed in the store. @throws what the store throws */
  refresh(): Promise<void>;
  /** A secret of all servers that share the store, for one purpose. */
  secretFor(purpose: string): Uint8Array;
  /** A key that lives only until `revoke`, for the server's own first question. */
  temporary(): { readonly key: Secret; readonly revoke: () => void };
  /** Before the store closes. */
  close(): Promise<void>;
}

type KeySettings = Pick<Settings, "apiKey" | "apiKeyFile" | "pepperFile">;

/** @throws StartupError | StateError */
export async function openKeys(settings: KeySettings, state: StateDirectory, store: Store, log: Log): Promise<Keys> {
  const pepper = await openPepper(store, state, givenPepper(settings));
  const keyStore = new KeyStore(store, pepper);
  const imported = await importOldKeys(state, keyStore);
  if (imported > 0)
    log("warn", "keys of version 0.1 are in the store now, with the role user: operations want a key of their own", {
      keys: imported,
    });
  const given = givenKeys(settings).map((key, i) => operator(pepper, key, i + 1));
  // The store's word comes last: what is disabled there stays so, whatever a flag says.
  const set = new KeySet(pepper, given);
  const feed = await KeyFeed.start({ store, keys: set, log });
  return {
    find: (key, kept) => {
      if (feed.stale) throw stale();
      return set.find(key, kept);
    },
    given: given.length,
    isGiven: (id) => given.some((key) => key.id === id),
    ensureOne: async () => {
      if (given.length > 0) return undefined;
      const key = await ensureFirstKey(keyStore);
      await feed.refresh();
      return key;
    },
    stored: () => keyStore.count(),
    book: keyStore,
    refresh: () => feed.refresh(),
    secretFor: (purpose) => createHmac("sha256", pepper).update(`castellan ${purpose}\0`).digest(),
    temporary: () => temporary(pepper, set),
    close: () => feed.close(),
  };
}

/** What keys are hashed under, for commands that work without a server. @throws StartupError | StateError */
export async function openKeyStore(
  settings: Pick<Settings, "pepperFile">,
  state: StateDirectory,
  store: Store,
): Promise<KeyStore> {
  return new KeyStore(store, await openPepper(store, state, givenPepper(settings)));
}

function stale(): Fault {
  return new Fault("policy_unavailable", "The server cannot check keys at the moment.", {
    detail: "the store has not answered for minutes: withdrawn keys would not be known",
    retryAfterMs: 5000,
  });
}

function temporary(pepper: Pepper, set: KeySet): ReturnType<Keys["temporary"]> {
  const key = mintKey();
  const id = "key_self";
  const digest = keyDigest(pepper, key.expose());
  const profile = principalOf({ id, tenant: OPERATOR_TENANT, role: "user", kind: "server" });
  set.put({ id, digest, profile });
  return { key, revoke: () => set.put({ id, digest, profile, state: "deleted" }) };
}

/** The operator's own. @throws StartupError the file cannot be read */
export function givenKeys(settings: Pick<Settings, "apiKey" | "apiKeyFile">): Secret[] {
  return [...settings.apiKey, ...fromFile(settings.apiKeyFile)].map((key) => new Secret(key));
}

function operator(pepper: Pepper, key: Secret, index: number): KnownKey {
  try {
    return operatorKey(pepper, key, index, "user");
  } catch (error) {
    throw new StartupError(error instanceof Error ? error.message : "an API key cannot be used");
  }
}

function givenPepper({ pepperFile }: Pick<Settings, "pepperFile">): Pepper | undefined {
  if (pepperFile === undefined) return undefined;
  try {
    return readPepper(readSecretFile(pepperFile, "the pepper file"));
  } catch (error) {
    if (error instanceof StateError) throw new StartupError(error.message);
    throw error;
  }
}

function fromFile(path: string | undefined): string[] {
  if (path === undefined) return [];
  const keys = readSecretFile(path, "the key file")
    .toString("utf8")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (keys.length === 0) throw new StartupError("the key file holds no key");
  return keys;
}
