/**
 * The way into the usage table: what comes in one turn of the event loop goes in one transaction, and what comes while
 * one is written in the next. Nothing waits for others that may come: a client does not see the end of its answer before. Where
 * many come, several turns go together (base/turn.ts).
 *
 * Invariants: what `post` was given is in the table once when its promise resolves, and once at most if it never does:
 * a group has a number, which the transaction writes too, so one that was committed without our hearing of it is not
 * added again. While a group cannot be written it is kept and tried again, and `failing` says that no work should be
 * begun. Caller: limits/gate.ts, through app.
 */
import { randomUUID } from "node:crypto";
import type { Log } from "#base/log.ts";
import { gathered, turnOver } from "#base/turn.ts";
import { Fault } from "#core/fault.ts";
import { addCounts, type Counts, type UsageKey, type UsageRow } from "./usage.ts";

/** Additions of one transaction. */
export interface UsageGroup {
  /** Who numbers: one process. */
  readonly writer: string;
  /** From 1, rising. */
  readonly number: number;
  readonly rows: readonly UsageRow[];
}

export interface UsageSink {
  /** All rows or none, and none when a group of this number was there before. */
  add(group: UsageGroup): Promise<void>;
}

export interface UsageBook {
  post(row: UsageRow): Promise<void>;
  readonly failing: boolean;
  /** Writes what is there. */
  close(): Promise<void>;
}

export interface BookOptions {
  readonly sink: UsageSink;
  readonly log: Log;
  readonly retryMs?: number;
}

const RETRY_MS = 500;
/** Tries before those who wait are told. */
const PATIENCE = 2;

type Sum = UsageKey & Counts;

interface Group {
  /** The first of each key. */
  readonly rows: Map<string, Sum>;
  /** Further ones, of another model or day, by name. */
  readonly others: Map<string, Sum>;
  readonly written: PromiseWithResolvers<void>;
}

export function createUsageBook(options: BookOptions): UsageBook {
  return new Book(options);
}

class Book implements UsageBook {
  readonly #options: BookOptions;
  readonly #writer = randomUUID();
  #gathering: Group | undefined;
  #number = 0;
  #failing = false;
  #closing = false;
  #running: Promise<void> | undefined;

  constructor(options: BookOptions) {
    this.#options = options;
  }

  get failing(): boolean {
    return this.#failing;
  }

  post(row: UsageRow): Promise<void> {
    this.#gathering ??= newGroup();
    if (this.#failing) this.#gathering.written.reject(unwritable());
    const { rows, others, written } = this.#gathering;
    const first = rows.get(row.key);
    if (first === undefined) rows.set(row.key, { ...row });
    else if (isSame(first, row)) addCounts(first, row);
    else addTo(others, row);
    gathered();
    this.#running ??= this.#run();
    return written.promise;
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#running;
  }

  /** Until nothing is there to be written. */
  async #run(): Promise<void> {
    while (this.#gathering !== undefined) {
      await turnOver();
      const group = this.#gathering;
      this.#gathering = undefined;
      await this.#write(group);
    }
    this.#running = undefined;
  }

  async #write({ rows, others, written }: Group): Promise<void> {
    const { sink, log, retryMs = RETRY_MS } = this.#options;
    const group = { writer: this.#writer, number: ++this.#number, rows: [...rows.values(), ...others.values()] };
    for (let tries = 1; ; tries++) {
      try {
        await sink.add(group);
        this.#failing = false;
        written.resolve();
        return;
      } catch (error) {
        log("error", "usage cannot be written", { error: String(error), tries });
      }
      if (tries >= PATIENCE) {
        this.#failing = true;
        written.reject(unwritable());
        // Nobody who comes meanwhile waits for a table that is away.
        this.#gathering?.written.reject(unwritable());
        if (this.#closing) {
          log("error", "usage was lost at the end", { rows: group.rows });
          return;
        }
      }
      await sleep(retryMs);
    }
  }
}

export function unwritable(): Fault {
  return new Fault("policy_unavailable", "The server cannot record usage at the moment.", { retryAfterMs: 1000 });
}

function newGroup(): Group {
  const written = Promise.withResolvers<void>();
  // Not everybody waits for it.
  written.promise.catch(() => {});
  return { rows: new Map(), others: new Map(), written };
}

function isSame(a: UsageKey, b: UsageKey): boolean {
  return a.key === b.key && a.model === b.model && a.day === b.day && a.tenant === b.tenant;
}

function addTo(rows: Map<string, Sum>, row: UsageRow): void {
  const name = nameOf(row);
  const before = rows.get(name);
  if (before === undefined) rows.set(name, { ...row });
  else addCounts(before, row);
}

function nameOf({ key, tenant, model, day }: UsageKey): string {
  return `${day}\0${key}\0${tenant}\0${model}`;
}

function sleep(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}
