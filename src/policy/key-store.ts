/**
 * Keys in the store: made, shown, rotated, disabled, deleted. The one writer of `keys` and `key_secrets`.
 *
 * A key is one record under one id; what opens it is a secret, of which it has one a generation. Rotation gives it the
 * next generation and lets the one before go on for an overlap, so usage, limits and records count under the same id
 * throughout, and disabling the key stops every generation at once.
 * Invariants: a key's text is returned by the call that made it and is nowhere else; every change adds one to the
 * revision in its own transaction, so that other processes see it; a deleted key keeps its row and can be nothing else.
 * Callers: app/keys.ts, the command line, first-key.ts.
 */
import type { Transaction } from "kysely";
import { stringifyJson } from "#base/json.ts";
import type { Secret } from "#base/secret.ts";
import { checkKeySpec, KeyError, type KeySpec, readRights } from "./key-spec.ts";
import { keyDigest, mintKey, mintKeyId, type Pepper } from "./keys.ts";
import type { KeySecretTable, KeyTable, Tables } from "./store/schema.ts";
import { isTaken, type Store } from "./store/store.ts";

export interface KeySecret {
  readonly generation: number;
  readonly createdAt: number;
  readonly createdBy: string;
  /** Works until then; absent: as long as its key. */
  readonly endsAt?: number;
}

export interface KeyRecord extends KeySpec {
  readonly id: string;
  readonly createdAt: number;
  readonly createdBy: string;
  readonly disabledAt?: number;
  readonly deletedAt?: number;
  /** To about a minute. */
  readonly lastUsedAt?: number;
  /** Oldest first. */
  readonly secrets: readonly KeySecret[];
}

export interface NewKey {
  readonly record: KeyRecord;
  /** Show it now: it cannot be had again. */
  readonly key: Secret;
}

export interface KeyFilter {
  readonly tenant?: string;
  /** Deleted ones too. */
  readonly deleted?: boolean;
  /** Goes on behind this record. */
  readonly after?: Pick<KeyRecord, "createdAt" | "id">;
  readonly limit?: number;
}

const PAGE = 500;
const MAX_OVERLAP_MS = 366 * 24 * 3_600_000;

type Work = Transaction<Tables>;

interface Wanted {
  readonly spec: KeySpec;
  readonly by: string;
  readonly id: string;
}

export class KeyStore {
  readonly #store: Store;
  readonly #pepper: Pepper;
  readonly #now: () => number;

  constructor(store: Store, pepper: Pepper, now: () => number = Date.now) {
    this.#store = store;
    this.#pepper = pepper;
    this.#now = now;
  }

  /**
   * @param by who asked for it, for the record
   * @param id a new one (mintKeyId), where it has to be known before
   * @throws KeyError
   */
  async create(spec: KeySpec, by: string, id = mintKeyId()): Promise<NewKey> {
    const key = mintKey();
    return {
      record: await this.#change((work, revision) => this.#insert(work, revision, { spec, by, id }, this.#digest(key))),
      key,
    };
  }

  /** The very first key of a store. @returns undefined: the store has, or had, another */
  async createFirst(spec: KeySpec, by: string): Promise<NewKey | undefined> {
    const key = mintKey();
    const record = await this.#change(async (work, revision) => {
      const other = await work.selectFrom("keys").select("id").limit(1).executeTakeFirst();
      return other === undefined
        ? this.#insert(work, revision, { spec, by, id: mintKeyId() }, this.#digest(key))
        : undefined;
    });
    return record === undefined ? undefined : { record, key };
  }

  /** Takes over a key of which only the digest is known. @returns false: it is there already */
  async adopt(digest: Uint8Array, spec: KeySpec, by: string): Promise<boolean> {
    try {
      await this.#change((work, revision) =>
        this.#insert(work, revision, { spec, by, id: mintKeyId() }, Buffer.from(digest).toString("hex")),
      );
      return true;
    } catch (error) {
      if (isTaken(error)) return false;
      throw error;
    }
  }

  /**
   * Gives the key its next generation; earlier ones end after the overlap, or when they would have ended before.
   * @throws KeyError
   */
  async rotate(id: string, overlapMs: number, by: string): Promise<NewKey> {
    if (!Number.isInteger(overlapMs) || overlapMs < 0 || overlapMs > MAX_OVERLAP_MS)
      throw new KeyError("an overlap lies between 0 and 366 days");
    const key = mintKey();
    await this.#change(async (work, revision) => {
      await this.#touch(work, id, revision, {});
      const now = this.#now();
      const end = now + overlapMs;
      await work
        .updateTable("key_secrets")
        .set({ ends_at: end })
        .where("key_id", "=", id)
        .where((eb) => eb.or([eb("ends_at", "is", null), eb("ends_at", ">", end)]))
        .execute();
      const { newest } = await work
        .selectFrom("key_secrets")
        .select((eb) => eb.fn.max("generation").as("newest"))
        .where("key_id", "=", id)
        .executeTakeFirstOrThrow();
      await work
        .insertInto("key_secrets")
        .values(secretRow(id, Number(newest) + 1, by, this.#digest(key), now))
        .execute();
    });
    return { record: await this.#existing(id), key };
  }

  /** @throws KeyError */
  async disable(id: string): Promise<KeyRecord> {
    await this.#change((work, revision) => this.#touch(work, id, revision, { disabled_at: this.#now() }));
    return this.#existing(id);
  }

  /** @throws KeyError */
  async enable(id: string): Promise<KeyRecord> {
    await this.#change((work, revision) => this.#touch(work, id, revision, { disabled_at: null }));
    return this.#existing(id);
  }

  /** For good. @throws KeyError */
  async delete(id: string): Promise<KeyRecord> {
    await this.#change((work, revision) => this.#touch(work, id, revision, { deleted_at: this.#now() }));
    return this.#existing(id);
  }

  async get(id: string): Promise<KeyRecord | undefined> {
    const row = await this.#store.db.selectFrom("keys").selectAll().where("id", "=", id).executeTakeFirst();
    return row === undefined ? undefined : (await this.#records([row]))[0];
  }

  /** Keys that are not deleted, by their name. */
  async named(name: string): Promise<readonly KeyRecord[]> {
    const rows = await this.#store.db
      .selectFrom("keys")
      .selectAll()
      .where("name", "=", name)
      .where("deleted_at", "is", null)
      .limit(PAGE)
      .execute();
    return this.#records(rows);
  }

  /** A page, oldest first. */
  async list({ tenant, deleted = false, after, limit = PAGE }: KeyFilter = {}): Promise<readonly KeyRecord[]> {
    let query = this.#store.db.selectFrom("keys").selectAll().orderBy("created_at").orderBy("id").limit(limit);
    if (tenant !== undefined) query = query.where("tenant", "=", tenant);
    if (!deleted) query = query.where("deleted_at", "is", null);
    if (after !== undefined)
      query = query.where(({ eb, refTuple, tuple }) =>
        eb(refTuple("created_at", "id"), ">", tuple(after.createdAt, after.id)),
      );
    return this.#records(await query.execute());
  }

  /** Keys that are not deleted. */
  async count(): Promise<number> {
    const { count } = await this.#store.db
      .selectFrom("keys")
      .select((eb) => eb.fn.countAll<number>().as("count"))
      .where("deleted_at", "is", null)
      .executeTakeFirstOrThrow();
    return Number(count);
  }

  async hasTenant(name: string): Promise<boolean> {
    const row = await this.#store.db.selectFrom("tenants").select("name").where("name", "=", name).executeTakeFirst();
    return row !== undefined;
  }

  #digest(key: Secret): string {
    return keyDigest(this.#pepper, key.expose()).toString("hex");
  }

  /** The counter comes first: its lock puts writers in a row. */
  #change<T>(make: (work: Work, revision: number) => Promise<T>): Promise<T> {
    return this.#store.db.transaction().execute(async (work) => {
      const { value } = await work
        .updateTable("revisions")
        .set((eb) => ({ value: eb("value", "+", 1) }))
        .where("name", "=", "keys")
        .returning("value")
        .executeTakeFirstOrThrow();
      return make(work, value);
    });
  }

  async #insert(work: Work, revision: number, { spec, by, id }: Wanted, digest: string): Promise<KeyRecord> {
    checkKeySpec(spec);
    const now = this.#now();
    await work
      .insertInto("tenants")
      .values({ name: spec.tenant, limits: "{}", created_at: now, created_by: by })
      .onConflict((conflict) => conflict.column("name").doNothing())
      .execute();
    await work
      .insertInto("keys")
      .values({
        id,
        tenant: spec.tenant,
        name: spec.name,
        role: spec.role,
        scopes: spec.scopes === undefined ? null : stringifyJson(spec.scopes),
        reach: stringifyJson(spec.reach),
        limits: stringifyJson(spec.limits),
        caps: stringifyJson(spec.caps),
        not_before: spec.notBefore ?? null,
        expires_at: spec.expiresAt ?? null,
        disabled_at: null,
        deleted_at: null,
        created_at: now,
        created_by: by,
        last_used_at: null,
        revision,
      })
      .execute();
    await work
      .insertInto("key_secrets")
      .values(secretRow(id, 1, by, digest, now))
      .execute();
    return { ...spec, id, createdAt: now, createdBy: by, secrets: [{ generation: 1, createdAt: now, createdBy: by }] };
  }

  /** @throws KeyError there is no such key, or no longer */
  async #touch(work: Work, id: string, revision: number, set: Partial<KeyTable>): Promise<void> {
    const row = await work.selectFrom("keys").select("deleted_at").where("id", "=", id).executeTakeFirst();
    if (row === undefined) throw new KeyError(`there is no key ${id}`);
    if (row.deleted_at !== null) throw new KeyError(`the key ${id} is deleted`);
    await work
      .updateTable("keys")
      .set({ ...set, revision })
      .where("id", "=", id)
      .execute();
  }

  async #existing(id: string): Promise<KeyRecord> {
    const record = await this.get(id);
    if (record === undefined) throw new KeyError(`there is no key ${id}`);
    return record;
  }

  async #records(rows: readonly KeyTable[]): Promise<KeyRecord[]> {
    if (rows.length === 0) return [];
    const secrets = await this.#store.db
      .selectFrom("key_secrets")
      .selectAll()
      .where(
        "key_id",
        "in",
        rows.map(({ id }) => id),
      )
      .orderBy("generation")
      .execute();
    const byKey = Map.groupBy(secrets, ({ key_id }) => key_id);
    return rows.map((row) => recordOf(row, byKey.get(row.id) ?? []));
  }
}

function secretRow(id: string, generation: number, by: string, digest: string, now: number): KeySecretTable {
  return { digest, key_id: id, generation, created_at: now, created_by: by, ends_at: null };
}

function recordOf(row: KeyTable, secrets: readonly KeySecretTable[]): KeyRecord {
  const rights = readRights(row);
  if (rights === undefined) throw new KeyError(`the record of ${row.id} cannot be read: a newer Castellan wrote it?`);
  return {
    ...rights,
    id: row.id,
    name: row.name,
    createdAt: row.created_at,
    createdBy: row.created_by,
    ...(row.not_before === null ? {} : { notBefore: row.not_before }),
    ...(row.expires_at === null ? {} : { expiresAt: row.expires_at }),
    ...(row.disabled_at === null ? {} : { disabledAt: row.disabled_at }),
    ...(row.deleted_at === null ? {} : { deletedAt: row.deleted_at }),
    ...(row.last_used_at === null ? {} : { lastUsedAt: row.last_used_at }),
    secrets: secrets.map(({ generation, created_at, created_by, ends_at }) => ({
      generation,
      createdAt: created_at,
      createdBy: created_by,
      ...(ends_at === null ? {} : { endsAt: ends_at }),
    })),
  };
}
