/**
 * The key of a server that was given none, and the keys that version 0.1 kept in a file.
 *
 * Invariants: a store gets a first key once in its life, also where several servers start at once; a damaged keys.json
 * stops the start, since going on would lock out who holds its keys and hide that somebody wrote there.
 * Caller: app/keys.ts.
 */
import { join } from "node:path";
import { z } from "zod";
import { JsonError, parseJson } from "#base/json.ts";
import type { Secret } from "#base/secret.ts";
import { OPERATOR_TENANT } from "#core/principal.ts";
import type { KeySpec } from "./key-spec.ts";
import type { KeyStore } from "./key-store.ts";
import { type StateDirectory, StateError } from "./state.ts";

/** Of version 0.1: `{"version":1,"keys":[{"id":"key_1","digest":"<64 hex digits>"}]}`. */
const OLD_FILE = "keys.json";
const TAKEN_OVER = "keys.json.imported";

const OldKeys = z.strictObject({
  version: z.literal(1),
  keys: z
    .array(
      z.strictObject({ id: z.string().regex(/^key_[1-9][0-9]{0,8}$/), digest: z.string().regex(/^[0-9a-f]{64}$/) }),
    )
    .min(1)
    .max(10_000),
});

const user = (name: string): KeySpec => ({
  tenant: OPERATOR_TENANT,
  name,
  role: "user",
  reach: {},
  limits: {},
  caps: {},
});

/** @returns the key, to be printed now; undefined: the store has had one */
export async function ensureFirstKey(keys: KeyStore): Promise<Secret | undefined> {
  return (await keys.createFirst(user("first key"), "first start"))?.key;
}

/** Brings the keys of version 0.1 into the store and puts the file aside. @returns how many. @throws StateError */
export async function importOldKeys(state: StateDirectory, keys: KeyStore): Promise<number> {
  const bytes = state.read(OLD_FILE);
  if (bytes === undefined) return 0;
  const parsed = OldKeys.safeParse(parseOld(state, bytes));
  if (!parsed.success) throw damaged(state);
  let count = 0;
  for (const { id, digest } of parsed.data.keys)
    if (await keys.adopt(Buffer.from(digest, "hex"), user(`${id} of version 0.1`), "import")) count++;
  state.move(OLD_FILE, TAKEN_OVER);
  return count;
}

function parseOld(state: StateDirectory, bytes: Buffer): unknown {
  try {
    return parseJson(bytes);
  } catch (error) {
    if (error instanceof JsonError) throw damaged(state);
    throw error;
  }
}

function damaged(state: StateDirectory): StateError {
  return new StateError(`${join(state.path, OLD_FILE)} is damaged. Restore it, or remove it and make new keys.`);
}
