/**
 * The pepper, and the proof that a store belongs to it: 32 bytes outside of the store, without which its digests
 * cannot be tried against. Servers that share a store share the pepper.
 *
 * Invariant: a store that was made under another pepper, or whose pepper is gone, stops the start; else every key would
 * be refused without a word. Callers: app/, and commands that make keys.
 */
import { createHmac } from "node:crypto";
import { join } from "node:path";
import type { Pepper } from "./keys.ts";
import { type StateDirectory, StateError, statePepper } from "./state.ts";
import type { Store } from "./store/store.ts";

const HEX = /^[0-9a-f]{64}$/i;

/** From a file of its own: 32 bytes, or 64 hex digits. @throws StateError */
export function readPepper(content: Uint8Array): Pepper {
  if (content.length === 32) return content;
  const text = Buffer.from(content).toString("latin1").trim();
  if (!HEX.test(text)) throw new StateError("the pepper file holds neither 32 bytes nor 64 hex digits");
  return Buffer.from(text, "hex");
}

/**
 * @param given instead of the state directory's
 * @throws StateError it is not the store's
 */
export async function openPepper(store: Store, state: StateDirectory, given?: Pepper): Promise<Pepper> {
  const kept = await storedMark(store);
  const lost = given === undefined && state.read("pepper") === undefined;
  if (lost && (kept !== undefined || state.read("keys.json") !== undefined))
    throw new StateError(
      `${join(state.path, "pepper")} is missing, and no key works without it. Restore it, copy that of a server on the same database, or say --pepper-file`,
    );
  const pepper = given ?? statePepper(state);
  const mark = createHmac("sha256", pepper).update("castellan pepper mark").digest("hex");
  if (kept === undefined)
    await store.db
      .insertInto("facts")
      .values({ name: "pepper", value: mark })
      .onConflict((conflict) => conflict.column("name").doNothing())
      .execute();
  if ((await storedMark(store)) !== mark)
    throw new StateError(
      "the keys of the store were made under another pepper: servers that share a database need the same one (--pepper-file, or the file pepper in the state directory)",
    );
  return pepper;
}

async function storedMark(store: Store): Promise<string | undefined> {
  const fact = await store.db.selectFrom("facts").select("value").where("name", "=", "pepper").executeTakeFirst();
  return fact?.value;
}
