/**
 * Stored responses in the policy store, SQLite or PostgreSQL.
 *
 * Invariants: a row is found by its tenant and id together (Wall: T50); count and bytes are bounded by tenant and in
 * all, age by a time; a response that somebody works on names the server, which lives or is found dead (_pulse.ts), so
 * none is on its way for ever. What is said stands in the rows as it is. Callers: app, which gives it to serving.
 */
import { randomUUID } from "node:crypto";
import { type JsonValue, parseJson, stringifyJson } from "#base/json.ts";
import type { Log } from "#base/log.ts";
import type { CallEvent } from "#core/calls.ts";
import type { ChatMessage } from "#core/chat.ts";
import { Fault } from "#core/fault.ts";
import { isSegment } from "#core/path-shapes.ts";
import type {
  EndedResponse,
  KeptResponse,
  ResponseBody,
  ResponseError,
  ResponseStatus,
  ResponseStore,
} from "#core/responses.ts";
import type { ResponseTable } from "#policy/store/schema.ts";
import type { Database } from "#policy/store/store.ts";
import { Pulse } from "./_pulse.ts";
import { addTotals, dropOld, dropRows, fitAll, fitTenant, lockTotals, type ResponseBounds, sumsOf } from "./_room.ts";

export interface ResponseStoreOptions {
  readonly db: Database;
  readonly log: Log;
  readonly ofTenant: ResponseBounds;
  readonly ofAll: ResponseBounds;
  /** Older ones do not exist. */
  readonly keepMs: number;
  /** Between two looks at the others, and at what others have ended. */
  readonly beatMs?: number;
  readonly now?: () => number;
}

const BEAT_MS = 2000;
/** Beats between two looks for what is too old. */
const AGE_BEATS = 30;
/** What this program wrote: a schema of a request nests to 128 within it. */
const JSON_LIMITS = { maxDepth: 256, maxValues: 50_000_000 };
const RUNNING: readonly string[] = ["queued", "in_progress"];
const STOPPED: ResponseError = { code: "server_error", message: "The server was shut down." };

/** Opened: the server is known to the others. @throws Fault policy_unavailable */
export async function openResponseStore(options: ResponseStoreOptions): Promise<DatabaseResponses> {
  const store = new DatabaseResponses(options);
  await store.open();
  return store;
}

export class DatabaseResponses implements ResponseStore {
  readonly #options: ResponseStoreOptions;
  readonly #db: Database;
  readonly #server = randomUUID();
  readonly #pulse: Pulse;
  /** Ids that this server works on. */
  readonly #working = new Set<string>();
  #onEnded: (id: string) => void = () => {};
  #beats = 0;
  #timer: NodeJS.Timeout | undefined;
  #beating: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: ResponseStoreOptions) {
    this.#options = options;
    this.#db = options.db;
    this.#pulse = new Pulse(options.db, this.#server);
  }

  async open(): Promise<void> {
    await this.#ask(async () => {
      await this.#pulse.beat();
      await this.#pulse.look();
    });
    this.#schedule();
  }

  get(tenant: string, id: string): Promise<KeptResponse | undefined> {
    return this.#ask(async () => {
      // A client's word, of which PostgreSQL would make a failure.
      if (!isSegment(id)) return undefined;
      const row = await this.#db
        .selectFrom("responses")
        .selectAll()
        .where("id", "=", id)
        .where("tenant", "=", tenant)
        .where("created_at", ">=", this.#now() - this.#options.keepMs)
        .executeTakeFirst();
      return row === undefined ? undefined : keptOf(row);
    });
  }

  put(tenant: string, response: EndedResponse): Promise<void> {
    return this.#ask(() => this.#insert(tenant, response, null));
  }

  async begin(tenant: string, response: EndedResponse): Promise<void> {
    await this.#ask(() => this.#insert(tenant, response, this.#server));
    this.#working.add(response.id);
  }

  started(id: string): Promise<void> {
    return this.#ask(async () => {
      await this.#db
        .updateTable("responses")
        .set({ status: "in_progress" })
        .where("id", "=", id)
        .where("server", "=", this.#server)
        .where("status", "=", "queued")
        .execute();
    });
  }

  async finish(tenant: string, response: EndedResponse): Promise<boolean> {
    const { ofTenant, ofAll } = this.#options;
    const finished = await this.#ask(() =>
      this.#db.transaction().execute(async (work) => {
        await lockTotals(work, tenant);
        const written = await this.#end(work, tenant, response);
        if (written) await fitTenant(work, tenant, ofTenant, response.id);
        return written;
      }),
    );
    this.#working.delete(response.id);
    await this.#ask(() => fitAll(this.#db, ofAll, response.id)).catch(() => {});
    return finished;
  }

  cancel(tenant: string, id: string): Promise<boolean> {
    return this.#ask(async () => {
      const { numUpdatedRows } = await this.#db
        .updateTable("responses")
        .set({ status: "cancelled" })
        .where("id", "=", id)
        .where("tenant", "=", tenant)
        .where("status", "in", RUNNING)
        .executeTakeFirstOrThrow();
      return numUpdatedRows > 0n;
    });
  }

  remove(tenant: string, id: string): Promise<boolean> {
    return this.#ask(() =>
      this.#db.transaction().execute(async (work) => {
        await lockTotals(work, tenant);
        const row = await work
          .selectFrom("responses")
          .select(["id", "bytes", "created_at"])
          .where("id", "=", id)
          .where("tenant", "=", tenant)
          .executeTakeFirst();
        if (row === undefined) return false;
        await dropRows(work, tenant, [row]);
        return row.created_at >= this.#now() - this.#options.keepMs;
      }),
    );
  }

  onEnded(listener: (id: string) => void): void {
    this.#onEnded = listener;
  }

  /** What this server still works on fails; it is no longer among the servers. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#beating;
    await this.#ask(() => this.#pulse.bury(this.#server, STOPPED)).catch(() => {});
  }

  /** A round of this server's duties; for tests, and the timer. Never throws. */
  async round(): Promise<void> {
    try {
      await this.#pulse.beat();
      await this.#pulse.look();
      await this.#tellEnded();
      if (this.#beats++ % AGE_BEATS === 0)
        while (!this.#closed && (await dropOld(this.#db, this.#now() - this.#options.keepMs)));
    } catch (error) {
      this.#options.log("warn", "stored responses cannot be looked after", { error: String(error) });
    }
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#beating = this.round().then(() => this.#schedule());
    }, this.#options.beatMs ?? BEAT_MS);
    this.#timer.unref();
  }

  async #tellEnded(): Promise<void> {
    const working = [...this.#working];
    if (working.length === 0) return;
    const rows = await this.#db
      .selectFrom("responses")
      .select("id")
      .where("server", "=", this.#server)
      .where("status", "in", RUNNING)
      .execute();
    const running = new Set(rows.map(({ id }) => id));
    for (const id of working) if (!running.has(id)) this.#onEnded(id);
  }

  async #insert(tenant: string, response: EndedResponse, server: string | null): Promise<void> {
    const { ofTenant, ofAll } = this.#options;
    const row = { ...textsOf(response), id: response.id, tenant, server, error: null, created_at: this.#now() };
    await this.#db.transaction().execute(async (work) => {
      await lockTotals(work, tenant);
      await work.insertInto("responses").values(row).execute();
      await addTotals(work, tenant, 1, row.bytes);
      await fitTenant(work, tenant, ofTenant, response.id);
    });
    await fitAll(this.#db, ofAll, response.id);
  }

  /** Behind the tenant's lock. */
  async #end(work: Database, tenant: string, response: EndedResponse): Promise<boolean> {
    const mine = await work
      .selectFrom("responses")
      .select(["status", "bytes"])
      .where("id", "=", response.id)
      .where("tenant", "=", tenant)
      .where("server", "=", this.#server)
      .executeTakeFirst();
    if (mine === undefined) return false;
    // Who was told that it is cancelled does not find an answer afterwards.
    const overruled = mine.status === "cancelled" && response.status !== "cancelled";
    const texts = overruled ? undefined : textsOf(response);
    const { numUpdatedRows } = await work
      .updateTable("responses")
      .set({ ...texts, server: null })
      .where("id", "=", response.id)
      .where("server", "=", this.#server)
      .where("status", "=", mine.status)
      .executeTakeFirstOrThrow();
    // Cancelled in between: the caller tries again.
    if (numUpdatedRows === 0n) return this.#end(work, tenant, response);
    if (texts !== undefined) await addTotals(work, tenant, 0, texts.bytes - mine.bytes);
    return !overruled;
  }

  /** Of all tenants. */
  totals(): Promise<ResponseBounds> {
    return this.#ask(() => sumsOf(this.#db));
  }

  #now(): number {
    return (this.#options.now ?? Date.now)();
  }

  async #ask<T>(question: () => Promise<T>): Promise<T> {
    try {
      return await question();
    } catch (error) {
      throw new Fault("policy_unavailable", "Responses cannot be stored or read at the moment.", {
        detail: error instanceof Error ? error.message : String(error),
        retryAfterMs: 1000,
        cause: error,
      });
    }
  }
}

type Texts = Pick<ResponseTable, "status" | "body" | "messages" | "items" | "log" | "bytes">;

function textsOf({ status, body, messages, items, log }: EndedResponse): Texts {
  const texts = {
    body: stringifyJson(body),
    messages: stringifyJson(messages),
    items: items ?? null,
    log: log === undefined ? null : stringifyJson(log),
  };
  const bytes = Object.values(texts).reduce((sum, text) => sum + Buffer.byteLength(text ?? ""), 0);
  return { status, ...texts, bytes };
}

function keptOf({ id, status, error, body, messages, items, log }: ResponseTable): KeptResponse {
  const read = (text: string): JsonValue => parseJson(text, JSON_LIMITS);
  return {
    id,
    status: status as ResponseStatus,
    body: read(body) as unknown as ResponseBody,
    messages: read(messages) as unknown as readonly ChatMessage[],
    ...(items === null ? {} : { items }),
    ...(error === null ? {} : { error: read(error) as unknown as ResponseError }),
    ...(log === null ? {} : { log: read(log) as unknown as readonly CallEvent[] }),
  };
}
