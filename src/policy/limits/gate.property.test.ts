/**
 * Random calls against a plain sum: let in, reserved, settled, aborted, closed; minutes and days that turn; a process
 * that dies and comes back with nothing but the usage table.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { NO_USAGE, type Reservation } from "#core/metering.ts";
import type { Admission } from "#policy/gate.ts";
import type { UsageRow } from "#policy/usage/usage.ts";
import { NOON, OK, type Scene, scene, used, work } from "./_fixture.ts";
import { entryAt } from "./ledger.ts";
import { type Measure, type Rule, rulesOf, type Subject } from "./rules.ts";
import { DAY_MS, dayOf, MINUTE_MS, windowAt } from "./windows.ts";

const KEY_LIMITS = { requestsPerMinute: 6, requestsPerDay: 12, tokensPerDay: 80, concurrentRequests: 3 };
const TENANT_LIMITS = {
  completionTokensPerMinute: 40,
  queuedSequences: 5,
  budgets: [{ period: "week", unit: "tokens", amount: 150 } as const],
};
const KEYS = ["a1", "a2"];

interface Spending {
  /** When it was reserved. */
  readonly at: number;
  readonly prompt: number;
  readonly completion: number;
  readonly sequences: number;
  readonly reservation: Reservation;
  /** What it came to. */
  used?: { readonly prompt: number; readonly completion: number };
}

interface Call {
  readonly key: string;
  readonly at: number;
  readonly admission: Admission;
  readonly spendings: Spending[];
  closed: boolean;
  booked: boolean;
}

/** What stands in the table for sure: additions of processes that are gone, and of this one. */
interface Booked {
  readonly key: string;
  readonly day: string;
  readonly amounts: Partial<Record<Measure, number>>;
}

type Command =
  | { readonly do: "call"; readonly key: number }
  | {
      readonly do: "reserve";
      readonly which: number;
      readonly prompt: number;
      readonly completion: number;
      readonly n: number;
    }
  | { readonly do: "settle"; readonly which: number; readonly part: number }
  | { readonly do: "abort" | "close"; readonly which: number }
  | { readonly do: "minute" }
  | { readonly do: "day" }
  | { readonly do: "crash" };

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant("call" as const), key: fc.nat(1) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("reserve" as const),
      which: fc.nat(),
      prompt: fc.nat(8),
      completion: fc.nat(14),
      n: fc.integer({ min: 1, max: 2 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("settle" as const),
      which: fc.nat(),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom("abort" as const, "close" as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.constantFrom<Command>({ do: "minute" }, { do: "day" }, { do: "crash" }) },
);

const COUNTERS: readonly (readonly [Subject, Rule])[] = [
  ...KEYS.flatMap((id) => rulesOf(KEY_LIMITS).map((rule) => [{ kind: "key", id }, rule] as const)),
  ...rulesOf(TENANT_LIMITS).map((rule) => [{ kind: "tenant", id: "a" }, rule] as const),
];

class World {
  readonly rows: UsageRow[] = [];
  scene = this.begin(NOON);
  calls: Call[] = [];
  /** Of processes that are gone. */
  past: Booked[] = [];
  booked: Booked[] = [];

  begin(now: number): Scene {
    return scene({ rows: this.rows, tenants: { a: TENANT_LIMITS }, now });
  }

  /** What a counter has to stand at. */
  value([subject, { measure, window }]: (typeof COUNTERS)[number]): number {
    const { start, end } = windowAt(window, this.scene.now);
    const mine = (key: string): boolean => subject.kind === "tenant" || subject.id === key;
    const inside = (at: number): boolean => window === "held" || (at >= start && at < end);
    let sum = 0;
    if (window === "day" || window === "week")
      for (const { key, day, amounts } of this.past) if (mine(key) && day >= dayOf(start)) sum += amounts[measure] ?? 0;
    for (const call of this.calls.filter(({ key }) => mine(key))) {
      if (measure === "requests" && inside(call.at)) sum++;
      if (measure === "calls" && !call.closed) sum++;
      for (const spending of call.spendings.filter(({ at }) => inside(at))) {
        const { prompt, completion } = spending.used ?? spending;
        if (measure === "completion") sum += completion;
        if (measure === "tokens") sum += prompt + completion;
        if (measure === "sequences" && spending.used === undefined) sum += spending.sequences;
      }
    }
    return sum;
  }

  fits(key: string, amounts: Partial<Record<Measure, number>>): boolean {
    return COUNTERS.filter(([subject]) => subject.kind === "tenant" || subject.id === key).every(
      (counter) =>
        (amounts[counter[1].measure] ?? 0) === 0 ||
        this.value(counter) + (amounts[counter[1].measure] ?? 0) <= counter[1].limit,
    );
  }

  async call(key: string): Promise<void> {
    const fits = this.fits(key, { requests: 1, calls: 1 });
    const admission = this.scene.open(key, KEY_LIMITS);
    const admitted = await outcome(async () => admission.admit());
    assert.equal(admitted.ok, fits, "admitted");
    if (admitted.ok)
      this.calls.push({ key, at: this.scene.now, admission, spendings: [], closed: false, booked: false });
    else admission.close({ status: 429, fault: "rate_limited" });
  }

  async reserve(call: Call, prompt: number, completion: number, sequences: number): Promise<void> {
    const fits = this.fits(call.key, { completion, tokens: prompt + completion, sequences });
    const reserved = await outcome(async () => call.admission.meter.reserve(work(prompt, completion, { sequences })));
    assert.equal(reserved.ok, fits, "reserved");
    if (reserved.ok)
      call.spendings.push({ at: this.scene.now, prompt, completion, sequences, reservation: reserved.value });
  }

  async settle(call: Call, spending: Spending, part: number | undefined): Promise<void> {
    const of = (amount: number): number => Math.floor(amount * (part ?? 0));
    spending.used = { prompt: of(spending.prompt), completion: of(spending.completion) };
    const { prompt, completion } = spending.used;
    await spending.reservation.settle(part === undefined ? NO_USAGE : used(prompt, completion));
    this.book(call);
    this.booked.push({ key: call.key, day: dayOf(spending.at), amounts: { tokens: prompt + completion } });
  }

  close(call: Call): void {
    call.admission.close(OK);
    call.closed = true;
    // A reservation that is open books the request when it is settled.
    if (call.spendings.length === 0) this.book(call);
  }

  book(call: Call): void {
    if (call.booked) return;
    call.booked = true;
    this.booked.push({ key: call.key, day: dayOf(call.at), amounts: { requests: 1 } });
  }

  crash(): void {
    this.past = [...this.past, ...this.booked];
    this.booked = [];
    this.calls = [];
    this.scene = this.begin(this.scene.now);
  }
}

async function outcome<T>(run: () => Promise<T>): Promise<{ ok: true; value: T } | { ok: false }> {
  try {
    return { ok: true, value: await run() };
  } catch {
    return { ok: false };
  }
}

const pick = <T>(list: readonly T[], which: number): T | undefined => list[which % list.length];

async function step(world: World, next: Command): Promise<void> {
  const open = world.calls.filter(({ closed }) => !closed);
  const running = world.calls.flatMap((call) =>
    call.spendings.filter(({ used }) => used === undefined).map((spending) => ({ call, spending })),
  );
  if (next.do === "call") await world.call(KEYS[next.key] as string);
  else if (next.do === "minute") world.scene.now += MINUTE_MS;
  else if (next.do === "day") world.scene.now += DAY_MS;
  else if (next.do === "crash") world.crash();
  else if (next.do === "reserve") {
    const call = pick(open, next.which);
    if (call !== undefined) await world.reserve(call, next.prompt, next.completion, next.n);
  } else if (next.do === "close") {
    const call = pick(open, next.which);
    if (call !== undefined) world.close(call);
  } else {
    const one = pick(running, next.which);
    if (one !== undefined) await world.settle(one.call, one.spending, next.do === "settle" ? next.part : undefined);
  }
}

test("no limit is passed, nothing is refused that fits, and at rest everything is back", async () => {
  let refusals = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 30, maxLength: 120 }), async (commands) => {
      const world = new World();
      for (const next of commands) {
        await step(world, next);
        for (const counter of COUNTERS) assert.ok(world.value(counter) <= counter[1].limit);
      }
      refusals += world.scene.refused.length;
      for (const call of world.calls) {
        for (const spending of call.spendings) if (spending.used === undefined) await world.settle(call, spending, 0.5);
        if (!call.closed) world.close(call);
      }
      const { books, now } = world.scene;
      for (const counter of COUNTERS) {
        const [subject, rule] = counter;
        const left = rule.limit - world.value(counter);
        assert.ok(rule.window !== "held" || left === rule.limit);
        assert.equal((await books.ledger.take([entryAt(subject, rule, left + 1, now)])).ok, false);
        if (left > 0) assert.equal((await books.ledger.take([entryAt(subject, rule, left, now)])).ok, true);
      }
      const total = (of: (row: UsageRow) => number) => world.rows.reduce((sum, row) => sum + of(row), 0);
      const sure = [...world.past, ...world.booked];
      const expected = (measure: Measure) => sure.reduce((sum, { amounts }) => sum + (amounts[measure] ?? 0), 0);
      assert.equal(
        total(({ requests }) => requests),
        expected("requests"),
      );
      assert.equal(
        total(({ promptTokens, completionTokens }) => promptTokens + completionTokens),
        expected("tokens"),
      );
    }),
    { numRuns: 300 },
  );
  assert.ok(refusals > 100, "limits were reached");
});
