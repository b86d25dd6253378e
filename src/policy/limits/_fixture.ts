/**
 * A metered gate for tests: a clock that is set by hand, a usage table in memory, calls that are opened by key.
 */
import type { Limits } from "#core/limits.ts";
import type { Work } from "#core/metering.ts";
import { type Admission, type Gate, type Outcome, type PolicyCall, plainGate } from "#policy/gate.ts";
import { NO_PEER } from "#policy/peer.ts";
import { principalOf } from "#policy/roles.ts";
import type { UsageBook } from "#policy/usage/book.ts";
import type { UsageRow } from "#policy/usage/usage.ts";
import type { Books } from "./_take.ts";
import { meteredGate } from "./gate.ts";
import type { Ledger, Spent } from "./ledger.ts";
import { MemoryLedger } from "./memory-ledger.ts";
import { QueueShares } from "./queue-shares.ts";
import { dayOf } from "./windows.ts";

/** 2026-11-25 (a Wednesday) 12:00:10 UTC. */
export const NOON = Date.UTC(2026, 10, 25, 12, 0, 10);

export const OK: Outcome = { status: 200, fault: undefined };

export interface Scene {
  readonly gate: Gate;
  readonly books: Books;
  readonly rows: UsageRow[];
  readonly refused: string[];
  /** Unix milliseconds. */
  now: number;
  open(key: string, limits?: Limits, more?: Partial<PolicyCall>): Admission;
}

export interface SceneOptions {
  readonly tenants?: Readonly<Record<string, Limits>>;
  readonly models?: Readonly<Record<string, Limits>>;
  readonly prices?: Readonly<Record<string, { prompt: number; completion: number; cached?: number }>>;
  readonly ledger?: (spent: Spent) => Ledger;
  readonly usage?: UsageBook;
  readonly capacity?: number;
  readonly rows?: UsageRow[];
  readonly now?: number;
  readonly inner?: Gate;
}

/** The tenant of key `a1` is `a`. */
export function scene(options: SceneOptions = {}): Scene {
  const rows = options.rows ?? [];
  const refused: string[] = [];
  const usage = options.usage ?? {
    failing: false,
    post: async (row: UsageRow) => void rows.push(row),
    close: async () => {},
  };
  const spent = spentOf(rows);
  const books: Books = {
    ledger: options.ledger?.(spent) ?? new MemoryLedger(spent),
    usage,
    queue: new QueueShares(options.capacity ?? Number.POSITIVE_INFINITY),
    keyLimits: (own) => own,
    limitsOf: (kind, id) => (kind === "tenant" ? options.tenants : options.models)?.[id],
    priceOf: (model) => options.prices?.[model],
    onRefused: (subject, kind) => void refused.push(`${subject} ${kind}`),
    onUnavailable: () => void refused.push("unavailable"),
    now: () => made.now,
  };
  const inner =
    options.inner ??
    plainGate(() => {
      throw new Error("nobody is identified here");
    });
  const gate = meteredGate(inner, books);
  const made: Scene = {
    gate,
    books,
    rows,
    refused,
    now: options.now ?? NOON,
    open: (key, limits = {}, more = {}) => gate.open(callOf(key, limits, made.now, more)),
  };
  return made;
}

function callOf(key: string, limits: Limits, at: number, more: Partial<PolicyCall>): PolicyCall {
  return {
    requestId: "r",
    at,
    method: "POST",
    route: "/v1/completions",
    scope: "inference",
    plane: "public",
    dialect: "openai",
    audit: "metadata",
    principal: principalOf({ id: key, tenant: key.slice(0, 1), role: "user", limits }),
    peer: NO_PEER,
    ...more,
  };
}

export function work(promptTokens: number, completionTokens: number, more: Partial<Work> = {}): Work {
  return { model: "m", promptTokens, completionTokens, sequences: 1, ...more };
}

export function used(promptTokens: number, completionTokens: number, cachedTokens = 0) {
  return { promptTokens, completionTokens, cachedTokens, reasoningTokens: 0 };
}

/** The sum over the table, as the store would have it. */
export function spentOf(rows: readonly UsageRow[]): Spent {
  return async ({ kind, id }, measure, since) =>
    rows
      .filter((row) => row[kind] === id && row.day >= dayOf(since))
      .reduce((sum, row) => sum + measured(row, measure), 0);
}

function measured(row: UsageRow, measure: Parameters<Spent>[1]): number {
  switch (measure) {
    case "requests":
      return row.requests;
    case "prompt":
      return row.promptTokens;
    case "completion":
      return row.completionTokens;
    case "tokens":
      return row.promptTokens + row.completionTokens;
    case "usd":
      return row.cost;
    default:
      return 0;
  }
}
