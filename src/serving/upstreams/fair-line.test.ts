import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FairLine, type LineItem } from "./fair-line.ts";

interface Item extends LineItem {
  readonly name: number;
}

const NOTHING: ReadonlySet<string> = new Set();
let names = 0;
const item = (key: string, { weight = 1, kind = "", cost = 10 } = {}): Item => ({
  ...{ name: names++, share: { key, weight }, kind, cost },
});
/** The next one gets what it waits for. */
function serve(line: FairLine<Item>, without = NOTHING): Item | undefined {
  const next = line.next(without);
  if (next !== undefined) line.grant(next);
  return next;
}

/** The same by lists and sums, with nothing of heaps and lanes. */
class Plain {
  readonly waiting: Item[] = [];
  readonly #times = new Map<string, number>();
  #now = 0;

  add(one: Item): void {
    const { key } = one.share;
    if (!this.waiting.some(({ share }) => share.key === key))
      this.#times.set(key, Math.max(this.#times.get(key) ?? 0, this.#now));
    this.waiting.push(one);
  }

  remove(one: Item): void {
    this.waiting.splice(this.waiting.indexOf(one), 1);
    if (this.waiting.length > 0) return;
    this.#times.clear();
    this.#now = 0;
  }

  next(without: ReadonlySet<string>): Item | undefined {
    const able = this.waiting.filter(({ kind }) => !without.has(kind));
    const heads = able.filter(
      (one) => able.find(({ share, kind }) => share.key === one.share.key && kind === one.kind) === one,
    );
    const time = ({ share }: Item): number => this.#times.get(share.key) ?? 0;
    return heads.sort((a, b) => time(a) - time(b) || a.name - b.name)[0];
  }

  grant(one: Item): void {
    const time = this.#times.get(one.share.key) ?? 0;
    this.#now = Math.max(this.#now, time);
    this.#times.set(one.share.key, time + one.cost / one.share.weight);
    this.remove(one);
  }
}

const KEYS = ["a", "b", "c", "d"];
/** Of a key always the same, so that both count alike. */
const WEIGHTS: Readonly<Record<string, number>> = { a: 1, b: 1, c: 2, d: 0.25 };
const STEP = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("add" as const),
      key: fc.constantFrom(...KEYS),
      of: fc.constantFrom("", "sql", "1"),
      cost: fc.integer({ min: 1, max: 50 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("serve" as const),
      without: fc.subarray(["", "sql", "1"], { maxLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("leave" as const), at: fc.nat() }) },
);

test("as a plain list would have it, whoever comes, leaves and is served", () => {
  fc.assert(
    fc.property(fc.array(STEP, { maxLength: 120 }), (steps) => {
      const [line, plain] = [new FairLine<Item>(), new Plain()];
      for (const step of steps) {
        if (step.kind === "add") {
          const one = item(step.key, { weight: WEIGHTS[step.key] ?? 1, kind: step.of, cost: step.cost });
          line.add(one);
          plain.add(one);
        } else if (step.kind === "serve") {
          const without = new Set(step.without);
          const next = line.next(without);
          assert.equal(next?.name, plain.next(without)?.name);
          if (next === undefined) continue;
          line.grant(next);
          plain.grant(next);
        } else if (plain.waiting.length > 0) {
          const one = plain.waiting[step.at % plain.waiting.length] as Item;
          line.remove(one);
          plain.remove(one);
        }
        line.checkIntegrity();
        assert.equal(line.size, plain.waiting.length);
      }
    }),
    { numRuns: 300 },
  );
});

test("somebody who comes behind a flood is next but few, whenever it is", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 200 }),
      fc.nat(150),
      fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 10 }),
      (floods, each, served, costs) => {
        const line = new FairLine<Item>();
        const costOf = (at: number): number => costs[at % costs.length] ?? 1;
        for (let at = 0; at < floods * each; at++) line.add(item(`flood-${at % floods}`, { cost: costOf(at) }));
        for (let at = 0; at < Math.min(served, floods * each - 1); at++) serve(line);
        const late = item("late");
        line.add(late);
        let before = 0;
        while (serve(line) !== late) before++;
        // Nobody gets a second before it: at most one of each who stands where it does, or behind.
        assert.ok(before <= floods, `${before} before it`);
      },
    ),
  );
});

test("who always has something waiting gets by weight, to within what one each costs", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ weight: fc.constantFrom(0.05, 0.5, 1, 3), cost: fc.integer({ min: 1, max: 100 }) }), {
        minLength: 2,
        maxLength: 5,
      }),
      fc.integer({ min: 1, max: 300 }),
      (shares, rounds) => {
        const line = new FairLine<Item>();
        const more = (at: number): void => {
          const { weight = 1, cost = 1 } = shares[at] ?? {};
          line.add(item(String(at), { weight, cost }));
        };
        const given = shares.map(() => 0);
        for (let at = 0; at < shares.length; at++) for (let twice = 0; twice < 2; twice++) more(at);
        for (let round = 0; round < rounds; round++) {
          const at = Number(serve(line)?.share.key);
          const { weight = 1, cost = 1 } = shares[at] ?? {};
          given[at] = (given[at] ?? 0) + cost / weight;
          more(at);
          line.checkIntegrity();
        }
        const most = shares.map(({ weight, cost }) => cost / weight);
        for (const [a, one] of given.entries())
          for (const [b, other] of given.entries())
            assert.ok(one - other <= (most[a] ?? 0) + (most[b] ?? 0) + 1e-6, `${one} and ${other}`);
      },
    ),
  );
});

test("who ran ahead and comes back has its debt; who was away has saved up nothing", () => {
  const line = new FairLine<Item>();
  line.add(item("a", { cost: 1000 }));
  line.add(item("b", { cost: 1 }));
  line.add(item("b", { cost: 1 }));
  line.add(item("b", { cost: 1 }));
  assert.deepEqual([serve(line)?.share.key, serve(line)?.share.key], ["a", "b"]);
  line.add(item("a"));
  assert.deepEqual([serve(line)?.share.key, serve(line)?.share.key, serve(line)?.share.key], ["b", "b", "a"]);
  assert.equal(line.size, 0);
  for (let at = 0; at < 50; at++) line.add(item("c"));
  for (let at = 0; at < 40; at++) serve(line);
  line.add(item("new"));
  line.add(item("new"));
  assert.deepEqual([serve(line)?.share.key, serve(line)?.share.key], ["new", "c"]);
});

test("a full line gives up the last of who has the most for its weight, and of nobody who has less", () => {
  const line = new FairLine<Item>();
  const [first, last] = [item("a"), item("a", { kind: "sql" })];
  assert.equal(line.loserTo({ key: "b", weight: 1 }), undefined);
  for (const one of [first, item("a"), last, item("b", { weight: 0.25 })]) line.add(one);
  assert.equal(line.loserTo({ key: "c", weight: 1 })?.share.key, "b", "four for its weight");
  assert.equal(line.loserTo({ key: "b", weight: 0.25 }), undefined, "its own");
  assert.equal(line.loserTo({ key: "c", weight: 0.25 }), undefined, "it would have as much");
  for (let at = 0; at < 2; at++) line.add(item("a"));
  const end = item("a", { kind: "sql" });
  line.add(end);
  assert.equal(line.loserTo({ key: "c", weight: 1 }), end);
  assert.equal(line.loserTo({ key: "a", weight: 1 }), undefined);
  line.remove(end);
  assert.notEqual(line.loserTo({ key: "c", weight: 1 }), end);
});

test("debts are kept for so many, and forgotten once nobody waits", () => {
  const line = new FairLine<Item>();
  line.add(item("stays", { weight: 1e-9 }));
  serve(line);
  line.add(item("stays"));
  for (let at = 0; at < 10_000; at++) {
    line.add(item(`once-${at}`, { cost: 1_000_000 + at }));
    serve(line);
  }
  line.checkIntegrity();
  while (serve(line) !== undefined) line.checkIntegrity();
  assert.equal(line.size, 0);
});
