/**
 * The ledger that many servers share: counters in Redis or Valkey, a script a take and a script a settlement.
 *
 * Invariants: a settlement happens once, also when its answer was lost; what a server has open is written beside the
 * counters, so that others give it back when its lease has ended. Windows are named by the servers' clocks: each
 * window's limit holds whatever they show. Counters of days and longer that Redis does not have begin with what the
 * usage table says, so that a Redis that lost its memory gives no fresh budget; answers that are under way at that
 * moment may be missing in it. app makes one; limits/gate.ts uses it.
 */
import { randomUUID } from "node:crypto";
import type { Log } from "#base/log.ts";
import { BEGIN, LIVE, SETTLE, TAKE } from "./_redis-scripts.ts";
import { type Entry, type Ledger, LedgerError, type Refused, type Spent, type Taken } from "./ledger.ts";
import { RedisAwayError, type RedisConnection } from "./redis.ts";

export interface RedisLedgerOptions {
  readonly redis: RedisConnection;
  readonly spent: Spent;
  readonly log: Log;
  /** Without a sign of life for so long a server's open takes go back. */
  readonly leaseMs?: number;
}

const LEASE_MS = 30_000;
/** Signs of life within a lease. */
const SIGNS = 6;
/** Kept beyond its end: clocks differ, settlements come late. */
const AFTER_END_MS = 3_600_000;
const TAG = "{castellan}";
const SERVERS = `${TAG}:servers`;
const OPEN = `${TAG}:open:`;
/** Reads of missing counters in one take; more is a Redis that forgets what it is told. */
const MAX_READS = 3;

interface Settlement {
  readonly keys: readonly string[];
  readonly id: string;
  /** Per counter. */
  readonly kept: readonly number[];
}

export class RedisLedger implements Ledger {
  readonly #redis: RedisConnection;
  readonly #spent: Spent;
  readonly #log: Log;
  readonly #leaseMs: number;
  readonly #server = randomUUID();
  readonly #timer: NodeJS.Timeout;
  /** Settlements that were sent without an answer, to be sent again. */
  #owed: Settlement[] = [];
  readonly #underWay = new Set<Promise<void>>();
  #signing: Promise<void> | undefined;

  constructor({ redis, spent, log, leaseMs = LEASE_MS }: RedisLedgerOptions) {
    this.#redis = redis;
    this.#spent = spent;
    this.#log = log;
    this.#leaseMs = leaseMs;
    this.#timer = setInterval(() => this.#sign(), leaseMs / SIGNS);
    this.#timer.unref();
  }

  async take(entries: readonly Entry[]): Promise<Taken | Refused> {
    const id = randomUUID();
    const keys = entries.map(keyOf);
    for (let reads = 0; reads < MAX_READS; reads++) {
      const [word, ...values] = await this.#ask(id, keys, entries);
      if (word === "taken") return { ok: true, used: values, settle: this.#settlement(id, keys) };
      if (word === "refused") return { ok: false, at: values[0] ?? 0, used: values[1] ?? 0 };
      await Promise.all(values.map((at) => this.#begin(keys[at] as string, entries[at] as Entry)));
    }
    throw new LedgerError("Redis does not keep counters: look at its maxmemory-policy");
  }

  /** Gives its open takes back, if any are left. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#signing;
    await Promise.all(this.#underWay);
    await this.#payOwed().catch(() => {});
    await this.#redis.run(LIVE, [SERVERS], [this.#server, -1, OPEN]).catch(() => {});
    await this.#redis.close();
  }

  async #ask(id: string, keys: readonly string[], entries: readonly Entry[]): Promise<[string, ...number[]]> {
    const args = entries.flatMap((entry) => [
      entry.counter.rule.limit,
      entry.amount,
      entry.most,
      forgottenAt(entry),
      entry.counter.long ? 1 : 0,
    ]);
    try {
      const answer = await this.#redis.run(
        TAKE,
        [SERVERS, OPEN + this.#server, ...keys],
        [this.#server, id, this.#leaseMs, ...args],
      );
      return answer as [string, ...number[]];
    } catch (error) {
      // If it was sent it may have been done all the same: then it has to go back.
      if (!(error instanceof RedisAwayError)) this.#owed.push({ keys, id, kept: keys.map(() => 0) });
      throw new LedgerError("Redis does not answer", { cause: error });
    }
  }

  async #begin(key: string, entry: Entry): Promise<void> {
    const { counter, span } = entry;
    const used = await this.#spent(counter.subject, counter.rule.measure, span.start);
    try {
      await this.#redis.run(BEGIN, [key], [used, forgottenAt(entry)]);
    } catch (error) {
      throw new LedgerError("Redis does not answer", { cause: error });
    }
  }

  #settlement(id: string, keys: readonly string[]): Taken["settle"] {
    let settled: Promise<void> | undefined;
    return (kept = []) => {
      settled ??= this.#settle({ keys, id, kept: keys.map((_, at) => kept[at] ?? 0) });
      return settled;
    };
  }

  #settle(settlement: Settlement): Promise<void> {
    const sent = this.#send(settlement, false)
      .catch(() => {
        this.#owed.push(settlement);
      })
      .finally(() => this.#underWay.delete(sent));
    this.#underWay.add(sent);
    return sent;
  }

  async #send({ keys, id, kept }: Settlement, again: boolean): Promise<void> {
    await this.#redis.run(SETTLE, [OPEN + this.#server, ...keys], [id, again ? 1 : 0, ...kept]);
  }

  /** A sign of life; and what others have not given. */
  #sign(): void {
    this.#signing ??= this.#live().finally(() => {
      this.#signing = undefined;
    });
  }

  async #live(): Promise<void> {
    try {
      const dead = await this.#redis.run(LIVE, [SERVERS], [this.#server, this.#leaseMs, OPEN]);
      if (Number(dead) > 0) this.#log("warn", "what servers had taken that are gone was given back", { servers: dead });
      await this.#payOwed();
    } catch {
      // The connection says by itself that it is away.
    }
  }

  async #payOwed(): Promise<void> {
    const owed = this.#owed;
    this.#owed = [];
    for (let at = 0; at < owed.length; at++) {
      try {
        await this.#send(owed[at] as Settlement, true);
      } catch (error) {
        this.#owed.push(...owed.slice(at));
        throw error;
      }
    }
  }
}

function keyOf({ counter: { subject, rule }, span }: Entry): string {
  return `${TAG}:used:${subject.kind}:${rule.kind}:${span.start}:${subject.id}`;
}

/** 0: never. */
function forgottenAt({ span: { end } }: Entry): number {
  return end === Number.POSITIVE_INFINITY ? 0 : end + AFTER_END_MS;
}
