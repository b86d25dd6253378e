/**
 * The key of a server that was given none: minted at the first start, returned once for printing, kept as a digest.
 *
 * File keys.json in the state directory: `{"version":1,"keys":[{"id":"key_1","digest":"<64 hex digits>"}]}`.
 * Invariant: once the file is there, no start prints or changes a key; a damaged file stops the start, since the
 * alternative, minting anew, would lock out who holds the old one and hide that somebody wrote here.
 */
import { join } from "node:path";
import { z } from "zod";
import { JsonError, parseJson, stringifyJson } from "#base/json.ts";
import type { Secret } from "#base/secret.ts";
import { type KnownKey, keyDigest, mintKey, type Pepper } from "./keys.ts";
import { type StateDirectory, StateError, statePepper } from "./state.ts";

const FILE = "keys.json";

const StoredKeys = z.strictObject({
  version: z.literal(1),
  keys: z
    .array(
      z.strictObject({ id: z.string().regex(/^key_[1-9][0-9]{0,8}$/), digest: z.string().regex(/^[0-9a-f]{64}$/) }),
    )
    .min(1)
    .max(10_000),
});

interface Kept {
  readonly pepper: Pepper;
  readonly keys: readonly KnownKey[];
}

/** `minted`: print `key` now, it cannot be had again. `exists`: an earlier start printed it. */
export type Minted = (Kept & { readonly kind: "minted"; readonly key: Secret }) | (Kept & { readonly kind: "exists" });

/** @throws StateError */
export function ensureKey(state: StateDirectory): Minted {
  const stored = readKeys(state);
  if (stored !== undefined) return { kind: "exists", ...stored };
  const key = mintKey();
  const digest = keyDigest(statePepper(state), key.expose()).toString("hex");
  const file = stringifyJson({ version: 1, keys: [{ id: "key_1", digest }] });
  const made = state.create(FILE, Buffer.from(`${file}\n`));
  const kept = readKeys(state);
  if (kept === undefined) throw new StateError(`${join(state.path, FILE)} went away while the server started`);
  // Another server that started at the same moment may have been first; then its key is the one.
  return made ? { kind: "minted", key, ...kept } : { kind: "exists", ...kept };
}

function readKeys(state: StateDirectory): Kept | undefined {
  const bytes = state.read(FILE);
  if (bytes === undefined) return undefined;
  const parsed = StoredKeys.safeParse(parseStored(state, bytes));
  if (!parsed.success) throw damaged(state);
  // A fresh pepper would make every stored digest useless, without a word.
  if (state.read("pepper") === undefined)
    throw new StateError(
      `${join(state.path, "pepper")} is missing, and ${FILE} is of no use without it. Restore it, or remove ${FILE} to have a new key minted at the next start.`,
    );
  const keys = parsed.data.keys.map(({ id, digest }) => ({
    id,
    digest: Buffer.from(digest, "hex"),
    tenant: "default",
    role: "admin" as const,
  }));
  return { pepper: statePepper(state), keys };
}

function parseStored(state: StateDirectory, bytes: Buffer): unknown {
  try {
    return parseJson(bytes);
  } catch (error) {
    if (error instanceof JsonError) throw damaged(state);
    throw error;
  }
}

function damaged(state: StateDirectory): StateError {
  return new StateError(
    `${join(state.path, FILE)} is damaged. Restore it, or remove it to have a new key minted at the next start.`,
  );
}
