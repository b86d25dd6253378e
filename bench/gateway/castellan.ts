/**
 * Castellan as an operator starts it: `castellan serve --upstream`, with the keys in its store, limits on keys and tenants,
 * the audit log and metrics on, and nothing switched off.
 */
import { cpSync, existsSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { keyDigest } from "#policy/keys.ts";
import { openPepper } from "#policy/pepper.ts";
import { openStateDirectory } from "#policy/state.ts";
import { openStore } from "#policy/store/store.ts";
import type { Bench } from "./targets.ts";

const ROOT = join(import.meta.dirname, "../..");
const ROWS = 1000;
/** Never reached, and so counted with each call. */
const LIMITS = JSON.stringify({
  requestsPerMinute: 1e9,
  tokensPerMinute: 1e15,
  tokensPerDay: 1e15,
  concurrentRequests: 1e6,
});

/**
 * What `bin/castellan` has to hear. @param root where it is, if not in this checkout
 * @returns its arguments, behind the keys being in the store
 */
export async function serveArguments(
  { folder, upstream, keys }: Bench,
  port: number,
  ops: number,
  root = ROOT,
): Promise<string[]> {
  const state = join(folder, "state");
  await fill(state, keys);
  const limits = ["--key-limits", LIMITS, "--tenant-limits", JSON.stringify({ default: JSON.parse(LIMITS) })];
  return [
    ...[join(root, "bin/castellan"), "serve", "--upstream", `http://127.0.0.1:${upstream}`, "--served-model-name", "m"],
    ...["--port", String(port), "--ops-port", String(ops), "--state-dir", state, ...limits],
    // The client is one address.
    ...["--max-connections-per-address", "0", "--log-level", "warn"],
    // Two thousand streams of one tenant at one upstream are more than the defaults let in.
    ...["--max-num-queued-reqs", "8192", "--upstream-max-requests", "4096"],
  ];
}

/** A package as npm would install it, of what `npm run build` has made. @returns where; undefined: it has made nothing */
export function packaged(folder: string): string | undefined {
  const root = join(folder, "package");
  if (!existsSync(join(ROOT, "dist"))) return undefined;
  if (existsSync(root)) return root;
  for (const name of ["bin", "dist", "package.json"]) cpSync(join(ROOT, name), join(root, name), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(root, "node_modules"));
  return root;
}

/** Once: each round finds them there. */
async function fill(path: string, keys: readonly string[]): Promise<void> {
  const state = openStateDirectory(path);
  const store = await openStore({ state });
  const { db } = store;
  try {
    const pepper = await openPepper(store, state);
    if ((await db.selectFrom("keys").select("id").limit(1).executeTakeFirst()) !== undefined) return;
    const common = { created_at: 1, created_by: "bench" };
    await db
      .insertInto("tenants")
      .values({ name: "default", limits: "{}", ...common })
      .execute();
    const never = { not_before: null, expires_at: null, disabled_at: null, deleted_at: null, last_used_at: null };
    const rights = { tenant: "default", role: "user", scopes: null, reach: "{}", limits: "{}", caps: "{}" };
    const named = keys.map((key, i) => ({ id: `key_${i.toString(36).padStart(16, "0")}`, key }));
    for (let from = 0; from < named.length; from += ROWS) {
      const some = named.slice(from, from + ROWS);
      const rows = some.map(({ id }) => ({ id, name: "", ...rights, ...never, ...common, revision: 0 }));
      const secrets = some.map(({ id, key }) => ({
        digest: keyDigest(pepper, key).toString("hex"),
        key_id: id,
        generation: 1,
        ends_at: null,
        ...common,
      }));
      await db.insertInto("keys").values(rows).execute();
      await db.insertInto("key_secrets").values(secrets).execute();
    }
  } finally {
    await store.close();
  }
}
