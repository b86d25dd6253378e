/**
 * Room for stored responses: sums by tenant, and what goes when there are too many or too large ones. Private to
 * responses/.
 *
 * Invariants: sums change in the transaction that changes the rows, behind the lock of the tenant's row, so they are
 * what is there; the oldest that has ended goes first; when all tenants together have too much, whoever has most
 * gives (Wall: T50), so nobody loses anything by what a larger one stores.
 */
import { type RawBuilder, sql } from "kysely";
import type { Database } from "#policy/store/store.ts";

export interface ResponseBounds {
  readonly responses: number;
  readonly bytes: number;
}

/** Rows of one delete. */
const BATCH = 200;

/** Locks the tenant's sums. First statement of every transaction that adds or takes away. */
export async function lockTotals(db: Database, tenant: string): Promise<void> {
  await db
    .insertInto("response_totals")
    .values({ tenant, responses: 0, bytes: 0 })
    .onConflict((conflict) =>
      conflict.column("tenant").doUpdateSet((eb) => ({ bytes: eb.ref("response_totals.bytes") })),
    )
    .execute();
}

export async function addTotals(db: Database, tenant: string, responses: number, bytes: number): Promise<void> {
  await db
    .updateTable("response_totals")
    .set((eb) => ({ responses: eb("responses", "+", responses), bytes: eb("bytes", "+", bytes) }))
    .where("tenant", "=", tenant)
    .execute();
}

/**
 * Makes a tenant fit, behind its lock.
 * @param spare the response that is never taken: the one that was just written
 */
export async function fitTenant(db: Database, tenant: string, bounds: ResponseBounds, spare: string): Promise<void> {
  for (;;) {
    const { responses, bytes } = await totalsOf(db, tenant);
    const over = { responses: responses - bounds.responses, bytes: bytes - bounds.bytes };
    if (over.responses <= 0 && over.bytes <= 0) return;
    if (!(await dropOldest(db, tenant, over, spare))) return;
  }
}

/** Makes all fit; a transaction for each tenant that gives. */
export async function fitAll(db: Database, bounds: ResponseBounds, spare: string): Promise<void> {
  for (;;) {
    const sums = await sumsOf(db);
    const over = { responses: sums.responses - bounds.responses, bytes: sums.bytes - bounds.bytes };
    if (over.responses <= 0 && over.bytes <= 0) return;
    const most = await db
      .selectFrom("response_totals")
      .select("tenant")
      .orderBy(over.bytes > 0 ? "bytes" : "responses", "desc")
      .limit(1)
      .executeTakeFirstOrThrow();
    const gave = await db.transaction().execute(async (work) => {
      await lockTotals(work, most.tenant);
      return dropOldest(work, most.tenant, over, spare);
    });
    if (!gave) return;
  }
}

/** Of all tenants. */
export async function sumsOf(db: Database): Promise<ResponseBounds> {
  const { responses, bytes } = await db
    .selectFrom("response_totals")
    .select([whole("responses").as("responses"), whole("bytes").as("bytes")])
    .executeTakeFirstOrThrow();
  return { responses: Number(responses), bytes: Number(bytes) };
}

/** PostgreSQL makes a sum of whole numbers a decimal otherwise. */
function whole(column: "responses" | "bytes"): RawBuilder<number> {
  return sql<number>`cast(coalesce(sum(${sql.ref(column)}), 0) as bigint)`;
}

async function totalsOf(db: Database, tenant: string): Promise<ResponseBounds> {
  return db
    .selectFrom("response_totals")
    .select(["responses", "bytes"])
    .where("tenant", "=", tenant)
    .executeTakeFirstOrThrow();
}

/** @returns false: there is nothing that could go */
async function dropOldest(db: Database, tenant: string, over: ResponseBounds, spare: string): Promise<boolean> {
  const oldest = await db
    .selectFrom("responses")
    .select(["id", "bytes"])
    .where("tenant", "=", tenant)
    .where("server", "is", null)
    .where("id", "<>", spare)
    .orderBy("created_at")
    .orderBy("id")
    .limit(BATCH)
    .execute();
  let [responses, bytes] = [over.responses, over.bytes];
  const going = oldest.filter((row) => {
    if (responses <= 0 && bytes <= 0) return false;
    responses--;
    bytes -= row.bytes;
    return true;
  });
  await dropRows(db, tenant, going);
  return going.length > 0;
}

/** Behind the tenant's lock. */
export async function dropRows(
  db: Database,
  tenant: string,
  rows: readonly { readonly id: string; readonly bytes: number }[],
): Promise<void> {
  if (rows.length === 0) return;
  await db
    .deleteFrom("responses")
    .where(
      "id",
      "in",
      rows.map(({ id }) => id),
    )
    .execute();
  await addTotals(db, tenant, -rows.length, -rows.reduce((sum, { bytes }) => sum + bytes, 0));
}

/** Those of before a time, a batch of one tenant. @returns false: there are none */
export async function dropOld(db: Database, before: number): Promise<boolean> {
  const first = await db
    .selectFrom("responses")
    .select("tenant")
    .where("created_at", "<", before)
    .where("server", "is", null)
    .limit(1)
    .executeTakeFirst();
  if (first === undefined) return false;
  await db.transaction().execute(async (work) => {
    await lockTotals(work, first.tenant);
    const rows = await work
      .selectFrom("responses")
      .select(["id", "bytes"])
      .where("tenant", "=", first.tenant)
      .where("created_at", "<", before)
      .where("server", "is", null)
      .limit(BATCH)
      .execute();
    await dropRows(work, first.tenant, rows);
  });
  return true;
}
