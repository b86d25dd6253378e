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
import type { Step } from "#policy/store/step.ts";
import type { Database, Store } from "#policy/store/store.ts";
import type { UsageSink } from "./book.ts";
import type { UsageCounts, UsageKey, UsageRow } from "./usage.ts";

const COUNTS = ["requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens", "cost"] as const;
/** SQLite takes 32,766 values a statement. */
const ROWS_A_STATEMENT = 500;
/** Statements for up to so many rows are kept: most groups have few. */
const KEPT_TEXTS = 32;
/** A group is not written again later than this. */
const WRITER_MEMORY_MS = 7 * DAY_MS;

export function usageSink({ db, transact }: Pick<Store, "db" | "transact">): UsageSink {
  const forget = db.deleteFrom("usage_writers").where("at", "<", 0).compile().sql;
  const claim = claimText(db);
  const adding = new AddText(db);
  return {
    add: async ({ writer, number, rows }) => {
      const at = Date.now();
      const steps: Step[] = [];
      if (number === 1) steps.push({ sql: forget, parameters: [at - WRITER_MEMORY_MS] });
      steps.push({ sql: claim, parameters: [writer, number, at], decides: true });
      const sorted = rows.toSorted(inOrder);
      for (let from = 0; from < sorted.length; from += ROWS_A_STATEMENT) {
        const some = sorted.slice(from, from + ROWS_A_STATEMENT);
        steps.push({ sql: adding.text(some.length), parameters: some.flatMap(valuesOf) });
      }
      await transact(steps);
    },
  };
}

/** Writes a group's number; changes nothing where it, and so the group, was there before. */
function claimText(db: Database): string {
  return db
    .insertInto("usage_writers")
    .values({ id: "", number: 0, at: 0 })
    .onConflict((conflict) =>
      conflict
        .column("id")
        .doUpdateSet((eb) => ({ number: eb.ref("excluded.number"), at: eb.ref("excluded.at") }))
        .whereRef("usage_writers.number", "<", "excluded.number"),
    )
    .compile().sql;
}

type Stored = Tables["usage"];

/** The statement that adds so many rows; those for few are kept. */
class AddText {
  readonly #db: Database;
  readonly #kept: string[] = [];

  constructor(db: Database) {
    this.#db = db;
  }

  text(rows: number): string {
    const kept = this.#kept[rows];
    if (kept !== undefined) return kept;
    const made = this.#make(rows);
    if (rows <= KEPT_TEXTS) this.#kept[rows] = made;
    return made;
  }

  #make(rows: number): string {
    const sum = (
      eb: ExpressionBuilder<Tables & { excluded: Stored }, "usage" | "excluded">,
      name: (typeof COUNTS)[number],
    ) => eb(`usage.${name}`, "+", eb.ref(`excluded.${name}`));
    return this.#db
      .insertInto("usage")
      .values(Array.from({ length: rows }, () => BLANK))
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
      .compile().sql;
  }
}

/** A row for the compiler: the statement has its columns in this order. */
const BLANK: Stored = {
  key_id: "",
  day: "",
  tenant: "",
  model: "",
  requests: 0,
  errors: 0,
  prompt_tokens: 0,
  cached_tokens: 0,
  completion_tokens: 0,
  cost: 0,
};

/** In the order of `BLANK`. */
function valuesOf(row: UsageRow): readonly (string | number)[] {
  const { key, tenant, model, day, requests, errors, promptTokens, cachedTokens, completionTokens, cost } = row;
  return [key, day, tenant, model, requests, errors, promptTokens, cachedTokens, completionTokens, cost];
}

function inOrder(a: UsageKey, b: UsageKey): number {
  return compare(a.key, b.key) || compare(a.day, b.day) || compare(a.tenant, b.tenant) || compare(a.model, b.model);
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
