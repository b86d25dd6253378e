/**
 * Keeps the set of keys in memory as the store has it: all of them at start, then what changes, whoever changed it
 * (this server, the command line on the same file, another server on the same database).
 *
 * Invariants: a change is in force here within `intervalMs` and the time of one query; nothing on a request's path asks
 * the store; when the store has not answered for `maxAgeMs` no stored key is taken any more, since one that was
 * withdrawn would go on for ever (Wall: T43). Last uses go the other way, in batches.
 * Caller: app/keys.ts.
 */
import type { Log } from "#base/log.ts";
import { OPERATOR_TENANT } from "#core/principal.ts";
import { profileOf, type RightsColumns, readRights } from "./key-spec.ts";
import type { KeySet, Profile } from "./keys.ts";
import type { KeySecretTable, KeyTable } from "./store/schema.ts";
import type { Store } from "./store/store.ts";

export interface KeyFeedOptions {
  readonly store: Store;
  readonly keys: KeySet;
  readonly log: Log;
  readonly intervalMs?: number;
  readonly maxAgeMs?: number;
  readonly now?: () => number;
}

/** Keys that are read at once: a page is decoded in a few milliseconds of the event loop. */
const PAGE = 1000;
/** Keys whose last use is written by one statement. */
const BATCH = 500;
const FLUSH_EVERY_MS = 10_000;
/** Sets of rights that are remembered while pages are read. */
const PROFILES = 10_000;

export class KeyFeed {
  readonly #store: Store;
  readonly #keys: KeySet;
  readonly #log: Log;
  readonly #intervalMs: number;
  readonly #maxAgeMs: number;
  readonly #now: () => number;
  readonly #profiles = new Map<string, Profile | undefined>();
  #seen = -1;
  #askedAt = 0;
  #flushedAt: number;
  #failing = false;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #closed = false;

  private constructor({ store, keys, log, intervalMs = 1000, maxAgeMs = 300_000, now = Date.now }: KeyFeedOptions) {
    this.#store = store;
    this.#keys = keys;
    this.#log = log;
    this.#intervalMs = intervalMs;
    this.#maxAgeMs = maxAgeMs;
    this.#now = now;
    this.#flushedAt = now();
  }

  /** Loads all keys, then follows. @throws what the store throws */
  static async start(options: KeyFeedOptions): Promise<KeyFeed> {
    const feed = new KeyFeed(options);
    await feed.refresh();
    feed.#wait();
    return feed;
  }

  /** The store has been silent for too long. */
  get stale(): boolean {
    return this.#now() - this.#askedAt > this.#maxAgeMs;
  }

  /** Takes over what changed until now. @throws what the store throws */
  async refresh(): Promise<void> {
    // One that is on its way may have looked before the caller's change.
    await this.#running?.catch(() => {});
    this.#running ??= this.#read().finally(() => {
      this.#running = undefined;
    });
    await this.#running;
  }

  /** Writes down what is noted. @throws what the store throws */
  async flushUses(): Promise<void> {
    this.#flushedAt = this.#now();
    const ids = [...this.#keys.takeUsed().keys()];
    for (let from = 0; from < ids.length; from += BATCH) {
      const batch = ids.slice(from, from + BATCH);
      await this.#store.db
        .updateTable("keys")
        .set({ last_used_at: this.#flushedAt })
        .where("id", "in", batch)
        .where((eb) => eb.or([eb("last_used_at", "is", null), eb("last_used_at", "<", this.#flushedAt)]))
        .execute();
    }
  }

  /** Writes the last uses; the store is closed by who opened it. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running?.catch(() => {});
    await this.flushUses().catch((error) =>
      this.#log("warn", "last uses of keys were lost", { reason: String(error) }),
    );
  }

  #wait(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#tick(), this.#intervalMs).unref();
  }

  async #tick(): Promise<void> {
    try {
      await this.refresh();
      if (this.#now() - this.#flushedAt >= FLUSH_EVERY_MS) await this.flushUses();
      if (this.#failing) this.#log("info", "the store of keys answers again");
      this.#failing = false;
    } catch (error) {
      if (!this.#failing)
        this.#log("warn", "the store of keys does not answer: changes are not seen", { reason: String(error) });
      this.#failing = true;
    }
    this.#wait();
  }

  async #read(): Promise<void> {
    const { db } = this.#store;
    const askedAt = this.#now();
    const { value } = await db
      .selectFrom("revisions")
      .select("value")
      .where("name", "=", "keys")
      .executeTakeFirstOrThrow();
    if (value !== this.#seen) {
      await this.#readSince(this.#seen);
      this.#seen = value;
    }
    this.#askedAt = askedAt;
  }

  async #readSince(revision: number): Promise<void> {
    const first = revision < 0;
    if (first) await this.#makeRoom();
    let after = { revision, id: "" };
    for (;;) {
      const { revision: seen, id } = after;
      let query = this.#store.db
        .selectFrom("keys")
        .selectAll()
        .where(({ eb, refTuple, tuple }) => eb(refTuple("revision", "id"), ">", tuple(seen, id)))
        .orderBy("revision")
        .orderBy("id")
        .limit(PAGE);
      // What was deleted before the start need not be known; what is deleted later is.
      if (first) query = query.where("deleted_at", "is", null);
      const rows = await query.execute();
      const last = rows.at(-1);
      if (last === undefined) return;
      await this.#take(rows);
      after = last;
    }
  }

  async #makeRoom(): Promise<void> {
    const { count } = await this.#store.db
      .selectFrom("key_secrets")
      .select((eb) => eb.fn.countAll<number>().as("count"))
      .executeTakeFirstOrThrow();
    this.#keys.reserve(this.#keys.size + Number(count));
  }

  async #take(rows: readonly KeyTable[]): Promise<void> {
    const byId = new Map(rows.map((row) => [row.id, row]));
    const secrets = await this.#store.db
      .selectFrom("key_secrets")
      .selectAll()
      .where("key_id", "in", [...byId.keys()])
      .execute();
    for (const secret of secrets) {
      const row = byId.get(secret.key_id);
      if (row !== undefined) this.#put(row, secret);
    }
  }

  #put(row: KeyTable, secret: KeySecretTable): void {
    const profile = this.#profileOf(row);
    if (profile === undefined) this.#log("error", "a key's record cannot be read and opens nothing", { key: row.id });
    this.#keys.put({
      id: row.id,
      digest: Buffer.from(secret.digest, "hex"),
      profile: profile ?? NOTHING,
      notBefore: row.not_before ?? 0,
      expiresAt: Math.min(row.expires_at ?? Infinity, secret.ends_at ?? Infinity),
      state:
        row.deleted_at !== null ? "deleted" : row.disabled_at !== null || profile === undefined ? "disabled" : "live",
      stored: true,
    });
  }

  /** Equal rights are one object, however many keys have them. */
  #profileOf(row: RightsColumns): Profile | undefined {
    const { tenant, role, scopes, reach, limits, caps } = row;
    const text = [tenant, role, scopes ?? "", reach, limits, caps].join("\n");
    if (this.#profiles.has(text)) return this.#profiles.get(text);
    const rights = readRights(row);
    const profile = rights === undefined ? undefined : profileOf(rights);
    if (this.#profiles.size >= PROFILES) this.#profiles.clear();
    this.#profiles.set(text, profile);
    return profile;
  }
}

const NOTHING = profileOf({
  tenant: OPERATOR_TENANT,
  role: "user",
  scopes: [],
  reach: { models: [] },
  limits: {},
  caps: {},
});
