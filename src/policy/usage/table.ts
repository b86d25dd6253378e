/**
 * The usage table in the store: additions in groups, sums for limits, rows for people.
 *
 * Invariants: a group is added once whatever happens to the connection (book.ts says why); rows are written in one
 * order, so that servers that share a database do not wait for each other in a circle. Callers: app/, cli/.
 */
import { type ExpressionBuilder, type RawBuilder, sql } from "kysely";
import type { Spent } from "#policy/limits/ledger.ts";
import type { Measure } from "#policy/limits/rules.ts";
import { DAY_MS, dayOf } from "#policy/limits/windows.ts";
import type { Tables } from "#policy/store/schema.ts";
import type { Database } from "#policy/store/store.ts";
import type { UsageGroup, UsageSink } from "./book.ts";
import type { UsageCounts, UsageRow } from "./usage.ts";

const COUNTS = ["requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens", "cost"] as const;
/** SQLite takes 32,766 values a statement. */
const ROWS_A_STATEMENT = 500;
/** A group is not written again later than this. */
const WRITER_MEMORY_MS = 7 * DAY_MS;

export function usageSink(db: Database): UsageSink {
  return {
    add: (group) =>
      db.transaction().execute(async (transaction) => {
        if (!(await claim(transaction, group))) return;
        const rows = group.rows.map(asStored).sort(inOrder);
        for (let at = 0; at < rows.length; at += ROWS_A_STATEMENT)
          await addRows(transaction, rows.slice(at, at + ROWS_A_STATEMENT));
      }),
  };
}

/** Writes the group's number. @returns false: it, and so the group, was there before */
async function claim(db: Database, { writer, number }: UsageGroup): Promise<boolean> {
  const at = Date.now();
  if (number === 1)
    await db
      .deleteFrom("usage_writers")
      .where("at", "<", at - WRITER_MEMORY_MS)
      .execute();
  const { numInsertedOrUpdatedRows } = await db
    .insertInto("usage_writers")
    .values({ id: writer, number, at })
    .onConflict((conflict) =>
      conflict.column("id").doUpdateSet({ number, at }).where("usage_writers.number", "<", number),
    )
    .executeTakeFirstOrThrow();
  return Number(numInsertedOrUpdatedRows) > 0;
}

type Stored = Tables["usage"];

async function addRows(db: Database, rows: readonly Stored[]): Promise<void> {
  const sum = (
    eb: ExpressionBuilder<Tables & { excluded: Stored }, "usage" | "excluded">,
    name: (typeof COUNTS)[number],
  ) => eb(`usage.${name}`, "+", eb.ref(`excluded.${name}`));
  await db
    .insertInto("usage")
    .values(rows)
    .onConflict((conflict) =>
      conflict.columns(["key_id", "day", "tenant", "model"]).doUpdateSet((eb) => ({
        requests: sum(eb as never, "requests"),
        errors: sum(eb as never, "errors"),
        prompt_tokens: sum(eb as never, "prompt_tokens"),
        cached_tokens: sum(eb as never, "cached_tokens"),
        completion_tokens: sum(eb as never, "completion_tokens"),
        cost: sum(eb as never, "cost"),
      })),
    )
    .execute();
}

function asStored(row: UsageRow): Stored {
  const { key, tenant, model, day, requests, errors, promptTokens, cachedTokens, completionTokens, cost } = row;
  return {
    key_id: key,
    day,
    tenant,
    model,
    requests,
    errors,
    prompt_tokens: promptTokens,
    cached_tokens: cachedTokens,
    completion_tokens: completionTokens,
    cost,
  };
}

function inOrder(a: Stored, b: Stored): number {
  return (
    compare(a.key_id, b.key_id) || compare(a.day, b.day) || compare(a.tenant, b.tenant) || compare(a.model, b.model)
  );
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

const SUMS: Readonly<Partial<Record<Measure, RawBuilder<number>>>> = {
  requests: sql`requests`,
  prompt: sql`prompt_tokens`,
  completion: sql`completion_tokens`,
  tokens: sql`prompt_tokens + completion_tokens`,
  usd: sql`cost`,
};
const COLUMNS = { key: "key_id", tenant: "tenant", model: "model" } as const;

/** What was booked for a subject since a day began. */
export function spentIn(db: Database): Spent {
  return async ({ kind, id }, measure, since) => {
    const what = SUMS[measure];
    if (what === undefined) return 0;
    const { sum } = await db
      .selectFrom("usage")
      .select(whole(what).as("sum"))
      .where(COLUMNS[kind], "=", id)
      .where("day", ">=", dayOf(since))
      .executeTakeFirstOrThrow();
    return sum;
  };
}

/** A sum of whole numbers is one: PostgreSQL makes it a decimal otherwise. */
function whole(what: RawBuilder<number>): RawBuilder<number> {
  return sql<number>`cast(coalesce(sum(${what}), 0) as bigint)`;
}

export const USAGE_GROUPS = ["day", "key", "model", "tenant"] as const;
export type UsageGrouping = (typeof USAGE_GROUPS)[number];

export interface UsageQuery {
  readonly key?: string;
  readonly tenant?: string;
  readonly model?: string;
  /** `2026-11-25`, both inclusive. */
  readonly from?: string;
  readonly to?: string;
  /** One row for each combination of these; none: one row. */
  readonly by: readonly UsageGrouping[];
}

export interface UsageSum extends UsageCounts {
  /** By what was grouped. */
  readonly group: Readonly<Partial<Record<UsageGrouping, string>>>;
}

const GROUP_COLUMNS = { day: "day", ...COLUMNS } as const;

/** Sums in the order of the groups. */
export async function readUsage(db: Database, query: UsageQuery): Promise<readonly UsageSum[]> {
  const columns = query.by.map((group) => GROUP_COLUMNS[group]);
  let select = db.selectFrom("usage").select(COUNTS.map((name) => whole(sql.ref<number>(name)).as(name)));
  if (query.key !== undefined) select = select.where("key_id", "=", query.key);
  if (query.tenant !== undefined) select = select.where("tenant", "=", query.tenant);
  if (query.model !== undefined) select = select.where("model", "=", query.model);
  if (query.from !== undefined) select = select.where("day", ">=", query.from);
  if (query.to !== undefined) select = select.where("day", "<=", query.to);
  let grouped = select.select([]);
  for (const column of columns) grouped = grouped.select(column).groupBy(column).orderBy(column) as typeof grouped;
  const rows = (await grouped.execute()) as readonly Record<string, string | number>[];
  return rows.map((row) => ({
    group: Object.fromEntries(query.by.map((group) => [group, String(row[GROUP_COLUMNS[group]])])),
    requests: Number(row["requests"]),
    errors: Number(row["errors"]),
    promptTokens: Number(row["prompt_tokens"]),
    cachedTokens: Number(row["cached_tokens"]),
    completionTokens: Number(row["completion_tokens"]),
    cost: Number(row["cost"]),
  }));
}
