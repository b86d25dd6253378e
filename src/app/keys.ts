/**
 * Which keys may call: the operator's (flag, variable, file), or the one that the first start mints.
 */
import { readFileSync, statSync } from "node:fs";
import { Secret } from "#base/secret.ts";
import type { Settings } from "#config/settings.ts";
import type { Provers } from "#policy/identify.ts";
import { KeySet, type KnownKey, keyDigest, mintKey, operatorKey, type Pepper } from "#policy/keys.ts";
import { type StateDirectory, statePepper } from "#policy/state.ts";
import { StartupError } from "./startup-error.ts";

export interface Keys {
  readonly find: Provers["keys"];
  /** Print it now: it cannot be had again. */
  readonly minted: Secret | undefined;
  /** `given`: by the operator. `minted`: now. `kept`: an earlier start printed it. */
  readonly source: "given" | "minted" | "kept";
  /** A key that lives only until `revoke`, for the server's own first question. */
  temporary(): { readonly key: Secret; readonly revoke: () => void };
}

const OTHERS = 0o077;
const MAX_KEY_FILE_BYTES = 1 << 20;

/**
 * The keys that are there already: the operator's, or an earlier start's. Undefined: one has to be minted, which is
 * for the moment when it can be printed, since a start that fails in between would burn it.
 * @throws StateError | StartupError
 */
export async function existingKeys(settings: Settings, state: StateDirectory): Promise<Keys | undefined> {
  const given = [...settings.apiKey, ...fromFile(settings.apiKeyFile)].map((key) => new Secret(key));
  if (given.length > 0) {
    const pepper = statePepper(state);
    return keysOf(
      pepper,
      given.map((key, i) => operator(pepper, key, i + 1)),
      "given",
      undefined,
    );
  }
  return state.read("keys.json") === undefined ? undefined : mintedKeys(state);
}

function operator(pepper: Pepper, key: Secret, index: number): KnownKey {
  try {
    return operatorKey(pepper, key, index, "admin");
  } catch (error) {
    throw new StartupError(error instanceof Error ? error.message : "an API key cannot be used");
  }
}

/** Mints the key if there is none yet. @throws StateError */
export async function mintedKeys(state: StateDirectory): Promise<Keys> {
  const { ensureKey } = await import("#policy/mint.ts");
  const minted = ensureKey(state);
  return minted.kind === "minted"
    ? keysOf(minted.pepper, minted.keys, "minted", minted.key)
    : keysOf(minted.pepper, minted.keys, "kept", undefined);
}

function keysOf(pepper: Pepper, keys: readonly KnownKey[], source: Keys["source"], minted: Secret | undefined): Keys {
  const lasting = new KeySet(pepper, keys);
  let current = lasting;
  return {
    find: (key) => current.find(key),
    minted,
    source,
    temporary: () => {
      const key = mintKey();
      const digest = keyDigest(pepper, key.expose());
      const known = { id: "key_self", digest, tenant: "default", role: "user" as const };
      current = new KeySet(pepper, [...keys, known]);
      return {
        key,
        revoke: () => {
          current = lasting;
        },
      };
    },
  };
}

function fromFile(path: string | undefined): string[] {
  if (path === undefined) return [];
  try {
    const stat = statSync(path);
    if (process.getuid !== undefined && (stat.mode & OTHERS) !== 0) {
      throw new StartupError("the key file can be read or written by others: run chmod 600 on it");
    }
    if (stat.size > MAX_KEY_FILE_BYTES) throw new StartupError("the key file is larger than 1 MiB");
    const keys = readFileSync(path, "utf8")
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "" && !line.startsWith("#"));
    if (keys.length === 0) throw new StartupError("the key file holds no key");
    return keys;
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError(`the key file cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}
