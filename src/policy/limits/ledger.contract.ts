/**
 * What a ledger must do whatever is behind it: one set of tests, registered over each by ledger.test.ts.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { type Entry, entryAt, type Ledger, type Refused, SPENT_NOTHING, type Spent, type Taken } from "./ledger.ts";
import type { Rule, Subject } from "./rules.ts";
import { DAY_MS, MINUTE_MS } from "./windows.ts";

export interface LedgerContract {
  readonly name: string;
  /** Why these tests cannot run here. */
  readonly skip: string | undefined;
  /** Ledgers over one empty place: one, or several servers that share. */
  readonly servers: number;
  place(t: TestContext): Promise<(spent: Spent) => Ledger>;
  readonly propertyRuns: number;
}

const KEY: Subject = { kind: "key", id: "k:1 {x} ü" };
const TENANT: Subject = { kind: "tenant", id: "k:1 {x} ü" };
const perMinute = (limit: number): Rule => ({ kind: "tokens_per_minute", measure: "tokens", window: "minute", limit });
const perDay = (limit: number): Rule => ({ kind: "tokens_per_day", measure: "tokens", window: "day", limit });
const perMonth = (limit: number): Rule => ({ kind: "usd_budget_per_month", measure: "usd", window: "month", limit });
const held = (limit: number): Rule => ({ kind: "concurrent_requests", measure: "calls", window: "held", limit });

/** Windows that do not end while a test runs; a real clock stands behind some ledgers. */
const now = (): number => Math.ceil(Date.now() / DAY_MS) * DAY_MS + DAY_MS / 2;

const taken = (outcome: Taken | Refused): Taken => {
  assert.ok(outcome.ok, "it was refused");
  return outcome;
};
const refused = (outcome: Taken | Refused) => {
  assert.ok(!outcome.ok, "it was not refused");
  return [outcome.at, outcome.used];
};

export function ledgerContract({ name, skip, servers, place, propertyRuns }: LedgerContract): void {
  const it = (what: string, run: (t: TestContext) => Promise<void>): void =>
    void test(`${name}: ${what}`, { skip: skip ?? false }, run);

  it("a take is all or nothing over all of its counters", async (t) => {
    const ledger = (await place(t))(SPENT_NOTHING);
    const at = now();
    const both = (amount: number) => [
      entryAt(KEY, perMinute(100), amount, at),
      entryAt(TENANT, perMinute(50), amount, at),
    ];
    assert.deepEqual(taken(await ledger.take(both(30))).used, [30, 30]);
    assert.deepEqual(refused(await ledger.take(both(30))), [1, 30]);
    assert.deepEqual(taken(await ledger.take(both(20))).used, [50, 50]);
    assert.deepEqual(refused(await ledger.take([entryAt(KEY, perMinute(100), 51, at)])), [0, 50]);
    taken(await ledger.take([entryAt(KEY, perMinute(100), 50, at)]));
  });

  it("a settlement gives back what was not used, once", async (t) => {
    const ledger = (await place(t))(SPENT_NOTHING);
    const at = now();
    const entries = [entryAt(KEY, perMinute(10), 8, at), entryAt(KEY, held(1), 1, at), entryAt(KEY, perDay(9), 8, at)];
    const take = taken(await ledger.take(entries));
    assert.deepEqual(refused(await ledger.take([entryAt(KEY, held(1), 1, at)])), [0, 1]);
    await take.settle([3, 0, 3]);
    await take.settle([0, 0, 0]);
    const again = [entryAt(KEY, perMinute(10), 7, at), entryAt(KEY, held(1), 1, at), entryAt(KEY, perDay(9), 6, at)];
    assert.deepEqual(taken(await ledger.take(again)).used, [10, 1, 9]);
  });

  it("without a word nothing stays", async (t) => {
    const ledger = (await place(t))(SPENT_NOTHING);
    const at = now();
    await taken(await ledger.take([entryAt(KEY, perMinute(5), 5, at), entryAt(KEY, held(2), 2, at)])).settle();
    taken(await ledger.take([entryAt(KEY, perMinute(5), 5, at), entryAt(KEY, held(2), 2, at)]));
  });

  it("of what is not known exactly the most is taken, or by one at a time the rest", async (t) => {
    const ledger = (await place(t))(SPENT_NOTHING);
    const at = now();
    const about = (amount: number, most: number) => [entryAt(KEY, perDay(100), amount, at, most)];
    const sure = taken(await ledger.take(about(10, 30)));
    assert.deepEqual(sure.used, [30]);
    const rest = taken(await ledger.take(about(60, 90)));
    assert.deepEqual(rest.used, [100]);
    assert.deepEqual(refused(await ledger.take(about(1, 1))), [0, 100]);
    await sure.settle([12]);
    // Somebody has a rest already, and it may be too little.
    assert.deepEqual(refused(await ledger.take(about(10, 19))), [0, 82]);
    const small = taken(await ledger.take(about(10, 18)));
    assert.deepEqual(small.used, [100]);
    await small.settle([0]);
    // It came to more than was left: by so much the limit is passed, and then nobody gets more.
    await rest.settle([90]);
    assert.deepEqual(refused(await ledger.take(about(1, 1))), [0, 102]);
  });

  it("windows are apart, and a refund goes to its own", async (t) => {
    const ledger = (await place(t))(SPENT_NOTHING);
    const at = now();
    const first = taken(await ledger.take([entryAt(KEY, perMinute(10), 10, at)]));
    const second = taken(await ledger.take([entryAt(KEY, perMinute(10), 6, at + MINUTE_MS)]));
    await first.settle([2]);
    assert.deepEqual(refused(await ledger.take([entryAt(KEY, perMinute(10), 5, at + MINUTE_MS)])), [0, 6]);
    await second.settle([0]);
    taken(await ledger.take([entryAt(KEY, perMinute(10), 10, at + MINUTE_MS)]));
  });

  it("what was spent before counts, for days and longer, and is read once", async (t) => {
    const asked: string[] = [];
    const ledger = (await place(t))(async ({ kind }, measure, since) => {
      asked.push(`${kind} ${measure} ${new Date(since).toISOString()}`);
      await new Promise((done) => setTimeout(done, 5));
      return measure === "usd" ? 2 ** 45 : 40;
    });
    const at = Date.UTC(2100, 4, 20, 13);
    const entries = [
      entryAt(KEY, perDay(100), 10, at),
      entryAt(KEY, perMonth(2 ** 45 + 40), 10, at),
      entryAt(KEY, perMinute(40), 10, at),
    ];
    const outcomes = await Promise.all(Array.from({ length: 5 }, async () => ledger.take(entries)));
    assert.deepEqual(outcomes.map(({ ok }) => ok).sort(), [false, true, true, true, true]);
    assert.deepEqual(
      outcomes.flatMap((outcome) => (outcome.ok ? [outcome.used[1]] : [])).sort(),
      [10, 20, 30, 40].map((n) => 2 ** 45 + n),
    );
    assert.ok(asked.includes("key tokens 2100-05-20T00:00:00.000Z"), asked.join());
    assert.ok(asked.includes("key usd 2100-05-01T00:00:00.000Z"), asked.join());
    const before = asked.length;
    refused(await ledger.take(entries));
    assert.equal(asked.length, before);
    await Promise.all(outcomes.map((outcome) => (outcome.ok ? outcome.settle() : undefined)));
    taken(await ledger.take(entries));
  });

  it("when what was spent cannot be read, nothing is taken", async (t) => {
    let away = true;
    const ledger = (await place(t))(async () => {
      if (away) throw new Error("away");
      return 0;
    });
    const entries = [entryAt(KEY, perMinute(10), 10, now()), entryAt(KEY, perDay(10), 10, now())];
    await assert.rejects(async () => ledger.take(entries));
    away = false;
    taken(await ledger.take(entries));
  });

  it("random takes, settlements and turns of windows: as a plain sum would have it", async (t) => {
    const make = await place(t);
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 20, maxLength: 80 }), async (commands) => {
        const prefix = `run${++run} `;
        const ledgers = Array.from({ length: servers }, () => make(SPENT_NOTHING));
        await play(ledgers, commands, prefix);
        await Promise.all(ledgers.map((ledger) => ledger.close()));
      }),
      { numRuns: propertyRuns },
    );
  });

  it("a hundred at once never pass a limit together", async (t) => {
    const make = await place(t);
    const ledgers = Array.from({ length: servers }, () => make(SPENT_NOTHING));
    const at = now();
    const entries = [entryAt(KEY, held(7), 1, at), entryAt(TENANT, perMinute(100), 9, at)];
    let open = 0;
    let most = 0;
    const call = async (i: number): Promise<boolean> => {
      const outcome = await (ledgers[i % servers] as Ledger).take(entries);
      if (!outcome.ok) return false;
      most = Math.max(most, ++open);
      await new Promise((done) => setImmediate(done));
      open--;
      await outcome.settle([0, 9]);
      return true;
    };
    const let_in = (await Promise.all(Array.from({ length: 100 }, (_, i) => call(i)))).filter(Boolean).length;
    assert.ok(most <= 7, `${most} at once`);
    assert.ok(let_in >= 7 && let_in <= 11, `${let_in} in all`);
    await Promise.all(ledgers.map((ledger) => ledger.close()));
  });
}

type Command =
  | { readonly do: "take"; readonly server: number; readonly amounts: readonly number[]; readonly doubt: number }
  | { readonly do: "settle"; readonly which: number; readonly part: number }
  | { readonly do: "turn" };

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("take" as const),
      server: fc.nat(3),
      amounts: fc.array(fc.nat(6), { minLength: 4, maxLength: 4 }),
      doubt: fc.nat(9),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("settle" as const),
      which: fc.nat(),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: "turn" as const }) },
);

/** Runs commands against ledgers and against plain sums; both must say the same at every step. */
async function play(ledgers: readonly Ledger[], commands: readonly Command[], prefix: string): Promise<void> {
  const counters: readonly (readonly [Subject, Rule])[] = [
    [{ kind: "key", id: prefix }, perMinute(20)],
    [{ kind: "tenant", id: prefix }, perMinute(30)],
    [{ kind: "key", id: prefix }, held(3)],
    [{ kind: "tenant", id: prefix }, perDay(60)],
  ];
  const sums = new Map<string, number>();
  const nameOf = ({ counter, span }: Entry): string => `${counter.name} ${span.start}`;
  const add = (entry: Entry, amount: number): void =>
    void sums.set(nameOf(entry), (sums.get(nameOf(entry)) ?? 0) + amount);
  const open: { readonly take: Taken; readonly entries: readonly Entry[]; readonly had: readonly number[] }[] = [];
  const leftOf = (entry: Entry): number => entry.counter.rule.limit - (sums.get(nameOf(entry)) ?? 0);
  const hasRest = (entry: Entry): boolean =>
    open.some(({ entries, had }) =>
      entries.some((each, i) => nameOf(each) === nameOf(entry) && each.most > (had[i] ?? 0)),
    );
  let at = now();
  for (const step of commands) {
    if (step.do === "turn") at += MINUTE_MS;
    else if (step.do === "take") {
      const entries = counters
        .map(([subject, rule], i) => {
          const amount = rule.window === "held" ? 1 : (step.amounts[i] ?? 0);
          return entryAt(subject, rule, amount, at, rule.window === "day" ? amount + step.doubt : amount);
        })
        .filter(({ amount }) => amount > 0);
      const expected = entries.findIndex(
        (entry) => entry.most > leftOf(entry) && (entry.amount > leftOf(entry) || hasRest(entry)),
      );
      const outcome = await (ledgers[step.server % ledgers.length] as Ledger).take(entries);
      assert.equal(outcome.ok, expected === -1);
      if (outcome.ok) {
        const had = entries.map((entry) => Math.min(entry.most, leftOf(entry)));
        entries.forEach((entry, i) => {
          add(entry, had[i] ?? 0);
        });
        open.push({ take: outcome, entries, had });
        assert.deepEqual(
          outcome.used,
          entries.map((entry) => sums.get(nameOf(entry))),
        );
      } else
        assert.deepEqual([outcome.at, outcome.used], [expected, sums.get(nameOf(entries[expected] as Entry)) ?? 0]);
    } else if (open.length > 0) {
      const [{ take, entries, had }] = open.splice(step.which % open.length, 1) as [(typeof open)[number]];
      const kept = entries.map(({ most, counter }) =>
        counter.rule.window === "held" ? 0 : Math.floor(most * step.part),
      );
      await take.settle(kept);
      entries.forEach((entry, i) => {
        add(entry, (kept[i] ?? 0) - (had[i] ?? 0));
      });
    }
  }
  for (const { take, entries, had } of open.splice(0)) {
    await take.settle();
    entries.forEach((entry, i) => {
      add(entry, -(had[i] ?? 0));
    });
  }
  // At rest: what is left of each counter can be taken to the last piece, and not one more.
  for (const [subject, rule] of counters) {
    const ledger = ledgers[0] as Ledger;
    const left = rule.limit - (sums.get(nameOf(entryAt(subject, rule, 1, at))) ?? 0);
    // By one take's doubt at most a limit of days has been passed.
    assert.ok(left >= (rule.window === "day" ? -9 : 0) && (rule.window !== "held" || left === rule.limit));
    assert.equal((await ledger.take([entryAt(subject, rule, Math.max(0, left) + 1, at)])).ok, false);
    if (left > 0) await taken(await ledger.take([entryAt(subject, rule, left, at)])).settle();
  }
}
